//! CSV (RFC 4180): UTF-8, a header row, commas, `\n`, fields quoted only where they must be. NULL is an empty
//! field, an empty string is `""`.
//!
//! The loop over a field's bytes is ours because the `csv` crate's writer cannot tell NULL from an empty string
//! and copies each field once more; the crate is the tests' oracle.

use memchr::memchr_iter;

use super::scalar::{write_hex, write_plain};
use super::{Encode, EncodeError, undecodable};
use crate::source::{OutputColumn, Row, Value};

pub(super) struct Csv {
    columns: Vec<OutputColumn>,
}

impl Csv {
    pub(super) fn new(columns: &[OutputColumn]) -> Self {
        Self { columns: columns.to_vec() }
    }
}

/// Whether a byte makes quotes necessary.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    table[b',' as usize] = true;
    table[b'"' as usize] = true;
    table[b'\n' as usize] = true;
    table[b'\r' as usize] = true;
    table
};

fn write_text(text: &str, alone: bool, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    // `\.` alone on a line ends the data for psql and COPY.
    let quoted = bytes.is_empty() || (alone && bytes == b"\\.") || bytes.iter().any(|byte| SPECIAL[usize::from(*byte)]);
    if !quoted {
        out.extend_from_slice(bytes);
        return;
    }
    out.push(b'"');
    let mut done = 0;
    for quote in memchr_iter(b'"', bytes) {
        out.extend_from_slice(&bytes[done..=quote]);
        done = quote;
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

impl Encode for Csv {
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        for (index, column) in self.columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_text(&column.name, self.columns.len() == 1, out);
        }
        out.push(b'\n');
        Ok(())
    }

    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        for (index, (column, field)) in self.columns.iter().zip(row.fields()).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let Some(bytes) = field else { continue };
            let value = Value::read(column.wire, bytes).map_err(undecodable(column))?;
            match write_plain(value, out) {
                None => {}
                Some(Value::Bytea(bytes)) => write_hex(bytes, b"\\x", out),
                Some(Value::Text(text) | Value::Json(text)) => write_text(text, self.columns.len() == 1, out),
                Some(_) => unreachable!("write_plain gives back text, json and bytea only"),
            }
        }
        out.push(b'\n');
        Ok(())
    }

    fn end(&mut self, _: &mut Vec<u8>) -> Result<(), EncodeError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_only_where_needed() {
        for (text, expected) in [
            ("plain", "plain"),
            ("", "\"\""),
            ("a,b", "\"a,b\""),
            ("a\"b\"", "\"a\"\"b\"\"\""),
            ("a\nb", "\"a\nb\""),
            ("\\.", "\"\\.\""),
            ("ü€😀", "ü€😀"),
        ] {
            let mut out = Vec::new();
            write_text(text, true, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn the_csv_crate_reads_every_text_back() {
        let texts = ["", " ", "\"", "\"\"", ",", "\r\n", "a\rb", "x\"y,z\n", "\\.", "日本", "\u{1}"];
        let mut out = Vec::new();
        for text in texts {
            write_text(text, true, &mut out);
            out.push(b',');
        }
        out.extend_from_slice(b"end\n");
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&out[..]);
        let record = reader.records().next().unwrap().unwrap();
        assert_eq!(record.iter().collect::<Vec<_>>(), [&texts[..], &["end"]].concat());
    }
}
