//! Rows into Arrow record batches, for the formats that store a column's values together.

mod batch;
mod column;
mod numeric_option;
mod pieces;
mod shown;
mod uuid_option;

pub(crate) use batch::BatchBuilder;
pub(crate) use column::BATCH_BYTES;
pub(crate) use numeric_option::NUMERIC;
pub(crate) use pieces::Pieces;
pub(crate) use uuid_option::UUID;
