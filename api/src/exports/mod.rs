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
mod preview;
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
pub(crate) use preview::preview;
pub(crate) use submit::submit;

use utoipa::OpenApi;

/// What can be done with exports, for the description of the API.
#[derive(OpenApi)]
#[openapi(paths(
    submit::submit,
    list::list,
    preview::preview,
    benchmark::benchmark,
    inspect::inspect,
    delete::delete,
    manifest::manifest
))]
pub(crate) struct Operations;

/// What a submission may hold, for its description.
pub(crate) mod limits {
    pub(crate) use super::columns::{LONGEST_TARGET as TARGET_BYTES, MOST as COLUMNS};
    pub(crate) use super::filters::{MOST as FILTERS, MOST_VALUES as FILTER_VALUES};
    pub(crate) use super::options::all as options;
    pub(crate) use super::order::MOST as ORDER_KEYS;
    #[cfg(test)]
    pub(crate) use super::validate::FIELDS;
}

/// Every export's, until there are accounts.
const TENANT: &str = "default";
