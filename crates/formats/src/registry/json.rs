//! JSON: one array with a row a line, or JSON Lines without a frame. `json` and `jsonb` go in as they are, so
//! their numbers keep every digit; PostgreSQL's arrays are JSON arrays. JSON can hold every value.
//!
//! Text is escaped by our own loop into the output buffer (bench/README.md has what that buys); `serde_json` is the
//! tests' oracle.

use memchr::memchr3;
use polyglot_core::column::{Column, WireType};
use polyglot_core::format_options::{FormatOptions, JsonNumber};

use crate::copy::{Array, Numeric, Row, Value};
use crate::definition::{FormatDefinition, RowSize, ShardSize};
use crate::encode::{Encode, EncodeError, shown_by, undecodable};
use crate::encode_buffer::{EncodeBuffer, Stopped};
use crate::nesting::Nesting;
use crate::option::{Choice, ENCODING, ON_UNREPRESENTABLE, OptionDefinition, OptionForm, OptionValue};
use crate::output_column::OutputColumn;
use crate::text::{write_hex, write_plain};
use crate::unrepresentable_policy::Replacement;

pub(crate) static JSON: FormatDefinition = FormatDefinition {
    name: "json",
    title: "JSON",
    extension: "json",
    media_type: "application/json; charset=utf-8",
    incompressible: None,
    options: &[ON_UNREPRESENTABLE, BIGINT, NUMERIC, ENCODING],
    holds_every_value: true,
    arrays_as_text: false,
    row_size: ROW_SIZE,
    shard_size: ShardSize::DEFAULT,
    footer: None,
    output_type,
    encoder: |options, columns, _| Box::new(Json::new(columns, Framing::Array, options)),
};

pub(crate) static JSON_LINES: FormatDefinition = FormatDefinition {
    name: "jsonl",
    title: "JSON Lines",
    extension: "jsonl",
    media_type: "application/x-ndjson",
    incompressible: None,
    options: &[ON_UNREPRESENTABLE, BIGINT, NUMERIC, ENCODING],
    holds_every_value: true,
    arrays_as_text: false,
    row_size: ROW_SIZE,
    shard_size: ShardSize::DEFAULT,
    footer: None,
    output_type,
    encoder: |options, columns, _| Box::new(Json::new(columns, Framing::Lines, options)),
};

const ROW_SIZE: RowSize = RowSize {
    // `"name":value,`
    frame: |names, columns| names + 4 * columns + 2,
    bytea_factor: 2.0,
    is_binary: false,
};

const BIGINT: OptionDefinition = OptionDefinition {
    name: "bigint",
    description: "how a 64-bit integer is written.",
    value: OptionValue::Choice(&[
        Choice {
            name: "number",
            set: |options| options.bigint = JsonNumber::Number,
            is_set: |options| options.bigint == JsonNumber::Number,
        },
        Choice {
            name: "string",
            set: |options| options.bigint = JsonNumber::String,
            is_set: |options| options.bigint == JsonNumber::String,
        },
    ]),
    form: OptionForm {
        label: "bigint",
        default: "Number",
        choices: &[("string", "String")],
        suggestions: &[],
        hint: "JavaScript rounds numbers beyond 2⁵³; strings keep every digit.",
    },
};

const NUMERIC: OptionDefinition = OptionDefinition {
    name: "numeric",
    description: "how a numeric is written.",
    value: OptionValue::Choice(&[
        Choice {
            name: "number",
            set: |options| options.numeric = JsonNumber::Number,
            is_set: |options| options.numeric == JsonNumber::Number,
        },
        Choice {
            name: "string",
            set: |options| options.numeric = JsonNumber::String,
            is_set: |options| options.numeric == JsonNumber::String,
        },
    ]),
    form: OptionForm {
        label: "numeric",
        default: "Number",
        choices: &[("string", "String")],
        suggestions: &[],
        hint: "JavaScript keeps about 16 digits of a number; strings keep every digit.",
    },
};

/// Whether a value of the type is written as a string even if it is a number.
fn is_quoted(wire: WireType, bigint: JsonNumber, numeric: JsonNumber) -> bool {
    match wire {
        WireType::Int8 => bigint == JsonNumber::String,
        WireType::Numeric(_) => numeric == JsonNumber::String,
        _ => false,
    }
}

fn output_type(column: &Column, options: &FormatOptions) -> String {
    let name = match column.wire {
        WireType::Bool => "boolean",
        wire if is_quoted(wire, options.bigint, options.numeric) => "string",
        WireType::Int2 | WireType::Int4 | WireType::Int8 => "integer",
        WireType::Float4 | WireType::Float8 | WireType::Numeric(_) => "number",
        WireType::Json | WireType::Jsonb => "any",
        WireType::Text
        | WireType::TextForm
        | WireType::Bytea
        | WireType::Date
        | WireType::Time
        | WireType::Timestamp
        | WireType::TimestampTz
        | WireType::Uuid => "string",
    };
    if column.array.is_some() { format!("array of {name}") } else { name.to_owned() }
}

/// What is around the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Array,
    Lines,
}

struct Json {
    columns: Vec<OutputColumn>,
    /// `{"first":` and `,"other":`, ready to copy.
    keys: Vec<Vec<u8>>,
    framing: Framing,
    bigint: JsonNumber,
    numeric: JsonNumber,
    first_row: bool,
    /// Items of the array at hand, where they come as text.
    items: Vec<u8>,
}

impl Json {
    fn new(columns: &[OutputColumn], framing: Framing, options: &FormatOptions) -> Self {
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
            bigint: options.bigint,
            numeric: options.numeric,
            first_row: true,
            items: Vec::new(),
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
    out.push(b'"');
    escape(text, out);
    out.push(b'"');
}

/// Writes what is between the quotes.
fn escape(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
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
}

/// Writes JSON text on one line. Line breaks and tabs in it can only stand between tokens, where no white space
/// is needed: inside a string they are always escaped.
fn write_json(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr3(b'\n', b'\r', b'\t', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Writes a value that is not NULL; `quoted`: as a string even if it is a number.
fn write_value(value: Value<'_>, quoted: bool, out: &mut EncodeBuffer<'_>) -> Result<(), Stopped> {
    let bare = match value {
        Value::Bool(_) => true,
        Value::Int(_) => !quoted,
        Value::Float4(value) => value.is_finite(),
        Value::Float8(value) => value.is_finite(),
        Value::Numeric(value) => !quoted && matches!(value, Numeric::Finite { .. }),
        Value::Text(text) => {
            out.push(b'"');
            out.in_pieces(text, |piece, out| {
                escape(piece, out);
                Ok::<_, Stopped>(())
            })?;
            out.push(b'"');
            return Ok(());
        }
        Value::Json(text) => return out.in_chunks(text.as_bytes(), 1, write_json),
        Value::Bytea(bytes) => {
            out.extend_from_slice(b"\"\\\\x");
            out.in_chunks(bytes, 1, write_hex)?;
            out.push(b'"');
            return Ok(());
        }
        Value::Date(_) | Value::Time(_) | Value::Timestamp(_) | Value::TimestampTz(_) | Value::Uuid(_) => false,
    };
    if !bare {
        out.push(b'"');
    }
    let left = write_plain(value, out);
    debug_assert!(left.is_none(), "text, json and bytea were written above");
    if !bare {
        out.push(b'"');
    }
    Ok(())
}

fn write_array(
    array: Array<'_>,
    quoted: bool,
    column: &OutputColumn,
    out: &mut EncodeBuffer<'_>,
) -> Result<(), EncodeError> {
    let nesting = Nesting::new(array.sizes());
    out.push(b'[');
    for (index, item) in array.items().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend(std::iter::repeat_n(b'[', nesting.opens(index)));
        match item.map_err(undecodable(column))? {
            None => out.extend_from_slice(b"null"),
            Some(value) => write_value(value, quoted, out)?,
        }
        out.extend(std::iter::repeat_n(b']', nesting.closes(index)));
        out.flush_if_full()?;
    }
    out.push(b']');
    Ok(())
}

#[expect(clippy::inline_always, reason = "the loop over all fields of all rows calls it, and a preview")]
#[inline(always)]
fn write_field(
    column: &OutputColumn,
    quoted: bool,
    bytes: &[u8],
    items: &mut Vec<u8>,
    out: &mut EncodeBuffer<'_>,
) -> Result<(), EncodeError> {
    match column.array {
        None => write_value(Value::read(column.wire, bytes).map_err(undecodable(column))?, quoted, out)?,
        Some(array) => {
            let array = Array::read(column.wire, array, bytes, items);
            write_array(array.map_err(undecodable(column))?, quoted, column, out)?;
        }
    }
    Ok(())
}

impl Encode for Json {
    fn begin(&mut self, out: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        if self.framing == Framing::Array {
            out.push(b'[');
        }
        Ok(())
    }

    fn continue_shard(&mut self) {
        self.first_row = false;
    }

    fn row(&mut self, row: Row<'_>, out: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        if self.framing == Framing::Array {
            out.extend_from_slice(if self.first_row { b"\n" } else { b",\n" });
            self.first_row = false;
        }
        for ((column, key), field) in self.columns.iter().zip(&self.keys).zip(row.fields()) {
            out.extend_from_slice(key);
            let Some(bytes) = field else {
                out.extend_from_slice(b"null");
                continue;
            };
            let quoted = is_quoted(column.wire, self.bigint, self.numeric);
            write_field(column, quoted, bytes, &mut self.items, out)?;
        }
        out.push(b'}');
        if self.framing == Framing::Lines {
            out.push(b'\n');
        }
        Ok(())
    }

    fn end(&mut self, out: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        if self.framing == Framing::Array {
            out.extend_from_slice(b"\n]\n");
        }
        Ok(())
    }

    fn replacements(&self) -> &[Replacement] {
        &[]
    }

    fn shown(&mut self, row: Row<'_>) -> Result<Vec<Option<String>>, EncodeError> {
        let Self { columns, items, .. } = self;
        shown_by(row, |index, bytes, out| {
            let column = &columns[index];
            write_field(column, is_quoted(column.wire, self.bigint, self.numeric), bytes, items, out)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_sink::written;

    #[test]
    fn a_bigint_is_a_string_on_wish() {
        let shown = |quoted| written(|out| write_value(Value::Int(1 << 60), quoted, out).unwrap());
        assert_eq!(shown(false), b"1152921504606846976");
        assert_eq!(shown(true), b"\"1152921504606846976\"");
    }

    #[test]
    fn a_numeric_is_a_string_on_wish() {
        // 12.50: two groups of four digits.
        let value = Numeric::Finite { negative: false, weight: 0, scale: 2, digits: &[0, 12, 0x13, 0x88] };
        let shown = |quoted| written(|out| write_value(Value::Numeric(value), quoted, out).unwrap());
        assert_eq!(shown(false), b"12.50");
        assert_eq!(shown(true), b"\"12.50\"");
        for (numeric, int8, expected) in [(JsonNumber::String, false, true), (JsonNumber::Number, true, false)] {
            let bigint = if int8 { JsonNumber::String } else { JsonNumber::Number };
            assert_eq!(is_quoted(WireType::Numeric(None), bigint, numeric), expected);
            assert_eq!(is_quoted(WireType::Int8, bigint, numeric), int8);
            assert!(!is_quoted(WireType::Float8, JsonNumber::String, JsonNumber::String));
        }
    }

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
        write_json(text.as_bytes(), &mut out);
        assert_eq!(out, br#"{"a" : [1,2.50, "x\ny"] }"#);
    }

    #[test]
    fn what_json_has_no_number_for_is_a_string() {
        let shown = |value| String::from_utf8(written(|out| write_value(value, false, out).unwrap())).unwrap();
        assert_eq!(shown(Value::Float8(f64::NAN)), "\"NaN\"");
        assert_eq!(shown(Value::Float4(f32::INFINITY)), "\"Infinity\"");
        assert_eq!(shown(Value::Numeric(Numeric::NaN)), "\"NaN\"");
        assert_eq!(shown(Value::Float8(1e15)), "1e+15");
        assert_eq!(shown(Value::Bytea(&[0, 255])), r#""\\x00ff""#);
        assert_eq!(shown(Value::Date(0)), "\"2000-01-01\"");
        assert_eq!(shown(Value::Bool(true)), "true");
    }
}
