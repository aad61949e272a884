//! Values of a record batch as text for people. The library that has such texts for every type (arrow-cast) takes a minute to
//! build; these are the types that columns have here.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::extension::Uuid as UuidType;
use arrow_schema::{ArrowError, DataType, Field};
use uuid::Uuid;

use crate::text::write_hex;

/// The value at `at`; `None` is NULL.
pub(super) fn shown(field: &Field, values: &ArrayRef, at: usize) -> Result<Option<String>, ArrowError> {
    if values.is_null(at) {
        return Ok(None);
    }
    // A moment that is out of the calendar's range is the number that the file has.
    let moment = |text: Option<String>, number: i64| text.unwrap_or_else(|| number.to_string());
    let hex = |bytes: &[u8]| {
        let mut text = Vec::with_capacity(bytes.len() * 2);
        write_hex(bytes, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    };
    Ok(Some(match values.data_type() {
        DataType::Boolean => values.as_boolean().value(at).to_string(),
        DataType::Int16 => values.as_primitive::<Int16Type>().value(at).to_string(),
        DataType::Int32 => values.as_primitive::<Int32Type>().value(at).to_string(),
        DataType::Int64 => values.as_primitive::<Int64Type>().value(at).to_string(),
        DataType::Float32 => format!("{:?}", values.as_primitive::<Float32Type>().value(at)),
        DataType::Float64 => format!("{:?}", values.as_primitive::<Float64Type>().value(at)),
        DataType::Decimal128(..) => values.as_primitive::<Decimal128Type>().value_as_string(at),
        DataType::Utf8 => values.as_string::<i32>().value(at).to_owned(),
        DataType::Binary => hex(values.as_binary::<i32>().value(at)),
        DataType::FixedSizeBinary(_) => {
            let bytes = values.as_fixed_size_binary().value(at);
            match Uuid::from_slice(bytes) {
                Ok(uuid) if field.has_valid_extension_type::<UuidType>() => uuid.to_string(),
                _ => hex(bytes),
            }
        }
        DataType::Date32 => {
            let dates = values.as_primitive::<Date32Type>();
            moment(dates.value_as_date(at).map(|date| date.to_string()), dates.value(at).into())
        }
        DataType::Time64(_) => {
            let times = values.as_primitive::<Time64MicrosecondType>();
            moment(times.value_as_time(at).map(|time| time.to_string()), times.value(at))
        }
        DataType::Timestamp(_, zone) => {
            let moments = values.as_primitive::<TimestampMicrosecondType>();
            // The zone is UTC where there is one.
            let zone = if zone.is_some() { "Z" } else { "" };
            let text =
                moments.value_as_datetime(at).map(|time| format!("{}{zone}", time.format("%Y-%m-%dT%H:%M:%S%.f")));
            moment(text, moments.value(at))
        }
        DataType::List(item) => {
            let items = values.as_list::<i32>().value(at);
            let item = |at| Ok(shown(item, &items, at)?.unwrap_or_else(|| "NULL".to_owned()));
            let items: Result<Vec<_>, ArrowError> = (0..items.len()).map(item).collect();
            format!("[{}]", items?.join(", "))
        }
        other => return Err(ArrowError::NotYetImplemented(format!("the text of a value of type {other}"))),
    }))
}
