//! The second stage: rows into the bytes of a format. One file a format; each implements [`Encode`].
//! Compression and parts come later; the system tests read every format back.

mod csv;
mod datetime;
mod exactness;
mod float;
mod json;
mod json_text;
mod out;
mod parquet;
mod scalar;
mod xml;

pub(crate) use self::parquet::footer as parquet_footer;
pub(crate) use exactness::{Exactness, Replacement};
pub(crate) use out::{Out, RELIEF_BYTES, Spill, Stopped};
pub(crate) use scalar::write_readable;

use polyglot_export::format::Format;
use polyglot_export::format_options::FormatOptions;

use crate::source::{OutputColumn, Row, ValueError};

/// Writes rows as one format. An encoder appends to `out`, or hands out pieces in [`Encode::finished`]; never both.
/// It may hold rows back until `end`.
pub(crate) trait Encode: Send {
    /// What comes before the first row.
    fn begin(&mut self, out: &mut Out<'_>) -> Result<(), EncodeError>;
    /// Goes on behind rows that another encoder has written, instead of `begin`. There are such rows.
    fn resume(&mut self) {}
    /// One row, with a field for each column and perhaps more behind them.
    fn row(&mut self, row: Row<'_>, out: &mut Out<'_>) -> Result<(), EncodeError>;
    /// What comes after the last row.
    fn end(&mut self, out: &mut Out<'_>) -> Result<(), EncodeError>;
    /// Ends before the end of the file, instead of `end`: more rows, or what is behind the last one, come from elsewhere.
    /// The answer is what the end of the file has to say of these rows, if anything.
    fn suspend(&mut self) -> Result<Option<Vec<u8>>, EncodeError> {
        Ok(None)
    }
    /// The next piece of what was written in bulk, by an encoder that leaves `out` alone. To be asked after `begin`,
    /// now and then between rows, and after `end` or `suspend`, until there is none.
    fn finished(&mut self) -> Option<Vec<u8>> {
        None
    }
    /// Rows in the pieces that were finished, by an encoder that holds rows back.
    fn rows_finished(&self) -> Option<i64> {
        None
    }
    /// What was written as something else so far.
    fn replacements(&self) -> &[Replacement];
}

/// Why a row cannot be written. The caller knows the row.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("the value of column {column:?} {source}")]
    Undecodable { column: String, source: ValueError },
    #[error("column {column:?} holds {problem}, which {format} cannot hold")]
    Unrepresentable { column: String, format: &'static str, problem: &'static str },
    #[error("a footer for {row_groups} row groups of {columns} columns does not fit into a worker's memory")]
    TooManyRowGroups { row_groups: usize, columns: usize },
    /// A defect: the Parquet library refused what it was given.
    #[error("the Parquet writer failed")]
    Parquet(#[source] ::parquet::errors::ParquetError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The encoder for a format; of a file that is written in so many shards, each by one of its own.
pub(crate) fn encoder(
    format: Format,
    options: &FormatOptions,
    columns: &[OutputColumn],
    shards: usize,
) -> Box<dyn Encode> {
    let exactness = Exactness::new(options.on_unrepresentable);
    match format {
        Format::Csv => Box::new(csv::Csv::new(columns, &options.csv, exactness)),
        Format::Json => Box::new(json::Json::new(columns, json::Framing::Array, options.bigint)),
        Format::Jsonl => Box::new(json::Json::new(columns, json::Framing::Lines, options.bigint)),
        Format::Xml => Box::new(xml::Xml::new(columns, exactness)),
        Format::Parquet => Box::new(parquet::Parquet::new(columns, options.parquet, exactness, shards)),
    }
}

/// The error of a field that cannot be read.
fn undecodable(column: &OutputColumn) -> impl FnOnce(ValueError) -> EncodeError + '_ {
    |source| EncodeError::Undecodable { column: column.name.clone(), source }
}

/// What opens and closes around the items of an array, item by item, from the sizes of its dimensions: before item `n`
/// as many levels open as `n` is the first item of, behind it as many close as it is the last item of. The outermost
/// level is the caller's.
struct Nesting {
    /// Items in one element of each inner level, outermost first.
    strides: Vec<usize>,
}

impl Nesting {
    fn new(sizes: &[usize]) -> Self {
        let inner = sizes.get(1..).unwrap_or_default();
        Self { strides: (0..inner.len()).map(|level| inner[level..].iter().product()).collect() }
    }

    fn opens(&self, item: usize) -> usize {
        self.strides.iter().filter(|stride| item.is_multiple_of(**stride)).count()
    }

    fn closes(&self, item: usize) -> usize {
        self.opens(item + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_open_and_close_by_the_sizes() {
        let nesting = Nesting::new(&[2, 2, 3]);
        let opened: Vec<usize> = (0..12).map(|item| nesting.opens(item)).collect();
        assert_eq!(opened, [2, 0, 0, 1, 0, 0, 2, 0, 0, 1, 0, 0]);
        let closed: Vec<usize> = (0..12).map(|item| nesting.closes(item)).collect();
        assert_eq!(closed, [0, 0, 1, 0, 0, 2, 0, 0, 1, 0, 0, 2]);
        assert_eq!(Nesting::new(&[4]).opens(0), 0);
        assert_eq!(Nesting::new(&[]).opens(0), 0);
    }
}
