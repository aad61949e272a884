//! Arrow: an IPC stream of record batches, without compression or dictionaries. Each batch is a message that stands by
//! itself, so the messages of several shards, one after the other, are one stream.

use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;
use polyglot_core::column::{Column, WireType};
use polyglot_core::format_options::{FormatOptions, NumericPolicy, ParquetOptions, UuidPolicy};

use crate::columnar::{BATCH_BYTES, BatchBuilder, NUMERIC, Pieces, UUID};
use crate::copy::Row;
use crate::definition::{FormatDefinition, Incompressible, RowSize, ShardSize};
use crate::encode::{Encode, EncodeError};
use crate::encode_buffer::EncodeBuffer;
use crate::option::ON_UNREPRESENTABLE;
use crate::output_column::OutputColumn;
use crate::unrepresentable_policy::{Replacement, UnrepresentablePolicy};

/// Maximum number of rows in a record batch.
const BATCH_ROWS: usize = 8192;

pub(crate) static ARROW: FormatDefinition = FormatDefinition {
    name: "arrow",
    title: "Arrow",
    extension: "arrows",
    media_type: "application/vnd.apache.arrow.stream",
    incompressible: Some(Incompressible {
        reason: "is read without unpacking",
        hint: "An Arrow stream is read without unpacking.",
    }),
    options: &[ON_UNREPRESENTABLE, NUMERIC, UUID],
    holds_every_value: false,
    arrays_as_text: false,
    // A bit for NULL in every column and an offset of 4 bytes where values vary in length: 2 bytes are a rough average.
    row_size: RowSize { frame: |_, columns| 2 * columns, bytea_factor: 1.0, is_binary: true },
    shard_size: ShardSize::DEFAULT,
    footer: None,
    output_type,
    encoder: |options, columns, _| {
        let unrepresentable_policy = UnrepresentablePolicy::new(options.on_unrepresentable);
        Box::new(Arrow::new(columns, options.parquet, unrepresentable_policy))
    },
};

fn output_type(column: &Column, options: &FormatOptions) -> String {
    let mut name = scalar_type(column.wire, options.parquet);
    for _ in 0..column.array.map_or(0, |array| array.dimensions) {
        name = format!("list<{name}>");
    }
    name
}

fn scalar_type(wire: WireType, options: ParquetOptions) -> String {
    let name = match wire {
        WireType::Bool => "bool",
        WireType::Int2 => "int16",
        WireType::Int4 => "int32",
        WireType::Int8 => "int64",
        WireType::Float4 => "float",
        WireType::Float8 => "double",
        WireType::Numeric(_) => {
            return match (wire.decimal(), options.numeric) {
                (Some((precision, scale)), _) => format!("decimal128({precision}, {scale})"),
                (None, NumericPolicy::String) => "utf8".to_owned(),
                (None, NumericPolicy::Double) => "double".to_owned(),
                (None, NumericPolicy::Decimal(scale)) => format!("decimal128(38, {scale})"),
            };
        }
        WireType::Text | WireType::TextForm | WireType::Json | WireType::Jsonb => "utf8",
        WireType::Bytea => "binary",
        WireType::Date => "date32",
        WireType::Time => "time64(us)",
        WireType::Timestamp => "timestamp(us)",
        WireType::TimestampTz => "timestamp(us, UTC)",
        WireType::Uuid if options.uuid == UuidPolicy::String => "utf8",
        WireType::Uuid => "arrow.uuid",
    };
    name.to_owned()
}

struct Arrow {
    batch: BatchBuilder,
    /// Whether the schema message is left out, because another encoder has written it.
    skips_schema: bool,
    /// Opened with the first message.
    writer: Option<StreamWriter<Pieces>>,
    rows_finished: i64,
    finished: Pieces,
}

/// A defect: the Arrow library refused what it was given.
fn refused(error: ArrowError) -> EncodeError {
    EncodeError::Writer { format: ARROW.title, source: Box::new(error) }
}

impl Arrow {
    fn new(columns: &[OutputColumn], options: ParquetOptions, unrepresentable_policy: UnrepresentablePolicy) -> Self {
        Self {
            batch: BatchBuilder::new(ARROW.title, columns, options, unrepresentable_policy),
            skips_schema: false,
            writer: None,
            rows_finished: 0,
            finished: Pieces::default(),
        }
    }

    /// Returns the writer, which has written the schema when it is new.
    fn writer(&mut self) -> Result<&mut StreamWriter<Pieces>, EncodeError> {
        if self.writer.is_none() {
            let mut writer = StreamWriter::try_new(Pieces::default(), self.batch.schema()).map_err(refused)?;
            if self.skips_schema {
                writer.get_mut().0.clear();
            }
            self.writer = Some(writer);
        }
        self.writer.as_mut().ok_or_else(|| refused(ArrowError::IpcError("there is no writer".to_owned())))
    }

    /// Moves the bytes that the writer has written to `finished`, from which the caller takes them.
    fn collect_written(&mut self) -> Result<(), EncodeError> {
        let written = std::mem::take(self.writer()?.get_mut());
        self.finished.0.extend(written.0);
        Ok(())
    }

    fn write_batch(&mut self) -> Result<(), EncodeError> {
        if let Some(batch) = self.batch.take().map_err(refused)? {
            self.writer()?.write(&batch).map_err(refused)?;
            self.rows_finished += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
        }
        self.collect_written()
    }
}

impl Encode for Arrow {
    fn begin(&mut self, _: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        self.collect_written()
    }

    fn continue_shard(&mut self) {
        self.skips_schema = true;
    }

    fn row(&mut self, row: Row<'_>, _: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        self.batch.push(row, |_, _| {})?;
        if self.batch.rows() >= BATCH_ROWS || self.batch.bytes() >= BATCH_BYTES { self.write_batch() } else { Ok(()) }
    }

    fn end(&mut self, _: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        self.write_batch()?;
        self.writer()?.finish().map_err(refused)?;
        self.collect_written()
    }

    fn finish_shard(&mut self) -> Result<Option<Vec<u8>>, EncodeError> {
        self.write_batch()?;
        Ok(None)
    }

    fn finished(&mut self) -> Option<Vec<u8>> {
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
        self.batch.shown().map_err(refused)
    }
}
