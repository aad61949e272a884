//! Parquet: wire values into Arrow builders, a record batch at a time into row groups that are bounded in bytes.
//! Snappy, dictionaries and statistics as the parquet crate does them. No Arrow schema is embedded, so what a
//! reader sees are Parquet's own types.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::extension::Uuid as UuidType;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use polyglot_export::catalog::WireType;

use super::datetime::UNIX_EPOCH_DAYS;
use super::{Encode, EncodeError, undecodable};
use crate::source::{OutputColumn, Row, Value};

/// A row group is closed at about so many encoded bytes: it is held in memory until then.
const ROW_GROUP_BYTES: usize = 8 << 20;
/// Rows and wire bytes that are gathered before they go into the row group.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 2 << 20;
/// Microseconds from 1970-01-01 to 2000-01-01.
const UNIX_EPOCH_MICROS: i64 = UNIX_EPOCH_DAYS as i64 * 86_400_000_000;

pub(super) struct Parquet {
    columns: Vec<OutputColumn>,
    builders: Vec<Builder>,
    schema: SchemaRef,
    rows: usize,
    bytes: usize,
    /// `None` once the footer is written.
    writer: Option<ArrowWriter<Pieces>>,
    finished: Pieces,
}

/// Finished bytes in pieces, so that a row group is never copied to make one growing buffer larger.
#[derive(Default)]
struct Pieces(VecDeque<Vec<u8>>);

const PIECE_BYTES: usize = 1 << 20;

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.0.back_mut() {
            Some(piece) if piece.len() + bytes.len() <= PIECE_BYTES => piece.extend_from_slice(bytes),
            _ => self.0.push_back(bytes.to_vec()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

enum Builder {
    Bool(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, u8),
    /// Text, JSON, and numerics whose digits no Parquet decimal is sure to hold.
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Uuid(FixedSizeBinaryBuilder),
}

/// Why a builder does not take a value.
enum Refused {
    Unrepresentable(&'static str),
    /// The value's kind is not the builder's: the two were made from different column lists.
    Mismatch,
}

impl Builder {
    fn new(wire: WireType) -> (Self, DataType) {
        let timestamp = |zone: Option<Arc<str>>| {
            let data_type = DataType::Timestamp(TimeUnit::Microsecond, zone);
            (Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(data_type.clone())), data_type)
        };
        match wire {
            WireType::Bool => (Self::Bool(BooleanBuilder::new()), DataType::Boolean),
            WireType::Int2 => (Self::Int16(Int16Builder::new()), DataType::Int16),
            WireType::Int4 => (Self::Int32(Int32Builder::new()), DataType::Int32),
            WireType::Int8 => (Self::Int64(Int64Builder::new()), DataType::Int64),
            WireType::Float4 => (Self::Float32(Float32Builder::new()), DataType::Float32),
            WireType::Float8 => (Self::Float64(Float64Builder::new()), DataType::Float64),
            WireType::Numeric(modifier) => match modifier.map(|(p, s)| (u8::try_from(p), u8::try_from(s))) {
                Some((Ok(precision @ 1..=38), Ok(scale))) if scale <= precision => {
                    let data_type = DataType::Decimal128(precision, scale.cast_signed());
                    (Self::Decimal(Decimal128Builder::new().with_data_type(data_type.clone()), scale), data_type)
                }
                _ => (Self::Text(StringBuilder::new()), DataType::Utf8),
            },
            WireType::Text | WireType::TextForm | WireType::Json | WireType::Jsonb => {
                (Self::Text(StringBuilder::new()), DataType::Utf8)
            }
            WireType::Bytea => (Self::Binary(BinaryBuilder::new()), DataType::Binary),
            WireType::Date => (Self::Date(Date32Builder::new()), DataType::Date32),
            WireType::Time => (Self::Time(Time64MicrosecondBuilder::new()), DataType::Time64(TimeUnit::Microsecond)),
            WireType::Timestamp => timestamp(None),
            WireType::TimestampTz => timestamp(Some("UTC".into())),
            WireType::Uuid => (Self::Uuid(FixedSizeBinaryBuilder::new(16)), DataType::FixedSizeBinary(16)),
        }
    }

    fn append(&mut self, value: Option<Value<'_>>) -> Result<(), Refused> {
        let Some(value) = value else {
            self.append_null();
            return Ok(());
        };
        match (self, value) {
            (Self::Bool(builder), Value::Bool(value)) => builder.append_value(value),
            (Self::Int16(builder), Value::Int(value)) => {
                builder.append_value(i16::try_from(value).map_err(|_| Refused::Mismatch)?);
            }
            (Self::Int32(builder), Value::Int(value)) => {
                builder.append_value(i32::try_from(value).map_err(|_| Refused::Mismatch)?);
            }
            (Self::Int64(builder), Value::Int(value)) => builder.append_value(value),
            (Self::Float32(builder), Value::Float4(value)) => builder.append_value(value),
            (Self::Float64(builder), Value::Float8(value)) => builder.append_value(value),
            (Self::Decimal(builder, scale), Value::Numeric(value)) => {
                let unscaled = value.to_scaled(*scale);
                builder.append_value(unscaled.ok_or(Refused::Unrepresentable("NaN or an infinity"))?);
            }
            (Self::Text(builder), Value::Text(text) | Value::Json(text)) => builder.append_value(text),
            (Self::Text(builder), Value::Numeric(value)) => {
                let mut digits = Vec::new();
                value.write(&mut digits);
                builder.append_value(std::str::from_utf8(&digits).map_err(|_| Refused::Mismatch)?);
            }
            (Self::Binary(builder), Value::Bytea(bytes)) => builder.append_value(bytes),
            (Self::Date(builder), Value::Date(days)) => {
                if days == i32::MIN || days == i32::MAX {
                    return Err(Refused::Unrepresentable("an infinite date"));
                }
                let unix = days.checked_add(UNIX_EPOCH_DAYS);
                builder.append_value(unix.ok_or(Refused::Unrepresentable("a date out of range"))?);
            }
            (Self::Time(builder), Value::Time(micros)) => {
                if micros == 86_400_000_000 {
                    return Err(Refused::Unrepresentable("the time 24:00:00"));
                }
                builder.append_value(micros);
            }
            (Self::Timestamp(builder), Value::Timestamp(micros) | Value::TimestampTz(micros)) => {
                if micros == i64::MIN || micros == i64::MAX {
                    return Err(Refused::Unrepresentable("an infinite timestamp"));
                }
                let unix = micros.checked_add(UNIX_EPOCH_MICROS);
                builder.append_value(unix.ok_or(Refused::Unrepresentable("a timestamp after the year 294246"))?);
            }
            (Self::Uuid(builder), Value::Uuid(bytes)) => {
                builder.append_value(bytes).map_err(|_| Refused::Mismatch)?;
            }
            _ => return Err(Refused::Mismatch),
        }
        Ok(())
    }

    fn append_null(&mut self) {
        match self {
            Self::Bool(builder) => builder.append_null(),
            Self::Int16(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float32(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Decimal(builder, _) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Binary(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
            Self::Uuid(builder) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Int16(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Float32(builder) => Arc::new(builder.finish()),
            Self::Float64(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder, _) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Binary(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
            Self::Uuid(builder) => Arc::new(builder.finish()),
        }
    }
}

impl Parquet {
    pub(super) fn new(columns: &[OutputColumn]) -> Result<Self, EncodeError> {
        let (mut builders, mut fields) = (Vec::with_capacity(columns.len()), Vec::with_capacity(columns.len()));
        for column in columns {
            let (builder, data_type) = Builder::new(column.wire);
            let field = Field::new(&column.name, data_type, column.nullable);
            fields.push(if column.wire == WireType::Uuid { field.with_extension_type(UuidType) } else { field });
            builders.push(builder);
        }
        let schema = Arc::new(Schema::new(fields));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(None)
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .build();
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Pieces::default(), schema.clone(), options)
            .map_err(EncodeError::Parquet)?;
        Ok(Self {
            columns: columns.to_vec(),
            builders,
            schema,
            rows: 0,
            bytes: 0,
            writer: Some(writer),
            finished: Pieces::default(),
        })
    }

    /// Moves the gathered rows into the row group, and what the writer has finished to where it is fetched from.
    fn write_batch(&mut self) -> Result<(), EncodeError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if self.rows > 0 {
            let arrays = self.builders.iter_mut().map(Builder::finish).collect();
            let batch = RecordBatch::try_new(self.schema.clone(), arrays)
                .map_err(|error| EncodeError::Parquet(error.into()))?;
            writer.write(&batch).map_err(EncodeError::Parquet)?;
            (self.rows, self.bytes) = (0, 0);
        }
        writer.sync().map_err(|error| EncodeError::Parquet(error.into()))?;
        self.finished.0.append(&mut writer.inner_mut().0);
        Ok(())
    }
}

impl Encode for Parquet {
    fn begin(&mut self, _: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.write_batch()
    }

    fn row(&mut self, row: Row<'_>, _: &mut Vec<u8>) -> Result<(), EncodeError> {
        for ((column, builder), field) in self.columns.iter().zip(&mut self.builders).zip(row.fields()) {
            self.bytes += field.map_or(0, <[u8]>::len);
            let value = field.map(|bytes| Value::read(column.wire, bytes)).transpose().map_err(undecodable(column))?;
            builder.append(value).map_err(|refused| match refused {
                Refused::Unrepresentable(problem) => {
                    EncodeError::Unrepresentable { column: column.name.clone(), format: "Parquet", problem }
                }
                Refused::Mismatch => {
                    EncodeError::Undecodable { column: column.name.clone(), source: crate::source::ValueError::Range }
                }
            })?;
        }
        self.rows += 1;
        if self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.write_batch() } else { Ok(()) }
    }

    fn end(&mut self, _: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.write_batch()?;
        if let Some(writer) = self.writer.take() {
            self.finished.0.append(&mut writer.into_inner().map_err(EncodeError::Parquet)?.0);
        }
        Ok(())
    }

    fn finished(&mut self) -> Option<Vec<u8>> {
        self.finished.0.pop_front()
    }
}
