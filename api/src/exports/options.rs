//! The `options` of a submission: how the format writes what it could write in several ways. An option that the
//! format does not have is refused, because a file without it is not what was asked for.

use polyglot_core::format::Format;
use polyglot_core::format_options::{BigintPolicy, CsvOptions, FormatOptions, LineEnding, NumericPolicy, OnUnrepresentable, ParquetCodec, ParquetOptions};
use serde_json::{Map, Value, json};

use super::field::{choice, kind, member, whole_number};
use crate::problem::{FieldError, listed, quoted};

const JSON: &[Format] = &[Format::Json, Format::Jsonl];

/// Every option, and the formats that have it.
const OPTIONS: [(&str, &[Format]); 11] = [
    ("onUnrepresentable", &Format::ALL),
    ("profile", &[Format::Csv]),
    ("delimiter", &[Format::Csv]),
    ("header", &[Format::Csv]),
    ("null", &[Format::Csv]),
    ("bom", &[Format::Csv]),
    ("lineEnding", &[Format::Csv]),
    ("bigint", JSON),
    ("numeric", &[Format::Parquet]),
    ("codec", &[Format::Parquet]),
    ("rowGroupBytes", &[Format::Parquet]),
];

pub(crate) const LONGEST_NULL: usize = 64;

const ON_UNREPRESENTABLE: [(&str, OnUnrepresentable); 2] =
    [("fail", OnUnrepresentable::Fail), ("replace", OnUnrepresentable::Replace)];
const LINE_ENDINGS: [(&str, LineEnding); 2] = [("lf", LineEnding::Lf), ("crlf", LineEnding::CrLf)];
const BIGINT: [(&str, BigintPolicy); 2] = [("number", BigintPolicy::Number), ("string", BigintPolicy::String)];
const CODECS: [(&str, ParquetCodec); 2] = [("snappy", ParquetCodec::Snappy), ("zstd", ParquetCodec::Zstd)];

/// Without a format every option is looked at: which of them it has cannot be told.
pub(super) fn read(value: Option<&Value>, format: Option<Format>, errors: &mut Vec<FieldError>) -> FormatOptions {
    let given = match value {
        None => return FormatOptions::default(),
        Some(Value::Object(given)) => given,
        Some(other) => {
            errors.push(FieldError::new("options", format!("expected an object, not {}", kind(other))));
            return FormatOptions::default();
        }
    };
    refuse_others(given, format, errors);
    let applies = |name: &str| {
        OPTIONS.iter().any(|(known, formats)| *known == name && format.is_none_or(|it| formats.contains(&it)))
    };
    let mut reader = Reader { given, applies: &applies, errors };
    let mut csv = match reader.choice("profile", &[("spreadsheet", ())]) {
        Some(()) => CsvOptions::spreadsheet(),
        None => CsvOptions::default(),
    };
    reader.set("delimiter", &mut csv.delimiter, delimiter);
    reader.set("header", &mut csv.header, boolean);
    reader.set("bom", &mut csv.bom, boolean);
    let delimiter = csv.delimiter;
    reader.set("null", &mut csv.null, |value| null(value, delimiter));
    csv.line_ending = reader.choice("lineEnding", &LINE_ENDINGS).unwrap_or(csv.line_ending);
    let mut parquet = ParquetOptions::default();
    parquet.codec = reader.choice("codec", &CODECS).unwrap_or(parquet.codec);
    reader.set("numeric", &mut parquet.numeric, numeric);
    reader.set("rowGroupBytes", &mut parquet.row_group_bytes, row_group_bytes);
    FormatOptions {
        on_unrepresentable: reader.choice("onUnrepresentable", &ON_UNREPRESENTABLE).unwrap_or_default(),
        csv,
        bigint: reader.choice("bigint", &BIGINT).unwrap_or_default(),
        parquet,
    }
}

/// The options that `format` has, each with its value, as a submission would ask for them.
pub(super) fn document(options: &FormatOptions, format: Format) -> Map<String, Value> {
    let FormatOptions { on_unrepresentable, csv, bigint, parquet } = options;
    let value = |name: &str| match name {
        "onUnrepresentable" => json!(name_of(*on_unrepresentable, &ON_UNREPRESENTABLE)),
        "profile" => json!("spreadsheet"),
        "delimiter" => json!(csv.delimiter),
        "header" => json!(csv.header),
        "null" => json!(csv.null),
        "bom" => json!(csv.bom),
        "lineEnding" => json!(name_of(csv.line_ending, &LINE_ENDINGS)),
        "bigint" => json!(name_of(*bigint, &BIGINT)),
        "numeric" => match parquet.numeric {
            NumericPolicy::String => json!("string"),
            NumericPolicy::Double => json!("double"),
            NumericPolicy::Decimal(scale) => json!(format!("decimal(38,{scale})")),
        },
        "codec" => json!(name_of(parquet.codec, &CODECS)),
        _ => json!(parquet.row_group_bytes),
    };
    // The profile has one effect that has no option of its own.
    let says_something = |name: &str| name != "profile" || csv.defuse_formulas;
    of(format).filter(|name| says_something(name)).map(|name| (name.to_owned(), value(name))).collect()
}

fn name_of<T: Copy + PartialEq>(wanted: T, names: &[(&'static str, T)]) -> Option<&'static str> {
    names.iter().find(|(_, it)| *it == wanted).map(|(name, _)| *name)
}

/// The names of all options.
#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(name, _)| *name)
}

/// The names of the options that `format` has.
fn of(format: Format) -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().filter(move |(_, formats)| formats.contains(&format)).map(|(name, _)| *name)
}

fn refuse_others(given: &Map<String, Value>, format: Option<Format>, errors: &mut Vec<FieldError>) {
    for name in given.keys() {
        let known = OPTIONS.iter().find(|(known, _)| known == name);
        let message = match (known, format) {
            (None, Some(format)) => format!("unknown option; for {format} there is {}", listed(of(format))),
            (None, None) => format!("unknown option; there is {}", listed(OPTIONS.map(|(name, _)| name))),
            (Some((_, formats)), Some(format)) if !formats.contains(&format) => {
                format!("is an option of {}; for {format} there is {}", listed(*formats), listed(of(format)))
            }
            (Some(_), _) => continue,
        };
        errors.push(FieldError::new(member("options.", name), message));
    }
}

struct Reader<'a> {
    given: &'a Map<String, Value>,
    applies: &'a dyn Fn(&str) -> bool,
    errors: &'a mut Vec<FieldError>,
}

impl<'a> Reader<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.given.get(name).filter(|_| (self.applies)(name))
    }

    fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.get(name)?;
        let find = |wanted: &str| choices.iter().find(|(known, _)| *known == wanted).map(|(_, it)| *it);
        let names = || listed(choices.iter().map(|(known, _)| known));
        choice(Some(value), &format!("options.{name}"), "value", find, names, self.errors)
    }

    /// Puts what `read` makes of the option into `place`, if it is given.
    fn set<T>(&mut self, name: &str, place: &mut T, read: impl Fn(&Value) -> Result<T, String>) {
        match self.get(name).map(read) {
            None => {}
            Some(Ok(value)) => *place = value,
            Some(Err(problem)) => self.errors.push(FieldError::new(format!("options.{name}"), problem)),
        }
    }
}

fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("expected true or false, not {}", kind(value)))
}

fn string(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("expected a string, not {}", kind(value)))
}

fn delimiter(value: &Value) -> Result<char, String> {
    // Each of the others is a part of some value that is written without quotes, or the quote itself.
    const NOT: &str = "\"-+.:\\";
    let text = string(value)?;
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some('\t'), None) => Ok('\t'),
        (Some(one), None) if one.is_ascii_punctuation() && !NOT.contains(one) => Ok(one),
        _ => Err(format!(
            "expected a tab or one ASCII punctuation character other than \" - + . : \\, but it is {}",
            quoted(text)
        )),
    }
}

fn null(value: &Value, delimiter: char) -> Result<String, String> {
    let text = string(value)?;
    if text.len() > LONGEST_NULL {
        Err(format!("expected at most {LONGEST_NULL} bytes, not {}", text.len()))
    } else if text.contains(|it: char| it == delimiter || it == '"' || it.is_control()) {
        Err("may not hold the delimiter, a quote, a line break or another control character".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn numeric(value: &Value) -> Result<NumericPolicy, String> {
    let text = string(value)?;
    let problem =
        || format!("expected string, double or decimal(38,s) with s from 0 to 38, but it is {}", quoted(text));
    match text.replace(' ', "").as_str() {
        "string" => Ok(NumericPolicy::String),
        "double" => Ok(NumericPolicy::Double),
        decimal => {
            let scale = decimal.strip_prefix("decimal(38,").and_then(|rest| rest.strip_suffix(')'));
            let scale = scale.filter(|scale| scale.bytes().all(|byte| byte.is_ascii_digit()));
            let scale = scale.and_then(|scale| scale.parse().ok()).filter(|scale| (0..=38).contains(scale));
            scale.map(NumericPolicy::Decimal).ok_or_else(problem)
        }
    }
}

fn row_group_bytes(value: &Value) -> Result<u32, String> {
    const RANGE: std::ops::RangeInclusive<u32> = ParquetOptions::SMALLEST_ROW_GROUP..=ParquetOptions::LARGEST_ROW_GROUP;
    whole_number(value, &RANGE, "bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: Format, options: &Value) -> Result<FormatOptions, Vec<FieldError>> {
        let mut errors = Vec::new();
        let read = read(Some(options), Some(format), &mut errors);
        if errors.is_empty() { Ok(read) } else { Err(errors) }
    }

    #[test]
    fn every_option_is_read_and_told_again() {
        let csv = |csv| FormatOptions { csv, ..FormatOptions::default() };
        let parquet = |parquet| FormatOptions { parquet, ..FormatOptions::default() };
        let spreadsheet = CsvOptions::spreadsheet();
        for (format, options, expected) in [
            (Format::Csv, json!({}), FormatOptions::default()),
            (
                Format::Xml,
                json!({"onUnrepresentable": "replace"}),
                FormatOptions { on_unrepresentable: OnUnrepresentable::Replace, ..FormatOptions::default() },
            ),
            (
                Format::Csv,
                json!({"delimiter": "\t", "header": false, "null": "\\N", "bom": true, "lineEnding": "crlf"}),
                csv(CsvOptions {
                    delimiter: '\t',
                    header: false,
                    null: "\\N".to_owned(),
                    bom: true,
                    line_ending: LineEnding::CrLf,
                    defuse_formulas: false,
                }),
            ),
            (Format::Csv, json!({"profile": "spreadsheet"}), csv(spreadsheet.clone())),
            (
                Format::Csv,
                json!({"bom": false, "delimiter": ";", "lineEnding": "lf", "profile": "spreadsheet"}),
                csv(CsvOptions { delimiter: ';', bom: false, line_ending: LineEnding::Lf, ..spreadsheet }),
            ),
            (
                Format::Jsonl,
                json!({"bigint": "string"}),
                FormatOptions { bigint: BigintPolicy::String, ..FormatOptions::default() },
            ),
            (
                Format::Parquet,
                json!({"numeric": " decimal( 38, 09 )", "codec": "zstd", "rowGroupBytes": 1 << 20}),
                parquet(ParquetOptions {
                    codec: ParquetCodec::Zstd,
                    row_group_bytes: 1 << 20,
                    numeric: NumericPolicy::Decimal(9),
                }),
            ),
            (
                Format::Parquet,
                json!({"numeric": "double", "rowGroupBytes": 32 << 20}),
                parquet(ParquetOptions {
                    numeric: NumericPolicy::Double,
                    row_group_bytes: 32 << 20,
                    ..ParquetOptions::default()
                }),
            ),
        ] {
            let read = check(format, &options).unwrap_or_else(|errors| panic!("{options}: {errors:?}"));
            assert_eq!(read, expected, "{options}");
            let told = Value::Object(document(&read, format));
            assert_eq!(check(format, &told).unwrap(), expected, "{told}");
        }
    }

    #[test]
    fn bad_options_are_named() {
        for (format, options, fields) in [
            (Format::Csv, json!([]), &["options"][..]),
            (Format::Csv, json!(null), &["options"]),
            (Format::Csv, json!({"delimeter": ";", "Header": true}), &["options.delimeter", "options.Header"]),
            (Format::Json, json!({"delimiter": ";"}), &["options.delimiter"]),
            (Format::Xml, json!({"bigint": "string", "codec": "zstd"}), &["options.bigint", "options.codec"]),
            (Format::Csv, json!({"rowGroupBytes": "many"}), &["options.rowGroupBytes"]),
            (Format::Csv, json!({"onUnrepresentable": "skip"}), &["options.onUnrepresentable"]),
            (Format::Csv, json!({"onUnrepresentable": true}), &["options.onUnrepresentable"]),
            (Format::Csv, json!({"profile": "excel"}), &["options.profile"]),
            (Format::Csv, json!({"header": "no"}), &["options.header"]),
            (Format::Csv, json!({"bom": null}), &["options.bom"]),
            (Format::Csv, json!({"lineEnding": "\r\n"}), &["options.lineEnding"]),
            (Format::Csv, json!({"null": "a\u{1}"}), &["options.null"]),
            (Format::Csv, json!({"null": "a\nb"}), &["options.null"]),
            (Format::Csv, json!({"null": "\"\""}), &["options.null"]),
            (Format::Csv, json!({"null": "a,b"}), &["options.null"]),
            (Format::Csv, json!({"null": "a|b", "delimiter": "|"}), &["options.null"]),
            (Format::Csv, json!({"null": "x".repeat(65)}), &["options.null"]),
            (Format::Json, json!({"bigint": 1}), &["options.bigint"]),
            (Format::Parquet, json!({"codec": "gzip"}), &["options.codec"]),
            (Format::Parquet, json!({"numeric": "decimal(38,39)"}), &["options.numeric"]),
            (Format::Parquet, json!({"numeric": "decimal(38,+1)"}), &["options.numeric"]),
            (Format::Parquet, json!({"numeric": "decimal(38,)"}), &["options.numeric"]),
            (Format::Parquet, json!({"numeric": "decimal(18,2)"}), &["options.numeric"]),
            (Format::Parquet, json!({"rowGroupBytes": (1 << 20) - 1}), &["options.rowGroupBytes"]),
            (Format::Parquet, json!({"rowGroupBytes": (32 << 20) + 1}), &["options.rowGroupBytes"]),
            (Format::Parquet, json!({"rowGroupBytes": 2e6}), &["options.rowGroupBytes"]),
            (Format::Parquet, json!({"rowGroupBytes": "2097152"}), &["options.rowGroupBytes"]),
        ] {
            let errors = check(format, &options).expect_err(&options.to_string());
            let named: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(named, fields, "{options}: {errors:?}");
        }
    }

    #[test]
    fn only_what_no_unquoted_value_holds_may_delimit() {
        for good in ["\t", ";", "|", ",", "!", "~", "^", "/"] {
            assert!(check(Format::Csv, &json!({"delimiter": good})).is_ok(), "{good:?}");
        }
        for bad in ["", ";;", "\"", "a", "7", "-", "+", ".", ":", "\\", " ", "\r", "\n", "\0", "é", "\u{2028}"] {
            let errors = check(Format::Csv, &json!({"delimiter": bad})).expect_err(bad);
            assert_eq!(errors[0].field, "options.delimiter");
        }
    }

    #[test]
    fn an_option_of_another_format_says_whose_it_is() {
        let errors = check(Format::Csv, &json!({"bigint": "string"})).unwrap_err();
        assert_eq!(
            errors[0].message,
            "is an option of json, jsonl; for csv there is onUnrepresentable, profile, delimiter, header, null, bom, \
             lineEnding"
        );
        let errors = check(Format::Parquet, &json!({"zstd": true})).unwrap_err();
        assert_eq!(
            errors[0].message,
            "unknown option; for parquet there is onUnrepresentable, numeric, codec, rowGroupBytes"
        );
    }

    #[test]
    fn without_a_format_values_are_still_looked_at() {
        let mut errors = Vec::new();
        read(Some(&json!({"bigint": "text", "codec": "snappy", "x": 1})), None, &mut errors);
        let named: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(named, ["options.x", "options.bigint"]);
    }
}
