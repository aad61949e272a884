//! Rows of binary `COPY`: where each begins and ends, its fields, and the typed values in them. Nothing here can panic,
//! whatever the bytes are.

mod array;
mod numeric;
mod row;
mod value;
mod value_error;

pub use array::Array;
pub use numeric::Numeric;
pub use row::{FieldIndex, Found, HEADER, Malformed, Row, RowScanner, TRAILER, row_of_record};
pub use value::Value;
pub use value_error::ValueError;
