//! The life of an export as a client sees it: submitted, inspected, listed, deleted; and the benchmark, which
//! does all of it. Handing out the file is `download`.

mod benchmark;
mod body;
mod columns;
mod cursor;
mod delete;
mod document;
mod field;
mod filters;
mod id;
mod idempotency;
mod inspect;
mod list;
mod manifest;
mod options;
mod order;
mod strict_json;
mod submit;
mod typed;
mod validate;

pub(crate) use benchmark::benchmark;
pub(crate) use delete::delete;
pub(crate) use document::{ExportDocument, retry_after};
pub(crate) use id::ExportId;
pub(crate) use inspect::{find, inspect};
pub(crate) use list::list;
pub(crate) use manifest::manifest;
pub(crate) use submit::submit;

/// Every export's, until there are accounts.
const TENANT: &str = "default";
