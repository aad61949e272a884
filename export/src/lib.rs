//! What the api and the worker share: the vocabulary of an export (request, format, status, failure), the
//! catalog of what may be exported, and the two durable hand-offs (ledger and queue) with the object store
//! beside them. Nothing here reads rows or answers HTTP.

pub mod catalog;
pub mod config;
pub mod dataset;
pub mod failure;
pub mod format;
pub mod format_options;
pub mod ledger;
pub mod lifecycle;
pub mod logging;
pub mod manifest;
pub mod queue;
pub mod representation;
pub mod request;
pub mod selection;
pub mod source;
pub mod status;
pub mod storage;
pub mod sweep;
pub mod uncut;
