//! The second stage: rows into the bytes of a format. One file a format; each implements [`Encode`].
//! Compression and parts come later; the system tests read every format back.

mod csv;
mod datetime;
mod float;
mod json;
mod json_text;
mod parquet;
mod scalar;
mod xml;

use polyglot_export::format::Format;

use crate::source::{OutputColumn, Row, ValueError};

/// Writes rows as one format. An encoder appends to `out`, or hands out pieces in [`Encode::finished`]; never both.
/// It may hold rows back until `end`.
pub(crate) trait Encode: Send {
    /// What comes before the first row.
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError>;
    /// One row, with a field for each column.
    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError>;
    /// What comes after the last row.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError>;
    /// The next piece of what was written in bulk, by an encoder that leaves `out` alone. To be asked after `begin`,
    /// now and then between rows, and after `end`, until there is none.
    fn finished(&mut self) -> Option<Vec<u8>> {
        None
    }
}

/// Why a row cannot be written. The caller knows the row's number.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("the value of column {column:?} {source}")]
    Undecodable { column: String, source: ValueError },
    #[error("column {column:?} holds {problem}, which {format} cannot hold")]
    Unrepresentable { column: String, format: &'static str, problem: &'static str },
    /// A defect: the Parquet library refused what it was given.
    #[error("the Parquet writer failed")]
    Parquet(#[source] ::parquet::errors::ParquetError),
}

/// The encoder for a format.
pub(crate) fn encoder(format: Format, columns: &[OutputColumn]) -> Result<Box<dyn Encode>, EncodeError> {
    Ok(match format {
        Format::Csv => Box::new(csv::Csv::new(columns)),
        Format::Json => Box::new(json::Json::new(columns, json::Framing::Array)),
        Format::Jsonl => Box::new(json::Json::new(columns, json::Framing::Lines)),
        Format::Xml => Box::new(xml::Xml::new(columns)),
        Format::Parquet => Box::new(parquet::Parquet::new(columns)?),
    })
}

/// The error of a field that cannot be read.
fn undecodable(column: &OutputColumn) -> impl FnOnce(ValueError) -> EncodeError + '_ {
    |source| EncodeError::Undecodable { column: column.name.clone(), source }
}
