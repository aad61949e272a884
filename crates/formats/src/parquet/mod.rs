//! Parquet: wire values into Arrow builders, a record batch at a time into row groups that are bounded in bytes.
//! Snappy or zstd, dictionaries and statistics as the parquet crate does them. No Arrow schema is embedded, so what a
//! reader sees are Parquet's own types.

mod column;
mod footer;

pub use footer::footer;

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use column::{BATCH_BYTES, Builder, Refused};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use polyglot_core::format_options::{ParquetCodec, ParquetOptions};

use crate::copy::{Array, Row, Value, ValueError};
use crate::encode::{Encode, EncodeError, undecodable};
use crate::encode_buffer::EncodeBuffer;
use crate::output_column::OutputColumn;
use crate::unrepresentable_policy::{Replacement, UnrepresentablePolicy};

/// Rows and bytes that are gathered before they go into the row group.
const BATCH_ROWS: usize = 8192;
/// The first batch, by which it is decided what has dictionaries.
const FIRST_BATCH_BYTES: usize = 2 << 20;
/// Values of a page before they are compressed. Each column fills one at a time, so all of them are in memory; the library
/// would take a mebibyte. Snappy looks back 64 KiB, and gains nothing from larger ones.
const PAGE_BYTES: usize = 256 << 10;
/// What a value takes in a builder at least, NULL or not.
const VALUE_BYTES: usize = 16;
/// A dictionary's hash table takes 70 KiB before its first value: so many columns at most have one.
const MOST_DICTIONARIES: usize = 256;
/// Values of a column that are looked at before it is decided whether it has dictionaries.
const LOOKED_AT: usize = 2048;
/// The footer is in memory until the end, about a kilobyte for each column of each row group. After so many of them
/// row groups grow, and after four times as many the export fails.
const FOOTER_STEP: usize = 16_384;
const FOOTER_STEPS: usize = 4;

pub(super) struct Parquet {
    columns: Vec<OutputColumn>,
    builders: Vec<Builder>,
    schema: SchemaRef,
    /// That share the footer, this one included.
    shards: usize,
    row_group_bytes: usize,
    rows: usize,
    bytes: usize,
    rows_finished: i64,
    /// Whether the magic number is still to be left out.
    skips_magic: bool,
    /// Items of the array at hand, where they come as text.
    items: Vec<u8>,
    unrepresentable_policy: UnrepresentablePolicy,
    codec: ParquetCodec,
    /// Of each column, what was seen of its first values.
    repeats: Vec<Repeats>,
    /// Opened with the first batch, by what is in it; `None` again once the footer is written.
    writer: Option<Box<ArrowWriter<Pieces>>>,
    finished: Pieces,
}

/// Whether a column's values repeat. A dictionary of values that do not is larger than the values, and to make it is a
/// quarter of the work; the library finds that out for each row group anew, after a mebibyte.
#[derive(Default)]
struct Repeats {
    seen: usize,
    /// Hashes with a fixed key: the same rows make the same file.
    distinct: HashSet<u64>,
}

impl Repeats {
    fn look_at(&mut self, bytes: &[u8]) {
        if self.seen < LOOKED_AT {
            self.seen += 1;
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            self.distinct.insert(hasher.finish());
        }
    }

    fn are_worth_a_dictionary(&self) -> bool {
        self.distinct.len() * 2 <= self.seen
    }
}

/// Finished bytes in pieces of one size, so that a row group is never copied to make one growing buffer larger.
#[derive(Default)]
struct Pieces(VecDeque<Vec<u8>>);

const PIECE_BYTES: usize = 128 << 10;

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.back().is_none_or(|piece| piece.len() == PIECE_BYTES) {
            self.0.push_back(Vec::with_capacity(PIECE_BYTES));
        }
        let Some(piece) = self.0.back_mut() else { return Ok(0) };
        let written = bytes.len().min(PIECE_BYTES - piece.len());
        piece.extend_from_slice(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Parquet {
    pub(super) fn new(
        columns: &[OutputColumn],
        options: ParquetOptions,
        unrepresentable_policy: UnrepresentablePolicy,
        shards: usize,
    ) -> Self {
        let (builders, fields): (Vec<_>, Vec<_>) = columns.iter().map(|it| column::column(it, options.numeric)).unzip();
        Self {
            columns: columns.to_vec(),
            builders,
            schema: Arc::new(Schema::new(fields)),
            shards,
            row_group_bytes: usize::try_from(options.row_group_bytes).unwrap_or(usize::MAX),
            rows: 0,
            bytes: 0,
            rows_finished: 0,
            skips_magic: false,
            items: Vec::new(),
            unrepresentable_policy,
            codec: options.codec,
            repeats: columns.iter().map(|_| Repeats::default()).collect(),
            writer: None,
            finished: Pieces::default(),
        }
    }

    fn new_writer(&self) -> Result<Box<ArrowWriter<Pieces>>, EncodeError> {
        let mut properties = WriterProperties::builder()
            .set_compression(match self.codec {
                ParquetCodec::Snappy => Compression::SNAPPY,
                ParquetCodec::Zstd => Compression::ZSTD(ZstdLevel::default()),
            })
            .set_dictionary_enabled(self.columns.len() <= MOST_DICTIONARIES)
            // A column of a row group is a few pages, which are read together: an index of them would be all cost, in memory
            // until the end.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_data_page_size_limit(PAGE_BYTES)
            // When a row group ends is decided here, by what it takes in memory.
            .set_max_row_group_row_count(None);
        // A column is one leaf, lists included, in the same order.
        let leaves = ArrowSchemaConverter::new().convert(&self.schema).map_err(EncodeError::Parquet)?;
        for (leaf, repeats) in leaves.columns().iter().zip(&self.repeats) {
            if !repeats.are_worth_a_dictionary() {
                properties = properties.set_column_dictionary_enabled(leaf.path().clone(), false);
            }
        }
        let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
        ArrowWriter::try_new_with_options(Pieces::default(), self.schema.clone(), options)
            .map(Box::new)
            .map_err(EncodeError::Parquet)
    }

    /// The writer, to be put back unless the file ends.
    fn take_writer(&mut self) -> Result<Box<ArrowWriter<Pieces>>, EncodeError> {
        if let Some(writer) = self.writer.take() {
            return Ok(writer);
        }
        let writer = self.new_writer()?;
        self.repeats.clear();
        Ok(writer)
    }

    /// Moves what the writer has finished to where it is fetched from.
    fn fetch(&mut self) -> Result<(), EncodeError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.sync().map_err(|error| EncodeError::Parquet(error.into()))?;
        self.finished.0.append(&mut writer.inner_mut().0);
        Ok(())
    }

    /// Moves the gathered rows into the row group, and what the writer has finished to where it is fetched from.
    fn write_batch(&mut self) -> Result<(), EncodeError> {
        if self.rows > 0 {
            let arrays = self.builders.iter_mut().map(Builder::finish).collect();
            let batch = RecordBatch::try_new(self.schema.clone(), arrays)
                .map_err(|error| EncodeError::Parquet(error.into()))?;
            let writer = self.take_writer()?;
            let writer = self.writer.insert(writer);
            writer.write(&batch).map_err(EncodeError::Parquet)?;
            (self.rows, self.bytes) = (0, 0);
            let groups = writer.flushed_row_groups().len();
            let steps = groups * self.columns.len() * self.shards / FOOTER_STEP;
            let limit = grown(self.row_group_bytes, steps);
            // Dictionaries and pages that are not full count in memory, and not in the file: with many columns they are
            // the larger part.
            if writer.in_progress_size() >= limit || writer.memory_size() >= 2 * limit {
                if steps >= FOOTER_STEPS {
                    return Err(EncodeError::TooManyRowGroups { row_groups: groups, columns: self.columns.len() });
                }
                self.rows_finished += i64::try_from(writer.in_progress_rows()).unwrap_or(i64::MAX);
                writer.flush().map_err(EncodeError::Parquet)?;
            }
        }
        self.fetch()
    }
}

/// The size of a row group, doubled for each step of the footer.
fn grown(bytes: usize, steps: usize) -> usize {
    let largest = usize::try_from(ParquetOptions::LARGEST_ROW_GROUP).unwrap_or(usize::MAX);
    bytes.saturating_mul(1 << steps.min(8)).min(largest)
}

impl Encode for Parquet {
    fn begin(&mut self, _: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        Ok(())
    }

    fn row(&mut self, row: Row<'_>, _: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        for (index, ((column, builder), field)) in
            self.columns.iter().zip(&mut self.builders).zip(row.fields()).enumerate()
        {
            self.bytes += field.map_or(0, <[u8]>::len).max(VALUE_BYTES);
            let Some(bytes) = field else {
                builder.append_null();
                continue;
            };
            if let Some(repeats) = self.repeats.get_mut(index) {
                repeats.look_at(bytes);
            }
            let unrepresentable_policy = &mut self.unrepresentable_policy;
            let mut replace = |problem| {
                unrepresentable_policy.replace(index, problem, "NULL").map_err(|_| Refused::Unrepresentable(problem))
            };
            let taken = match column.array {
                None => builder.append(Value::read(column.wire, bytes).map_err(undecodable(column))?),
                Some(array) => Array::read(column.wire, array, bytes, &mut self.items)
                    .map_err(Refused::Undecodable)
                    .and_then(|array| builder.append_array(array, &mut replace)),
            };
            let taken = match taken {
                Err(Refused::Unrepresentable(problem)) => replace(problem).map(|()| builder.append_null()),
                other => other,
            };
            taken.map_err(|refused| match refused {
                Refused::Unrepresentable(problem) => {
                    EncodeError::Unrepresentable { column: column.name.clone(), format: "Parquet", problem }
                }
                Refused::Undecodable(source) => EncodeError::Undecodable { column: column.name.clone(), source },
                Refused::Mismatch => {
                    EncodeError::Undecodable { column: column.name.clone(), source: ValueError::Range }
                }
            })?;
        }
        self.rows += 1;
        let most = if self.writer.is_some() { BATCH_BYTES } else { FIRST_BATCH_BYTES };
        if self.rows >= BATCH_ROWS || self.bytes >= most { self.write_batch() } else { Ok(()) }
    }

    fn end(&mut self, _: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        self.write_batch()?;
        let writer = self.take_writer()?;
        self.rows_finished += i64::try_from(writer.in_progress_rows()).unwrap_or(i64::MAX);
        self.finished.0.append(&mut writer.into_inner().map_err(EncodeError::Parquet)?.0);
        Ok(())
    }

    fn continue_shard(&mut self) {
        self.skips_magic = true;
    }

    /// The footer of these rows alone, whose offsets count from a magic number before them.
    fn finish_shard(&mut self) -> Result<Option<Vec<u8>>, EncodeError> {
        self.write_batch()?;
        let mut writer = self.take_writer()?;
        self.rows_finished += i64::try_from(writer.in_progress_rows()).unwrap_or(i64::MAX);
        writer.flush().map_err(EncodeError::Parquet)?;
        self.writer = Some(writer);
        self.fetch()?;
        let pieces = self.take_writer()?.into_inner().map_err(EncodeError::Parquet)?;
        Ok(Some(pieces.0.into_iter().flatten().collect()))
    }

    fn finished(&mut self) -> Option<Vec<u8>> {
        // The writer may not have come to it yet.
        if self.skips_magic
            && let Some(first) = self.finished.0.front_mut()
        {
            self.skips_magic = false;
            first.drain(..footer::MAGIC.len().min(first.len()));
        }
        self.finished.0.pop_front()
    }

    fn rows_finished(&self) -> Option<i64> {
        Some(self.rows_finished)
    }

    fn replacements(&self) -> &[Replacement] {
        self.unrepresentable_policy.replacements()
    }
}
