//! Plain text of the values that CSV, JSON and XML write alike: digits, dates, uuids, hex. Whether it is
//! quoted, and how text itself is escaped, is each format's own.

use super::{datetime, float};
use crate::copy::Value;

/// Writes a value that has no characters any text format must escape; gives back those that may have.
pub(crate) fn write_plain<'a>(value: Value<'a>, out: &mut Vec<u8>) -> Option<Value<'a>> {
    match value {
        Value::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Value::Int(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Value::Float4(value) => float::write_f32(value, out),
        Value::Float8(value) => float::write_f64(value, out),
        Value::Numeric(value) => value.write(out),
        Value::Date(days) => datetime::write_date(days, out),
        Value::Time(micros) => datetime::write_time(micros, out),
        Value::Timestamp(micros) => datetime::write_timestamp(micros, b"", out),
        Value::TimestampTz(micros) => datetime::write_timestamp(micros, b"Z", out),
        Value::Uuid(bytes) => {
            let mut buffer = uuid::Uuid::encode_buffer();
            out.extend_from_slice(uuid::Uuid::from_bytes(bytes).hyphenated().encode_lower(&mut buffer).as_bytes());
        }
        Value::Text(_) | Value::Json(_) | Value::Bytea(_) => return Some(value),
    }
    None
}

/// Writes any value for a person to read, in a message.
pub fn write_readable(value: Value<'_>, out: &mut Vec<u8>) {
    match write_plain(value, out) {
        Some(Value::Text(text) | Value::Json(text)) => out.extend_from_slice(text.as_bytes()),
        Some(Value::Bytea(bytes)) => {
            out.extend_from_slice(b"\\x");
            write_hex(bytes, out);
        }
        Some(_) | None => {}
    }
}

/// Writes the digits of bytes as PostgreSQL's `\x` hex has them.
pub(crate) fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}
