//! The second stage: rows into the bytes of a format. One file a format; each implements [`Encode`].
//! Compression and parts come later; the system tests read every format back.

use crate::copy::{Row, ValueError};
use crate::encode_buffer::{EncodeBuffer, Stopped};
use crate::output_column::OutputColumn;
use crate::unrepresentable_policy::Replacement;

/// Writes rows as one format. An encoder appends to `out`, or hands out pieces in [`Encode::finished`]; never both.
/// It may hold rows back until `end`.
pub trait Encode: Send {
    /// What comes before the first row.
    fn begin(&mut self, out: &mut EncodeBuffer<'_>) -> Result<(), EncodeError>;
    /// Goes on behind rows that another encoder has written, instead of `begin`. There are such rows.
    fn continue_shard(&mut self) {}
    /// One row, with a field for each column and perhaps more behind them.
    fn row(&mut self, row: Row<'_>, out: &mut EncodeBuffer<'_>) -> Result<(), EncodeError>;
    /// What comes after the last row.
    fn end(&mut self, out: &mut EncodeBuffer<'_>) -> Result<(), EncodeError>;
    /// Ends before the end of the file, instead of `end`: more rows, or what is behind the last one, come from elsewhere.
    /// The answer is what the end of the file has to say of these rows, if anything.
    fn finish_shard(&mut self) -> Result<Option<Vec<u8>>, EncodeError> {
        Ok(None)
    }
    /// The next piece of what was written in bulk, by an encoder that leaves `out` alone. To be asked after `begin`,
    /// now and then between rows, and after `end` or `finish_shard`, until there is none.
    fn finished(&mut self) -> Option<Vec<u8>> {
        None
    }
    /// Rows in the pieces that were finished, by an encoder that holds rows back.
    fn rows_finished(&self) -> Option<i64> {
        None
    }
    /// What was written as something else so far.
    fn replacements(&self) -> &[Replacement];
    /// The values of a row as the file has them, for people; `None` is NULL. To be asked of an encoder that writes nothing else.
    fn shown(&mut self, row: Row<'_>) -> Result<Vec<Option<String>>, EncodeError>;
}

/// Why a row cannot be written. The caller knows the row.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("the value of column {column:?} {source}")]
    Undecodable { column: String, source: ValueError },
    #[error("column {column:?} holds {problem}, which {format} cannot hold")]
    Unrepresentable { column: String, format: &'static str, problem: &'static str },
    #[error("a footer for {row_groups} row groups of {columns} columns does not fit into a worker's memory")]
    TooManyRowGroups { row_groups: usize, columns: usize },
    /// A defect: the format's library refused what it was given.
    #[error("the {format} writer failed")]
    Writer { format: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The values of a row as `write` writes each that is not NULL, from its column's place and its field.
pub(crate) fn shown_by(
    row: Row<'_>,
    mut write: impl FnMut(usize, &[u8], &mut EncodeBuffer<'_>) -> Result<(), EncodeError>,
) -> Result<Vec<Option<String>>, EncodeError> {
    let mut shown = |(index, field): (usize, Option<&[u8]>)| {
        let Some(field) = field else { return Ok(None) };
        let (mut scratch, mut text) = (Vec::new(), Vec::new());
        let mut out = EncodeBuffer::new(&mut scratch, &mut text);
        write(index, field, &mut out)?;
        out.empty()?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    };
    row.fields().enumerate().map(&mut shown).collect()
}

/// The error of a field that cannot be read.
pub(crate) fn undecodable(column: &OutputColumn) -> impl FnOnce(ValueError) -> EncodeError + '_ {
    |source| EncodeError::Undecodable { column: column.name.clone(), source }
}
