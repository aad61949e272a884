//! JSON: one array with a row a line, or JSON Lines without a frame. `json` and `jsonb` go in as they are, so
//! their numbers keep every digit.
//!
//! Text is escaped by our own loop into the output buffer; `serde_json` is the tests' oracle.

use memchr::memchr3;

use super::scalar::{write_hex, write_plain};
use super::{Encode, EncodeError, undecodable};
use crate::source::{Numeric, OutputColumn, Row, Value};

/// What is around the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Array,
    Lines,
}

pub(super) struct Json {
    columns: Vec<OutputColumn>,
    /// `{"first":` and `,"other":`, ready to copy.
    keys: Vec<Vec<u8>>,
    framing: Framing,
    first_row: bool,
}

impl Json {
    pub(super) fn new(columns: &[OutputColumn], framing: Framing) -> Self {
        let key = |(index, column): (usize, &OutputColumn)| {
            let mut key = vec![if index == 0 { b'{' } else { b',' }];
            write_string(&column.name, &mut key);
            key.push(b':');
            key
        };
        Self {
            columns: columns.to_vec(),
            keys: columns.iter().enumerate().map(key).collect(),
            framing,
            first_row: true,
        }
    }
}

/// What a byte becomes inside a string: 0 as it is, `u` a `\u00XX`, any other letter a backslash and that letter.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0A] = b'n';
    table[0x0C] = b'f';
    table[0x0D] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape = ESCAPES[usize::from(*byte)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(&[b'\\', escape]);
        if escape == b'u' {
            out.extend_from_slice(&[b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        done = at + 1;
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

/// Writes JSON text on one line. Line breaks and tabs in it can only stand between tokens, where no white space
/// is needed: inside a string they are always escaped.
fn write_json(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(at) = memchr3(b'\n', b'\r', b'\t', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

fn write_value(value: Value<'_>, out: &mut Vec<u8>) {
    let number = match value {
        Value::Bool(_) | Value::Int(_) => true,
        Value::Float4(value) => value.is_finite(),
        Value::Float8(value) => value.is_finite(),
        Value::Numeric(value) => matches!(value, Numeric::Finite { .. }),
        Value::Text(text) => return write_string(text, out),
        Value::Json(text) => return write_json(text, out),
        Value::Bytea(bytes) => {
            write_hex(bytes, b"\"\\\\x", out);
            out.push(b'"');
            return;
        }
        Value::Date(_) | Value::Time(_) | Value::Timestamp(_) | Value::TimestampTz(_) | Value::Uuid(_) => false,
    };
    if !number {
        out.push(b'"');
    }
    let left = write_plain(value, out);
    debug_assert!(left.is_none(), "text, json and bytea were written above");
    if !number {
        out.push(b'"');
    }
}

impl Encode for Json {
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.framing == Framing::Array {
            out.push(b'[');
        }
        Ok(())
    }

    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.framing == Framing::Array {
            out.extend_from_slice(if self.first_row { b"\n" } else { b",\n" });
            self.first_row = false;
        }
        for ((column, key), field) in self.columns.iter().zip(&self.keys).zip(row.fields()) {
            out.extend_from_slice(key);
            match field {
                None => out.extend_from_slice(b"null"),
                Some(bytes) => write_value(Value::read(column.wire, bytes).map_err(undecodable(column))?, out),
            }
        }
        out.push(b'}');
        if self.framing == Framing::Lines {
            out.push(b'\n');
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.framing == Framing::Array {
            out.extend_from_slice(b"\n]\n");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_serde_json_does() {
        let all: String = (0..0x300).filter_map(char::from_u32).chain("\u{2028}😀\u{ffff}".chars()).collect();
        for text in ["", "plain", "\"", "a\\b\n", &all] {
            let mut out = Vec::new();
            write_string(text, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(text).unwrap());
        }
    }

    #[test]
    fn json_stays_on_one_line_and_means_the_same() {
        let text = "{\"a\" :\n [1,\r\n\t2.50, \"x\\ny\"] }";
        let mut out = Vec::new();
        write_json(text, &mut out);
        assert_eq!(out, br#"{"a" : [1,2.50, "x\ny"] }"#);
    }

    #[test]
    fn what_json_has_no_number_for_is_a_string() {
        let shown = |value| {
            let mut out = Vec::new();
            write_value(value, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(Value::Float8(f64::NAN)), "\"NaN\"");
        assert_eq!(shown(Value::Float4(f32::INFINITY)), "\"Infinity\"");
        assert_eq!(shown(Value::Numeric(Numeric::NaN)), "\"NaN\"");
        assert_eq!(shown(Value::Float8(1e15)), "1e+15");
        assert_eq!(shown(Value::Bytea(&[0, 255])), r#""\\x00ff""#);
        assert_eq!(shown(Value::Date(0)), "\"2000-01-01\"");
        assert_eq!(shown(Value::Bool(true)), "true");
    }
}
