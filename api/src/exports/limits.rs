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
pub(crate) const BODY_BYTES: usize = 1024 * 1024;

/// As many columns as a PostgreSQL table can have.
pub(crate) const COLUMNS: usize = 1600;

/// Bytes of a column's name in the file.
pub(crate) const TARGET_BYTES: usize = 255;

pub(crate) const FILTERS: usize = 100;

/// Values of one `in` filter.
pub(crate) const FILTER_VALUES: usize = 1000;

/// As many columns as an index can have.
pub(crate) const ORDER_KEYS: usize = 32;

pub(crate) use super::options::all as options;
