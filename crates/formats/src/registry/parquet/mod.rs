//! Parquet: wire values into Arrow builders, a record batch at a time into row groups that are bounded in bytes.
//! Snappy or zstd, dictionaries and statistics as the parquet crate does them. No Arrow schema is embedded, so what a
//! reader sees are Parquet's own types.

mod footer;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use polyglot_core::column::{Column, WireType};
use polyglot_core::format_options::{FormatOptions, NumericPolicy, ParquetCodec, ParquetOptions, UuidPolicy};

use crate::columnar::{BATCH_BYTES, BatchBuilder, NUMERIC, Pieces, UUID};
use crate::copy::Row;
use crate::definition::{Footer, FooterError, FormatDefinition, Incompressible, RowSize, ShardSize};
use crate::encode::{Encode, EncodeError};
use crate::encode_buffer::EncodeBuffer;
use crate::option::{Choice, ON_UNREPRESENTABLE, OptionDefinition, OptionForm, OptionValue};
use crate::output_column::OutputColumn;
use crate::unrepresentable_policy::{Replacement, UnrepresentablePolicy};

/// Rows and bytes that are gathered before they go into the row group.
const BATCH_ROWS: usize = 8192;
/// The first batch, by which it is decided what has dictionaries.
const FIRST_BATCH_BYTES: usize = 2 << 20;
/// Values of a page before they are compressed. Each column fills one at a time, so all of them are in memory; the library
/// would take a mebibyte. Snappy looks back 64 KiB, and gains nothing from larger ones.
const PAGE_BYTES: usize = 256 << 10;
/// A dictionary's hash table takes 70 KiB before its first value: so many columns at most have one.
const MOST_DICTIONARIES: usize = 256;
/// Values of a column that are looked at before it is decided whether it has dictionaries.
const LOOKED_AT: usize = 2048;
/// The footer is in memory until the end, about a kilobyte for each column of each row group. After so many of them
/// row groups grow, and after four times as many the export fails.
const FOOTER_STEP: usize = 16_384;
const FOOTER_STEPS: usize = 4;

pub(crate) static PARQUET: FormatDefinition = FormatDefinition {
    name: "parquet",
    title: "Parquet",
    extension: "parquet",
    media_type: "application/octet-stream",
    incompressible: Some(Incompressible {
        reason: "compresses its own content",
        hint: "Parquet compresses its own pages; see the options below.",
    }),
    options: &[ON_UNREPRESENTABLE, NUMERIC, UUID, CODEC, ROW_GROUP_BYTES],
    holds_every_value: false,
    arrays_as_text: false,
    row_size: RowSize {
        // A level and an index into a dictionary, in bits.
        frame: |_, columns| columns / 4,
        bytea_factor: 1.0,
        is_binary: true,
    },
    shard_size: ShardSize {
        // Less than of other formats: beside the shard, a row group of it is in memory as well.
        bytes: 12 << 20,
        // A footer is in memory until it is written, and has about a kilobyte for each column of each row group, of which a
        // shard has a few.
        max_columns_times_shards: Some(16_384),
    },
    footer: Some(Footer {
        assemble: |pieces| footer::footer(pieces).map_err(|error| FooterError(Box::new(error))),
        length: footer::length,
    }),
    output_type,
    encoder: |options, columns, shards| {
        let unrepresentable_policy = UnrepresentablePolicy::new(options.on_unrepresentable);
        Box::new(Parquet::new(columns, options.parquet, unrepresentable_policy, shards))
    },
};

const CODEC: OptionDefinition = OptionDefinition {
    name: "codec",
    description: "",
    value: OptionValue::Choice(&[
        Choice {
            name: "snappy",
            set: |options| options.parquet.codec = ParquetCodec::Snappy,
            is_set: |options| options.parquet.codec == ParquetCodec::Snappy,
        },
        Choice {
            name: "zstd",
            set: |options| options.parquet.codec = ParquetCodec::Zstd,
            is_set: |options| options.parquet.codec == ParquetCodec::Zstd,
        },
    ]),
    form: OptionForm {
        label: "Compression of pages",
        default: "Snappy",
        choices: &[("zstd", "zstd")],
        suggestions: &[],
        hint: "",
    },
};

const ROW_GROUP_BYTES: OptionDefinition = OptionDefinition {
    name: "rowGroupBytes",
    description: "bytes of a row group before compression.",
    value: OptionValue::Integer {
        range: ParquetOptions::SMALLEST_ROW_GROUP..=ParquetOptions::LARGEST_ROW_GROUP,
        unit: "bytes",
        set: |options, bytes| options.parquet.row_group_bytes = bytes,
        get: |options| options.parquet.row_group_bytes,
    },
    form: OptionForm {
        label: "Bytes of a row group",
        default: "6291456",
        choices: &[],
        suggestions: &[],
        hint: "From 1 to 32 MiB, held in the memory of the worker.",
    },
};

fn output_type(column: &Column, options: &FormatOptions) -> String {
    let mut name = scalar_type(column.wire, options.parquet);
    for _ in 0..column.array.map_or(0, |array| array.dimensions) {
        name = format!("LIST<{name}>");
    }
    name
}

fn scalar_type(wire: WireType, options: ParquetOptions) -> String {
    let name = match wire {
        WireType::Bool => "BOOLEAN",
        WireType::Int2 => "INT32 (INT 16)",
        WireType::Int4 => "INT32",
        WireType::Int8 => "INT64",
        WireType::Float4 => "FLOAT",
        WireType::Float8 => "DOUBLE",
        WireType::Numeric(_) => {
            return match (wire.decimal(), options.numeric) {
                (Some((precision, scale)), _) => format!("DECIMAL({precision}, {scale})"),
                (None, NumericPolicy::String) => "STRING".to_owned(),
                (None, NumericPolicy::Double) => "DOUBLE".to_owned(),
                (None, NumericPolicy::Decimal(scale)) => format!("DECIMAL(38, {scale})"),
            };
        }
        WireType::Text | WireType::TextForm | WireType::Json | WireType::Jsonb => "STRING",
        WireType::Bytea => "BYTE_ARRAY",
        WireType::Date => "DATE",
        WireType::Time => "TIME(MICROS)",
        WireType::Timestamp => "TIMESTAMP(MICROS, local)",
        WireType::TimestampTz => "TIMESTAMP(MICROS, UTC)",
        WireType::Uuid if options.uuid == UuidPolicy::String => "STRING",
        WireType::Uuid => "UUID",
    };
    name.to_owned()
}

struct Parquet {
    batch: BatchBuilder,
    columns: usize,
    /// That share the footer, this one included.
    shards: usize,
    row_group_bytes: usize,
    rows_finished: i64,
    /// Whether the magic number is still to be left out.
    skips_magic: bool,
    codec: ParquetCodec,
    /// Of each column, what was seen of its first values.
    repeats: Vec<Repeats>,
    /// Opened with the first batch, by what is in it; `None` again once the footer is written.
    writer: Option<Box<ArrowWriter<Pieces>>>,
    finished: Pieces,
}

/// A defect: the Parquet library refused what it was given.
fn refused(error: ParquetError) -> EncodeError {
    EncodeError::Writer { format: PARQUET.title, source: Box::new(error) }
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

impl Parquet {
    fn new(
        columns: &[OutputColumn],
        options: ParquetOptions,
        unrepresentable_policy: UnrepresentablePolicy,
        shards: usize,
    ) -> Self {
        Self {
            batch: BatchBuilder::new(PARQUET.title, columns, options, unrepresentable_policy),
            columns: columns.len(),
            shards,
            row_group_bytes: usize::try_from(options.row_group_bytes).unwrap_or(usize::MAX),
            rows_finished: 0,
            skips_magic: false,
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
            .set_dictionary_enabled(self.columns <= MOST_DICTIONARIES)
            // A column of a row group is a few pages, which are read together: an index of them would be all cost, in memory
            // until the end.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_data_page_size_limit(PAGE_BYTES)
            // When a row group ends is decided here, by what it takes in memory.
            .set_max_row_group_row_count(None);
        // A column is one leaf, lists included, in the same order.
        let leaves = ArrowSchemaConverter::new().convert(self.batch.schema()).map_err(refused)?;
        for (leaf, repeats) in leaves.columns().iter().zip(&self.repeats) {
            if !repeats.are_worth_a_dictionary() {
                properties = properties.set_column_dictionary_enabled(leaf.path().clone(), false);
            }
        }
        let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
        ArrowWriter::try_new_with_options(Pieces::default(), self.batch.schema().clone(), options)
            .map(Box::new)
            .map_err(refused)
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
        writer.sync().map_err(|error| refused(error.into()))?;
        self.finished.0.append(&mut writer.inner_mut().0);
        Ok(())
    }

    /// Moves the gathered rows into the row group, and what the writer has finished to where it is fetched from.
    fn write_batch(&mut self) -> Result<(), EncodeError> {
        if let Some(batch) = self.batch.take().map_err(|error| refused(error.into()))? {
            let writer = self.take_writer()?;
            let writer = self.writer.insert(writer);
            writer.write(&batch).map_err(refused)?;
            let groups = writer.flushed_row_groups().len();
            let steps = groups * self.columns * self.shards / FOOTER_STEP;
            let limit = grown(self.row_group_bytes, steps);
            // Dictionaries and pages that are not full count in memory, and not in the file: with many columns they are
            // the larger part.
            if writer.in_progress_size() >= limit || writer.memory_size() >= 2 * limit {
                if steps >= FOOTER_STEPS {
                    return Err(EncodeError::TooManyRowGroups { row_groups: groups, columns: self.columns });
                }
                self.rows_finished += i64::try_from(writer.in_progress_rows()).unwrap_or(i64::MAX);
                writer.flush().map_err(refused)?;
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
        let repeats = &mut self.repeats;
        self.batch.push(row, |index, bytes| {
            if let Some(repeats) = repeats.get_mut(index) {
                repeats.look_at(bytes);
            }
        })?;
        let most = if self.writer.is_some() { BATCH_BYTES } else { FIRST_BATCH_BYTES };
        if self.batch.rows() >= BATCH_ROWS || self.batch.bytes() >= most { self.write_batch() } else { Ok(()) }
    }

    fn end(&mut self, _: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        self.write_batch()?;
        let writer = self.take_writer()?;
        self.rows_finished += i64::try_from(writer.in_progress_rows()).unwrap_or(i64::MAX);
        self.finished.0.append(&mut writer.into_inner().map_err(refused)?.0);
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
        writer.flush().map_err(refused)?;
        self.writer = Some(writer);
        self.fetch()?;
        let pieces = self.take_writer()?.into_inner().map_err(refused)?;
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
        self.batch.replacements()
    }

    fn shown(&mut self, row: Row<'_>) -> Result<Vec<Option<String>>, EncodeError> {
        self.batch.push(row, |_, _| {})?;
        self.batch.shown().map_err(|error| refused(error.into()))
    }
}
