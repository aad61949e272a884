//! Exports as clients see them: submitted, previewed, inspected, listed, deleted; and the benchmark, which does most of it.
//! The download of files is in `download`.
//!
//! One file per operation. A submission is read by `body` and `validate`, with a file for each of its parts.

pub(crate) mod benchmark;
mod body;
pub(crate) mod body_budget;
mod columns;
mod cursor;
pub(crate) mod delete;
pub(crate) mod document;
mod field;
pub(crate) mod filters;
pub(crate) mod fuzz_target;
pub(crate) mod id;
mod idempotency;
pub(crate) mod inspect;
pub(crate) mod limits;
pub(crate) mod list;
pub(crate) mod manifest;
mod options;
mod order;
mod plan_check;
mod planner_cost;
pub(crate) mod preview;
mod request_document;
mod stored_size;
mod strict_json;
pub(crate) mod submit;
mod validate;
