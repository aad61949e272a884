//! What the api and the worker share: the vocabulary of an export (request, format, status, failure), the
//! catalog of what may be exported, the two durable hand-offs (ledger and queue) with the object store beside
//! them, and how a process is started, listens, and tells of itself. Nothing here reads rows or answers clients.

pub mod catalog;
pub mod config;
pub mod dataset;
pub mod failure;
pub mod format;
pub mod format_options;
pub mod ledger;
pub mod lifecycle;
pub mod listen;
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
pub mod telemetry;
pub mod uncut;
