//! Limits of a submission, for its validation and for its description (`openapi::submission`).

/// Names of the fields that a submission may have.
pub(crate) const FIELDS: [&str; 10] = [
    "format",
    "columns",
    "compression",
    "dataset",
    "filters",
    "orderBy",
    "options",
    "parallelism",
    "layout",
    "coalesce",
];

/// Bytes of the body.
pub(crate) const BODY_BYTES: usize = 256 * 1024;

/// Values in the body: objects, arrays, strings, numbers, booleans and nulls. A request for every column of the widest table
/// has half as many.
pub(crate) const JSON_VALUES: usize = 10_000;

/// Arrays and objects inside each other in the body. A request needs four.
pub(crate) const JSON_DEPTH: usize = 32;

/// Bytes of a key in the body. The longest that is known has a tenth of that.
pub(crate) const JSON_KEY_BYTES: usize = 256;

/// Bytes of a request as JSON in the ledger, where every export keeps its own.
pub(crate) const STORED_BYTES: usize = 64 * 1024;

/// As many columns as a PostgreSQL table can have.
pub(crate) const COLUMNS: usize = 1600;

/// Bytes of a column's name in the file.
pub(crate) const TARGET_BYTES: usize = 255;

pub(crate) const FILTERS: usize = 100;

/// Steps of a filter's path into a JSON column.
pub(crate) const PATH_STEPS: usize = 16;

/// Bytes of one step.
pub(crate) const PATH_STEP_BYTES: usize = 256;

/// Values of one `in` filter.
pub(crate) const FILTER_VALUES: usize = 1000;

/// As many columns as an index can have.
pub(crate) const ORDER_KEYS: usize = 32;

pub(crate) use super::options::all as options;
