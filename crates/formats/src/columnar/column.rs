//! One column of a batch: an Arrow builder for each type a value can have, lists around them, and what a column cannot
//! hold.

use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder,
    Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, ListArray};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::extension::Uuid as UuidType;
use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use polyglot_core::column::WireType;
use polyglot_core::format_options::{NumericPolicy, ParquetOptions, UuidPolicy};

use crate::copy::{Array, Numeric, Value, ValueError};
use crate::output_column::OutputColumn;
use crate::text::UNIX_EPOCH_DAYS;

/// Bytes of a batch, but for its last row.
pub(crate) const BATCH_BYTES: usize = 1 << 20;

/// Microseconds from 1970-01-01 to 2000-01-01.
const UNIX_EPOCH_MICROS: i64 = UNIX_EPOCH_DAYS as i64 * 86_400_000_000;

/// Why a column does not take a value.
#[derive(Debug)]
pub(super) enum Refused {
    Unrepresentable(&'static str),
    Undecodable(ValueError),
    /// The value's kind is not the builder's: the two were made from different column lists.
    Mismatch,
}

/// What to do about an item of a list that its column cannot hold: `Ok` to write NULL for it.
type OnItem<'a> = &'a mut dyn FnMut(&'static str) -> Result<(), Refused>;

pub(super) enum Builder {
    Bool(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, u8),
    /// Text, JSON, numerics whose digits no DECIMAL is sure to hold, and uuids that are to be text.
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Uuid(FixedSizeBinaryBuilder),
    List(Box<List>),
}

/// A list of what another builder takes.
pub(super) struct List {
    item: FieldRef,
    items: Builder,
    offsets: Vec<i32>,
    valid: Vec<bool>,
}

/// Room for the next batch, which is likely to be as large: growing from nothing would copy it, and take up to twice the
/// memory. A batch ends behind the row with which it is full; where that was a long one, it says nothing about the next.
fn next_room(values: &[u8]) -> usize {
    if values.len() > 2 * BATCH_BYTES { 0 } else { values.len() }
}

/// The builder and the field for a column.
pub(super) fn column(column: &OutputColumn, options: ParquetOptions) -> (Builder, Field) {
    let (mut builder, mut data_type) = Builder::scalar(column.wire, options);
    let uuid = column.wire == WireType::Uuid && options.uuid == UuidPolicy::Uuid;
    let named = |name: &str, data_type: DataType, nullable: bool, uuid: bool| {
        let field = Field::new(name, data_type, nullable);
        if uuid { field.with_extension_type(UuidType) } else { field }
    };
    let dimensions = column.array.map_or(0, |array| array.dimensions);
    for level in 0..dimensions {
        // The name that the format gives the items of a list. An item may be NULL, but a list within one never is.
        let item = Arc::new(named("element", data_type.clone(), level == 0, uuid && level == 0));
        data_type = DataType::List(Arc::clone(&item));
        builder = Builder::List(Box::new(List { item, items: builder, offsets: vec![0], valid: Vec::new() }));
    }
    // Always: NOT NULL in the catalog is no proof for a foreign table, an inheriting one, or a constraint not validated.
    let field = named(&column.name, data_type, true, uuid && dimensions == 0);
    (builder, field)
}

impl Builder {
    fn scalar(wire: WireType, options: ParquetOptions) -> (Self, DataType) {
        let timestamp = |zone: Option<Arc<str>>| {
            let data_type = DataType::Timestamp(TimeUnit::Microsecond, zone);
            (Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(data_type.clone())), data_type)
        };
        let decimal = |precision: u8, scale: u8| {
            let data_type = DataType::Decimal128(precision, scale.cast_signed());
            (Self::Decimal(Decimal128Builder::new().with_data_type(data_type.clone()), scale), data_type)
        };
        let text = || (Self::Text(StringBuilder::new()), DataType::Utf8);
        match wire {
            WireType::Bool => (Self::Bool(BooleanBuilder::new()), DataType::Boolean),
            WireType::Int2 => (Self::Int16(Int16Builder::new()), DataType::Int16),
            WireType::Int4 => (Self::Int32(Int32Builder::new()), DataType::Int32),
            WireType::Int8 => (Self::Int64(Int64Builder::new()), DataType::Int64),
            WireType::Float4 => (Self::Float32(Float32Builder::new()), DataType::Float32),
            WireType::Float8 => (Self::Float64(Float64Builder::new()), DataType::Float64),
            WireType::Numeric(_) => match (wire.decimal(), options.numeric) {
                (Some((precision, scale)), _) => decimal(precision, scale),
                (None, NumericPolicy::Decimal(scale)) => decimal(38, scale),
                (None, NumericPolicy::Double) => (Self::Float64(Float64Builder::new()), DataType::Float64),
                (None, NumericPolicy::String) => text(),
            },
            WireType::Text | WireType::TextForm | WireType::Json | WireType::Jsonb => text(),
            WireType::Bytea => (Self::Binary(BinaryBuilder::new()), DataType::Binary),
            WireType::Date => (Self::Date(Date32Builder::new()), DataType::Date32),
            WireType::Time => (Self::Time(Time64MicrosecondBuilder::new()), DataType::Time64(TimeUnit::Microsecond)),
            WireType::Timestamp => timestamp(None),
            WireType::TimestampTz => timestamp(Some("UTC".into())),
            WireType::Uuid if options.uuid == UuidPolicy::String => text(),
            WireType::Uuid => (Self::Uuid(FixedSizeBinaryBuilder::new(16)), DataType::FixedSizeBinary(16)),
        }
    }

    /// Takes a value that is not NULL, or nothing.
    pub(super) fn append(&mut self, value: Value<'_>) -> Result<(), Refused> {
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
            (Self::Float64(builder), Value::Numeric(value)) => builder.append_value(to_double(value)?),
            (Self::Decimal(builder, scale), Value::Numeric(value)) => {
                builder.append_value(value.to_scaled(*scale).ok_or_else(|| no_decimal(value))?);
            }
            (Self::Text(builder), Value::Text(text) | Value::Json(text)) => builder.append_value(text),
            (Self::Text(builder), Value::Numeric(value)) => builder.append_value(digits(value)?),
            (Self::Text(builder), Value::Uuid(bytes)) => {
                let mut buffer = uuid::Uuid::encode_buffer();
                builder.append_value(uuid::Uuid::from_bytes(bytes).hyphenated().encode_lower(&mut buffer));
            }
            (Self::Binary(builder), Value::Bytea(bytes)) => builder.append_value(bytes),
            (Self::Date(builder), Value::Date(days)) => builder.append_value(unix_days(days)?),
            (Self::Time(builder), Value::Time(micros)) => {
                if micros == 86_400_000_000 {
                    return Err(Refused::Unrepresentable("the time 24:00:00"));
                }
                builder.append_value(micros);
            }
            (Self::Timestamp(builder), Value::Timestamp(micros) | Value::TimestampTz(micros)) => {
                builder.append_value(unix_micros(micros)?);
            }
            (Self::Uuid(builder), Value::Uuid(bytes)) => {
                builder.append_value(bytes).map_err(|_| Refused::Mismatch)?;
            }
            _ => return Err(Refused::Mismatch),
        }
        Ok(())
    }

    /// Takes an array, or nothing.
    pub(super) fn append_array(&mut self, array: Array<'_>, on_item: OnItem<'_>) -> Result<(), Refused> {
        let depth = self.depth();
        // An empty array has no dimensions, and is an empty list of any depth.
        if !array.sizes().is_empty() && array.sizes().len() != depth {
            return Err(Refused::Unrepresentable("an array of another number of dimensions than its column declares"));
        }
        self.append_level(array.sizes(), &mut array.items(), on_item)
    }

    fn depth(&self) -> usize {
        if let Self::List(list) = self { 1 + list.items.depth() } else { 0 }
    }

    /// Appends one list with everything in it. An error may leave items behind, but no list: the row then fails, and
    /// the file with it.
    fn append_level(
        &mut self,
        sizes: &[usize],
        items: &mut dyn Iterator<Item = Result<Option<Value<'_>>, ValueError>>,
        on_item: OnItem<'_>,
    ) -> Result<(), Refused> {
        let Self::List(list) = self else { return Err(Refused::Mismatch) };
        let (size, inner) = sizes.split_first().map_or((0, sizes), |(size, inner)| (*size, inner));
        for _ in 0..size {
            if inner.is_empty() {
                let item = items.next().ok_or(Refused::Mismatch)?.map_err(Refused::Undecodable)?;
                match item.map(|value| list.items.append(value)) {
                    Some(Ok(())) => {}
                    Some(Err(Refused::Unrepresentable(problem))) => {
                        on_item(problem)?;
                        list.items.append_null();
                    }
                    Some(Err(refused)) => return Err(refused),
                    None => list.items.append_null(),
                }
            } else {
                list.items.append_level(inner, items, on_item)?;
            }
        }
        let last = list.offsets.last().copied().unwrap_or(0);
        let size = i32::try_from(size).map_err(|_| Refused::Mismatch)?;
        list.offsets.push(last.checked_add(size).ok_or(Refused::Mismatch)?);
        list.valid.push(true);
        Ok(())
    }

    pub(super) fn append_null(&mut self) {
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
            Self::List(list) => {
                list.offsets.push(list.offsets.last().copied().unwrap_or(0));
                list.valid.push(false);
            }
        }
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Int16(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Float32(builder) => Arc::new(builder.finish()),
            Self::Float64(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder, _) => Arc::new(builder.finish()),
            Self::Text(builder) => {
                let next = StringBuilder::with_capacity(builder.len(), next_room(builder.values_slice()));
                Arc::new(std::mem::replace(builder, next).finish())
            }
            Self::Binary(builder) => {
                let next = BinaryBuilder::with_capacity(builder.len(), next_room(builder.values_slice()));
                Arc::new(std::mem::replace(builder, next).finish())
            }
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
            Self::Uuid(builder) => Arc::new(builder.finish()),
            Self::List(list) => {
                let offsets = std::mem::replace(&mut list.offsets, vec![0]);
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                let nulls = NullBuffer::from(std::mem::take(&mut list.valid));
                let nulls = Some(nulls).filter(|nulls| nulls.null_count() > 0);
                Arc::new(ListArray::new(Arc::clone(&list.item), offsets, list.items.finish(), nulls))
            }
        }
    }
}

fn digits(value: Numeric<'_>) -> Result<String, Refused> {
    let mut digits = Vec::new();
    value.write(&mut digits);
    String::from_utf8(digits).map_err(|_| Refused::Mismatch)
}

/// The nearest double.
fn to_double(value: Numeric<'_>) -> Result<f64, Refused> {
    match value {
        Numeric::NaN => Ok(f64::NAN),
        Numeric::Infinity => Ok(f64::INFINITY),
        Numeric::NegativeInfinity => Ok(f64::NEG_INFINITY),
        Numeric::Finite { .. } => {
            let double: f64 = digits(value)?.parse().map_err(|_| Refused::Mismatch)?;
            Some(double)
                .filter(|double| double.is_finite())
                .ok_or(Refused::Unrepresentable("a number beyond a double's range"))
        }
    }
}

fn no_decimal(value: Numeric<'_>) -> Refused {
    Refused::Unrepresentable(match value {
        Numeric::Finite { .. } => "a number with more digits than its DECIMAL has",
        Numeric::NaN => "NaN",
        Numeric::Infinity | Numeric::NegativeInfinity => "an infinite number",
    })
}

fn unix_days(days: i32) -> Result<i32, Refused> {
    if days == i32::MIN || days == i32::MAX {
        return Err(Refused::Unrepresentable("an infinite date"));
    }
    days.checked_add(UNIX_EPOCH_DAYS).ok_or(Refused::Unrepresentable("a date out of range"))
}

fn unix_micros(micros: i64) -> Result<i64, Refused> {
    if micros == i64::MIN || micros == i64::MAX {
        return Err(Refused::Unrepresentable("an infinite timestamp"));
    }
    micros.checked_add(UNIX_EPOCH_MICROS).ok_or(Refused::Unrepresentable("a timestamp after the year 294246"))
}
