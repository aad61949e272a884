//! CSV (RFC 4180): UTF-8, by default a header row, commas, `\n`; fields quoted only where they must be. NULL is an
//! empty field, an empty string is `""`. The options change the dialect, never what can be told apart.
//!
//! The loop over a field's bytes is ours because the `csv` crate's writer cannot tell NULL from an empty string
//! and copies each field once more (bench/README.md has the figures); the crate is the tests' oracle.

use polyglot_core::column::{Column, WireType};
use polyglot_core::format_options::{CsvOptions, FormatOptions, LineEnding};

use crate::copy::{Row, Value};
use crate::definition::{FormatDefinition, RowSize, ShardSize};
use crate::encode::{Encode, EncodeError, shown_by, undecodable};
use crate::encode_buffer::{EncodeBuffer, FLUSH_BYTES, Stopped};
use crate::option::{Choice, ENCODING, ON_UNREPRESENTABLE, OptionDefinition, OptionError, OptionForm, OptionValue};
use crate::output_column::OutputColumn;
use crate::output_type::text_type;
use crate::text::{write_hex, write_plain, write_whole_seconds};
use crate::unrepresentable_policy::{Replacement, UnrepresentablePolicy};

pub(crate) static CSV: FormatDefinition = FormatDefinition {
    name: "csv",
    title: "CSV",
    extension: "csv",
    media_type: "text/csv; charset=utf-8",
    incompressible: None,
    options: &[ON_UNREPRESENTABLE, PROFILE, DELIMITER, DECIMAL, HEADER, NULL, BOM, LINE_ENDING, ENCODING],
    holds_every_value: true,
    arrays_as_text: true,
    row_size: RowSize { frame: |_, columns| columns, bytea_factor: 2.0, is_binary: false },
    shard_size: ShardSize::DEFAULT,
    footer: None,
    output_type,
    encoder: |options, columns, _| {
        let unrepresentable_policy = UnrepresentablePolicy::new(options.on_unrepresentable);
        Box::new(Csv::new(columns, &options.csv, unrepresentable_policy))
    },
};

fn output_type(column: &Column, options: &FormatOptions) -> String {
    let name = match (column.array, column.wire) {
        (Some(_), _) => "text",
        (None, WireType::Timestamp) if options.csv.whole_second_timestamps => {
            "date-time without zone, in whole seconds"
        }
        (None, WireType::TimestampTz) if options.csv.whole_second_timestamps => {
            "date-time in UTC, without naming the zone, in whole seconds"
        }
        (None, wire) => text_type(wire),
    };
    name.to_owned()
}

/// Comes before the options that it sets as well, so that they override it.
const PROFILE: OptionDefinition = OptionDefinition {
    name: "profile",
    description: "BOM, CRLF, text that looks like a formula is defused, and a timestamp is 2026-01-02 03:04:05 (UTC).",
    value: OptionValue::Choice(&[Choice {
        name: "spreadsheet",
        set: |options| options.csv = CsvOptions::spreadsheet(),
        // The profile has effects that have no option of their own, of which this one is the oldest.
        is_set: |options| options.csv.defuse_formulas,
    }]),
    form: OptionForm {
        label: "Kind of CSV",
        default: "Plain CSV (RFC 4180)",
        choices: &[("spreadsheet", "CSV for spreadsheets")],
        suggestions: &[],
        hint: "For spreadsheets: BOM, CRLF, text that would run as a formula is defused, timestamps in UTC and whole seconds.",
    },
};

/// Comes before what stands for NULL, which may not hold it.
const DELIMITER: OptionDefinition = OptionDefinition {
    name: "delimiter",
    description: "a tab or one ASCII punctuation character other than \" - + . : \\",
    value: OptionValue::Text {
        min_length: Some(1),
        max_length: Some(1),
        pattern: None,
        set: |options, text| {
            options.csv.delimiter = delimiter(text)?;
            Ok(())
        },
        get: |options| options.csv.delimiter.to_string(),
    },
    form: OptionForm {
        label: "Delimiter",
        default: ",",
        choices: &[],
        suggestions: &[";", "\\t", "|"],
        hint: "One punctuation mark; \\t is a tab.",
    },
};

/// Comes behind the delimiter, which it may not be.
const DECIMAL: OptionDefinition = OptionDefinition {
    name: "decimal",
    description: "between the whole part of a numeric or a float and its decimals: a point or a comma, and not the delimiter.",
    value: OptionValue::Text {
        min_length: Some(1),
        max_length: Some(1),
        pattern: Some("^[.,]$"),
        set: |options, text| {
            options.csv.decimal = decimal(text, options.csv.delimiter)?;
            Ok(())
        },
        get: |options| options.csv.decimal.to_string(),
    },
    form: OptionForm {
        label: "Decimal mark",
        default: "Point",
        choices: &[(",", "Comma")],
        suggestions: &[],
        hint: "A comma needs another delimiter, as ;",
    },
};

const HEADER: OptionDefinition = OptionDefinition {
    name: "header",
    description: "a first row with the columns' names.",
    value: OptionValue::Boolean {
        set: |options, header| options.csv.header = header,
        get: |options| options.csv.header,
    },
    form: OptionForm {
        label: "Header",
        default: "Names in the first line",
        choices: &[("false", "None")],
        suggestions: &[],
        hint: "",
    },
};

const NULL: OptionDefinition = OptionDefinition {
    name: "null",
    description: "what stands for NULL. At most 64 bytes without delimiter, quote or control character.",
    value: OptionValue::Text {
        min_length: None,
        max_length: Some(LONGEST_NULL),
        pattern: None,
        set: |options, text| {
            options.csv.null = null(text, options.csv.delimiter)?;
            Ok(())
        },
        get: |options| options.csv.null.clone(),
    },
    form: OptionForm { label: "NULL is written as", default: "nothing", choices: &[], suggestions: &[], hint: "" },
};

const BOM: OptionDefinition = OptionDefinition {
    name: "bom",
    description: "a byte order mark in front.",
    value: OptionValue::Boolean { set: |options, bom| options.csv.bom = bom, get: |options| options.csv.bom },
    form: OptionForm {
        label: "Byte order mark",
        default: "As the profile has it",
        choices: &[("true", "Yes"), ("false", "No")],
        suggestions: &[],
        hint: "",
    },
};

const LINE_ENDING: OptionDefinition = OptionDefinition {
    name: "lineEnding",
    description: "",
    value: OptionValue::Choice(&[
        Choice {
            name: "lf",
            set: |options| options.csv.line_ending = LineEnding::Lf,
            is_set: |options| options.csv.line_ending == LineEnding::Lf,
        },
        Choice {
            name: "crlf",
            set: |options| options.csv.line_ending = LineEnding::CrLf,
            is_set: |options| options.csv.line_ending == LineEnding::CrLf,
        },
    ]),
    form: OptionForm {
        label: "Line ends",
        default: "As the profile has them",
        choices: &[("lf", "LF (Unix)"), ("crlf", "CRLF (Windows)")],
        suggestions: &[],
        hint: "",
    },
};

fn delimiter(text: &str) -> Result<char, OptionError> {
    // Each of the others is a part of some value that is written without quotes, or the quote itself.
    const NOT: &str = "\"-+.:\\";
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some('\t'), None) => Ok('\t'),
        (Some(one), None) if one.is_ascii_punctuation() && !NOT.contains(one) => Ok(one),
        _ => Err(OptionError::Text { expected: "a tab or one ASCII punctuation character other than \" - + . : \\" }),
    }
}

fn decimal(text: &str, delimiter: char) -> Result<char, OptionError> {
    match text {
        "." => Ok('.'),
        "," if delimiter == ',' => Err(OptionError::Content {
            problem: "may not be the delimiter as well, which is a comma here; set options.delimiter to another one, for example \";\"",
        }),
        "," => Ok(','),
        _ => Err(OptionError::Text { expected: "\".\" or \",\"" }),
    }
}

fn null(text: &str, delimiter: char) -> Result<String, OptionError> {
    if text.len() > LONGEST_NULL {
        Err(OptionError::TooLong { max_bytes: LONGEST_NULL, bytes: text.len() })
    } else if text.contains(|it: char| it == delimiter || it == '"' || it.is_control()) {
        Err(OptionError::Content {
            problem: "may not hold the delimiter, a quote, a line break or another control character",
        })
    } else {
        Ok(text.to_owned())
    }
}

struct Csv {
    columns: Vec<OutputColumn>,
    dialect: Dialect,
    unrepresentable_policy: UnrepresentablePolicy,
}

/// The options, made ready for the loop.
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own, or follows from the columns")]
struct Dialect {
    delimiter: u8,
    line_ending: LineEnding,
    null: Vec<u8>,
    header: bool,
    bom: bool,
    defuse_formulas: bool,
    whole_second_timestamps: bool,
    decimal_comma: bool,
    /// Whether there is one column. `\.` alone on a line ends the data for psql and COPY.
    alone: bool,
    /// Whether a byte makes quotes necessary.
    special: [bool; 256],
}

/// Bytes of what stands for NULL at most.
const LONGEST_NULL: usize = 64;

const FORMULA: &str = "text that a spreadsheet would take for a formula";
const DEFUSED: &str = "the same text behind an apostrophe";
const ZONE: &str = "a zone, which a spreadsheet takes for text";
const WITHOUT_ZONE: &str = "the date and time in UTC, without naming the zone";
const FRACTION: &str = "a fraction of a second";
const CUT_OFF: &str = "whole seconds, the fraction is cut off";

impl Dialect {
    fn new(options: &CsvOptions, columns: usize) -> Self {
        // No other is taken from a request.
        let delimiter = u8::try_from(options.delimiter).unwrap_or(b',');
        let mut special = [false; 256];
        for byte in [delimiter, b'"', b'\n', b'\r'] {
            special[usize::from(byte)] = true;
        }
        Self {
            delimiter,
            line_ending: options.line_ending,
            null: options.null.clone().into_bytes(),
            header: options.header,
            bom: options.bom,
            defuse_formulas: options.defuse_formulas,
            whole_second_timestamps: options.whole_second_timestamps,
            decimal_comma: options.decimal == ',',
            alone: columns == 1,
            special,
        }
    }

    fn quotes(&self, bytes: &[u8]) -> bool {
        bytes.is_empty()
            || (self.alone && bytes == b"\\.")
            // With an empty NULL this was answered above.
            || bytes == self.null
            || bytes.iter().any(|byte| self.special[usize::from(*byte)])
    }

    /// Writes text, and whether it was defused.
    fn write_text(&self, text: &str, user_made: bool, out: &mut EncodeBuffer<'_>) -> Result<bool, Stopped> {
        let defused = self.defuse_formulas && user_made && looks_like_formula(text);
        let prefix: &[u8] = if defused { b"'" } else { b"" };
        if defused || self.quotes(text.as_bytes()) {
            out.push(b'"');
            out.extend_from_slice(prefix);
            out.in_pieces(text, |piece, out| {
                double_quotes(piece.as_bytes(), out);
                Ok::<_, Stopped>(())
            })?;
            out.push(b'"');
        } else if text.len() < FLUSH_BYTES {
            out.extend_from_slice(text.as_bytes());
        } else {
            out.in_chunks(text.as_bytes(), 1, |piece, out| out.extend_from_slice(piece))?;
        }
        Ok(defused)
    }

    /// Quotes what was written since `start` if it is what NULL is written as.
    fn tell_from_null(&self, start: usize, out: &mut Vec<u8>) {
        if !self.null.is_empty() && out[start..] == self.null {
            out.insert(start, b'"');
            out.push(b'"');
        }
    }

    /// Writes a value that has no characters to escape, in the form that the dialect gives it. Gives back those that may have some.
    fn write_plain<'v>(
        &self,
        value: Value<'v>,
        column: usize,
        counted: &mut UnrepresentablePolicy,
        out: &mut Vec<u8>,
    ) -> Option<Value<'v>> {
        match value {
            Value::Timestamp(micros) | Value::TimestampTz(micros) if self.whole_second_timestamps => {
                let written = write_whole_seconds(micros, out);
                if written.is_finite && matches!(value, Value::TimestampTz(_)) {
                    counted.count(column, ZONE, WITHOUT_ZONE);
                }
                if written.is_cut {
                    counted.count(column, FRACTION, CUT_OFF);
                }
                None
            }
            Value::Float4(_) | Value::Float8(_) | Value::Numeric(_) if self.decimal_comma => {
                let start = out.len();
                write_plain(value, out);
                // A number has one point at most.
                if let Some(point) = out[start..].iter_mut().find(|byte| **byte == b'.') {
                    *point = b',';
                }
                None
            }
            other => write_plain(other, out),
        }
    }

    fn end_line(&self, out: &mut EncodeBuffer<'_>) {
        out.extend_from_slice(self.line_ending.as_str().as_bytes());
    }
}

/// What OWASP's page on CSV injection lists, with the full-width forms that spreadsheets take as well.
fn looks_like_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '\u{FF1D}', '\u{FF0B}', '\u{FF0D}', '\u{FF20}'])
}

/// Copies byte by byte through small buffers, without a branch at quotes: JSON has one every few bytes, which makes a search
/// from quote to quote slower. Two halves side by side, as one is all waiting for the place of the byte before.
fn double_quotes(bytes: &[u8], out: &mut Vec<u8>) {
    const HALF: usize = 64;
    /// The mask changes nothing, and tells the compiler that both places are within the buffer.
    fn put(byte: u8, doubled: &mut [u8; HALF * 2], end: usize) -> usize {
        doubled[end & (HALF * 2 - 1)] = byte;
        doubled[end.wrapping_add(1) & (HALF * 2 - 1)] = b'"';
        end.wrapping_add(1 + usize::from(byte == b'"'))
    }
    let (mut first, mut second) = ([0; HALF * 2], [0; HALF * 2]);
    for chunk in bytes.chunks(HALF * 2) {
        let (mut first_end, mut second_end) = (0, 0);
        let (head, tail) = chunk.split_at(chunk.len() / 2);
        for (&one, &other) in head.iter().zip(tail) {
            first_end = put(one, &mut first, first_end);
            second_end = put(other, &mut second, second_end);
        }
        if let Some(&last) = tail.get(head.len()) {
            second_end = put(last, &mut second, second_end);
        }
        out.extend_from_slice(&first[..first_end]);
        out.extend_from_slice(&second[..second_end]);
    }
}

impl Csv {
    fn new(columns: &[OutputColumn], options: &CsvOptions, unrepresentable_policy: UnrepresentablePolicy) -> Self {
        Self { columns: columns.to_vec(), dialect: Dialect::new(options, columns.len()), unrepresentable_policy }
    }
}

#[expect(clippy::inline_always, reason = "the loop over all fields of all rows calls it, and a preview")]
#[inline(always)]
fn write_field(
    dialect: &Dialect,
    index: usize,
    column: &OutputColumn,
    bytes: &[u8],
    counted: &mut UnrepresentablePolicy,
    out: &mut EncodeBuffer<'_>,
) -> Result<(), EncodeError> {
    let value = Value::read(column.wire, bytes).map_err(undecodable(column))?;
    let start = out.len();
    match dialect.write_plain(value, index, counted, out) {
        None => dialect.tell_from_null(start, out),
        Some(Value::Bytea(bytes)) => {
            out.extend_from_slice(b"\\x");
            out.in_chunks(bytes, 1, write_hex)?;
            // A long one may have gone, and is not what NULL is written as.
            if bytes.len() <= LONGEST_NULL {
                dialect.tell_from_null(start, out);
            }
        }
        Some(Value::Json(text)) => {
            dialect.write_text(text, false, out)?;
        }
        Some(Value::Text(text)) => {
            let defused = dialect.write_text(text, !column.is_non_text, out)?;
            if defused {
                counted.count(index, FORMULA, DEFUSED);
            }
        }
        Some(_) => unreachable!("write_plain gives back text, json and bytea only"),
    }
    Ok(())
}

impl Encode for Csv {
    fn begin(&mut self, out: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        if self.dialect.bom {
            out.extend_from_slice("\u{FEFF}".as_bytes());
        }
        if !self.dialect.header {
            return Ok(());
        }
        for (index, column) in self.columns.iter().enumerate() {
            if index > 0 {
                out.push(self.dialect.delimiter);
            }
            if self.dialect.write_text(&column.name, true, out)? {
                self.unrepresentable_policy.count(index, "a name that a spreadsheet would take for a formula", DEFUSED);
            }
        }
        self.dialect.end_line(out);
        Ok(())
    }

    fn row(&mut self, row: Row<'_>, out: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        let dialect = &self.dialect;
        for (index, (column, field)) in self.columns.iter().zip(row.fields()).enumerate() {
            if index > 0 {
                out.push(dialect.delimiter);
            }
            let Some(bytes) = field else {
                out.extend_from_slice(&dialect.null);
                continue;
            };
            write_field(dialect, index, column, bytes, &mut self.unrepresentable_policy, out)?;
        }
        dialect.end_line(out);
        Ok(())
    }

    fn end(&mut self, _: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        Ok(())
    }

    fn replacements(&self) -> &[Replacement] {
        self.unrepresentable_policy.replacements()
    }

    fn shown(&mut self, row: Row<'_>) -> Result<Vec<Option<String>>, EncodeError> {
        let Self { columns, dialect, unrepresentable_policy } = self;
        shown_by(row, |index, bytes, out| {
            write_field(dialect, index, &columns[index], bytes, unrepresentable_policy, out)
        })
    }
}

#[cfg(test)]
mod tests {
    use polyglot_core::format_options::OnUnrepresentable;

    use super::*;
    use crate::copy::Numeric;
    use crate::test_sink::written;

    fn text(options: &CsvOptions, text: &str) -> String {
        let dialect = Dialect::new(options, 1);
        String::from_utf8(written(|out| {
            dialect.write_text(text, true, out).unwrap();
        }))
        .unwrap()
    }

    #[test]
    fn quotes_only_where_needed() {
        for (plain, expected) in [
            ("plain", "plain"),
            ("", "\"\""),
            ("a,b", "\"a,b\""),
            ("a\"b\"", "\"a\"\"b\"\"\""),
            ("a\nb", "\"a\nb\""),
            ("\\.", "\"\\.\""),
            ("ü€😀", "ü€😀"),
            ("=1+1", "=1+1"),
        ] {
            assert_eq!(text(&CsvOptions::default(), plain), expected);
        }
    }

    #[test]
    fn options_change_what_is_quoted() {
        let semicolons = CsvOptions { delimiter: ';', null: "NULL".to_owned(), ..CsvOptions::default() };
        for (plain, expected) in
            [("a,b", "a,b"), ("a;b", "\"a;b\""), ("NULL", "\"NULL\""), ("", "\"\""), ("NUL", "NUL")]
        {
            assert_eq!(text(&semicolons, plain), expected);
        }
    }

    #[test]
    fn a_spreadsheet_takes_no_text_for_a_formula() {
        for (plain, expected) in [
            ("=1+1", "\"'=1+1\""),
            ("-2", "\"'-2\""),
            ("@a\"b", "\"'@a\"\"b\""),
            ("\tx", "\"'\tx\""),
            ("＝1", "\"'＝1\""),
            ("a=1", "a=1"),
            ("'=", "'="),
        ] {
            assert_eq!(text(&CsvOptions::spreadsheet(), plain), expected);
        }
    }

    #[test]
    fn a_spreadsheet_takes_a_timestamp_for_one_and_what_is_cut_off_is_counted() {
        let mut counted = UnrepresentablePolicy::new(OnUnrepresentable::Fail);
        let dialect = Dialect::new(&CsvOptions::spreadsheet(), 2);
        let mut written = |value: Value<'static>, column| {
            let mut out = Vec::new();
            assert!(dialect.write_plain(value, column, &mut counted, &mut out).is_none());
            String::from_utf8(out).unwrap()
        };
        // 2023-08-26 07:40:53.247583.
        let micros = 746_350_853_247_583;
        assert_eq!(written(Value::TimestampTz(micros), 0), "2023-08-26 07:40:53");
        assert_eq!(written(Value::TimestampTz(0), 0), "2000-01-01 00:00:00");
        assert_eq!(written(Value::TimestampTz(i64::MAX), 0), "infinity");
        assert_eq!(written(Value::Timestamp(micros), 1), "2023-08-26 07:40:53");
        assert_eq!(written(Value::Timestamp(0), 1), "2000-01-01 00:00:00");
        assert_eq!(written(Value::Float8(1.5), 1), "1.5");
        let counts: Vec<_> = counted.replacements().iter().map(|it| (it.column, it.problem, it.count)).collect();
        assert_eq!(counts, [(0, ZONE, 2), (0, FRACTION, 1), (1, FRACTION, 1)]);
    }

    #[test]
    fn the_decimal_mark_is_that_of_numbers_alone() {
        let mut counted = UnrepresentablePolicy::new(OnUnrepresentable::Fail);
        let options = CsvOptions { delimiter: ';', decimal: ',', ..CsvOptions::default() };
        let dialect = Dialect::new(&options, 2);
        let numeric = Numeric::Finite { negative: true, weight: 0, scale: 2, digits: &[0, 12, 0x13, 0x88] };
        for (value, expected) in [
            (Value::Float8(1.5e-7), "1,5e-07"),
            (Value::Float4(0.25), "0,25"),
            (Value::Numeric(numeric), "-12,50"),
            (Value::Float8(f64::NAN), "NaN"),
            (Value::Int(15), "15"),
            (Value::Timestamp(1), "2000-01-01T00:00:00.000001"),
        ] {
            let mut out = Vec::new();
            assert!(dialect.write_plain(value, 0, &mut counted, &mut out).is_none());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        assert_eq!(counted.replacements(), []);
        assert_eq!(text(&options, "1,5"), "1,5");
    }

    #[test]
    fn the_csv_crate_reads_every_text_back() {
        let long = "x\"y,é\n".repeat(50_000);
        let texts = ["", " ", "\"", "\"\"", ",", "\r\n", "a\rb", "x\"y,z\n", "\\.", "日本", "\u{1}", &long];
        let dialect = Dialect::new(&CsvOptions::default(), 2);
        let out = written(|out| {
            for text in texts {
                dialect.write_text(text, true, out).unwrap();
                out.push(b',');
            }
            out.extend_from_slice(b"end\n");
        });
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&out[..]);
        let record = reader.records().next().unwrap().unwrap();
        assert_eq!(record.iter().collect::<Vec<_>>(), [&texts[..], &["end"]].concat());
    }
}
