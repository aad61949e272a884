//! What a field's bytes mean: a typed value, borrowed from the wire. Total: bytes that make no sense for the
//! type give an error. How a value is written is the encoders'.

use polyglot_core::column::WireType;

use super::numeric::Numeric;
use super::value_error::ValueError;

/// A value of a column, not NULL.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Bool(bool),
    /// smallint, integer and bigint.
    Int(i64),
    Float4(f32),
    Float8(f64),
    Numeric(Numeric<'a>),
    Text(&'a str),
    Bytea(&'a [u8]),
    /// Days since 2000-01-01; `i32::MIN` and `MAX` are the infinities.
    Date(i32),
    /// Microseconds since midnight, up to and including 24:00.
    Time(i64),
    /// Microseconds since 2000-01-01 00:00; `i64::MIN` and `MAX` are the infinities.
    Timestamp(i64),
    /// The same, UTC.
    TimestampTz(i64),
    Uuid([u8; 16]),
    /// json or jsonb, as the server's text.
    Json(&'a str),
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], ValueError> {
    bytes.try_into().map_err(|_| ValueError::Length(bytes.len()))
}

fn text(bytes: &[u8]) -> Result<&str, ValueError> {
    std::str::from_utf8(bytes).map_err(|_| ValueError::Utf8)
}

impl<'a> Value<'a> {
    /// Reads a field as `wire` says.
    pub fn read(wire: WireType, bytes: &'a [u8]) -> Result<Self, ValueError> {
        Ok(match wire {
            WireType::Bool => match bytes {
                [0] => Self::Bool(false),
                [1] => Self::Bool(true),
                [_] => return Err(ValueError::Range),
                _ => return Err(ValueError::Length(bytes.len())),
            },
            WireType::Int2 => Self::Int(i16::from_be_bytes(fixed(bytes)?).into()),
            WireType::Int4 => Self::Int(i32::from_be_bytes(fixed(bytes)?).into()),
            WireType::Int8 => Self::Int(i64::from_be_bytes(fixed(bytes)?)),
            WireType::Float4 => Self::Float4(f32::from_be_bytes(fixed(bytes)?)),
            WireType::Float8 => Self::Float8(f64::from_be_bytes(fixed(bytes)?)),
            WireType::Numeric(_) => Self::Numeric(Numeric::read(bytes)?),
            WireType::Text | WireType::TextForm => Self::Text(text(bytes)?),
            WireType::Bytea => Self::Bytea(bytes),
            WireType::Date => Self::Date(i32::from_be_bytes(fixed(bytes)?)),
            WireType::Time => {
                let micros = i64::from_be_bytes(fixed(bytes)?);
                if !(0..=86_400_000_000).contains(&micros) {
                    return Err(ValueError::Range);
                }
                Self::Time(micros)
            }
            WireType::Timestamp => Self::Timestamp(i64::from_be_bytes(fixed(bytes)?)),
            WireType::TimestampTz => Self::TimestampTz(i64::from_be_bytes(fixed(bytes)?)),
            WireType::Uuid => Self::Uuid(fixed(bytes)?),
            WireType::Json => Self::Json(text(bytes)?),
            WireType::Jsonb => match bytes {
                [1, rest @ ..] => Self::Json(text(rest)?),
                _ => return Err(ValueError::JsonbVersion),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_nonsense_is_an_error() {
        assert_eq!(Value::read(WireType::Int4, &[0xff, 0xff, 0xff, 0xfe]), Ok(Value::Int(-2)));
        assert_eq!(Value::read(WireType::Int4, &[0]), Err(ValueError::Length(1)));
        assert_eq!(Value::read(WireType::Bool, &[2]), Err(ValueError::Range));
        assert_eq!(Value::read(WireType::Text, &[0xc3]), Err(ValueError::Utf8));
        assert_eq!(Value::read(WireType::Jsonb, b"\x01{}"), Ok(Value::Json("{}")));
        assert_eq!(Value::read(WireType::Jsonb, b"\x02{}"), Err(ValueError::JsonbVersion));
        assert_eq!(Value::read(WireType::Jsonb, b""), Err(ValueError::JsonbVersion));
        assert_eq!(Value::read(WireType::Time, &86_400_000_001_i64.to_be_bytes()), Err(ValueError::Range));
    }
}
