//! The `options` of a submission, by the definitions of the formats' options. An option that the format does not have is
//! refused, because a file without it is not what was asked for.

use polyglot_core::format_options::FormatOptions;
use polyglot_formats::{Format, OptionDefinition, OptionError};
use serde_json::{Map, Value};

use super::field::{given as given_member, kind, member, not_a_whole_number};
use crate::problem::{FieldError, listed, quoted};

/// Without a format every option is looked at: which of them it has cannot be told.
pub(super) fn read(value: Option<&Value>, format: Option<Format>, errors: &mut Vec<FieldError>) -> FormatOptions {
    let mut options = FormatOptions::default();
    let given = match value {
        None => return options,
        Some(Value::Object(given)) => given,
        Some(other) => {
            errors.push(FieldError::new("options", format!("expected an object, not {}", kind(other))));
            return options;
        }
    };
    refuse_others(given, format, errors);
    let offered: Vec<_> = match format {
        Some(format) => format.options.iter().collect(),
        None => all().map(|(option, _)| option).collect(),
    };
    for option in offered {
        let Some(value) = given_member(given, option.name) else { continue };
        if let Err(error) = option.read(value, &mut options) {
            let field = format!("options.{}", option.name);
            // Without a format, what one format does not take another one may, under the same name.
            let is_of_another = format.is_none() && takes(option.name, value);
            if !is_of_another && errors.iter().all(|error| error.field != field) {
                errors.push(FieldError::new(field, message(error, value)));
            }
        }
    }
    options
}

/// The options that `format` has, each with its value, as a submission would ask for them.
pub(super) fn document(options: &FormatOptions, format: Format) -> Map<String, Value> {
    format.options.iter().filter_map(|option| Some((option.name.to_owned(), option.show(options)?))).collect()
}

/// Whether an option of that name takes the value, in any format.
fn takes(name: &str, value: &Value) -> bool {
    let mut scratch = FormatOptions::default();
    all().any(|(option, _)| option.name == name && option.read(value, &mut scratch).is_ok())
}

/// Every option once, and the formats that have it. Formats that mean something else by a name have an option of their own.
pub(crate) fn all() -> impl Iterator<Item = (&'static OptionDefinition, Vec<Format>)> {
    let having = |option: &OptionDefinition| {
        let same = |format: &Format| format.option(option.name).is_some_and(|it| it.description == option.description);
        Format::all().filter(same).collect::<Vec<_>>()
    };
    Format::all().flat_map(move |format| {
        let options = format.options.iter().map(move |option| (option, having(option)));
        options.filter(move |(_, formats)| formats.first() == Some(&format))
    })
}

/// The names of the options that `format` has.
fn names(format: Format) -> impl Iterator<Item = &'static str> {
    format.options.iter().map(|option| option.name)
}

fn refuse_others(given: &Map<String, Value>, format: Option<Format>, errors: &mut Vec<FieldError>) {
    for name in given.keys() {
        let having: Vec<_> = Format::all().filter(|format| format.option(name).is_some()).collect();
        let known = !having.is_empty();
        let message = match (known, format) {
            (false, Some(format)) => format!("unknown option; for {format} there is {}", listed(names(format))),
            (false, None) => {
                let mut names: Vec<_> = all().map(|(option, _)| option.name).collect();
                let mut seen = std::collections::HashSet::new();
                names.retain(|name| seen.insert(*name));
                format!("unknown option; there is {}", listed(names))
            }
            (true, Some(format)) if !having.contains(&format) => {
                format!("is an option of {}; for {format} there is {}", listed(having), listed(names(format)))
            }
            (true, _) => continue,
        };
        errors.push(FieldError::new(member("options.", name), message));
    }
}

/// What is wrong with the value of an option, in words for the client.
fn message(error: OptionError, value: &Value) -> String {
    let text = || quoted(value.as_str().unwrap_or_default());
    match error {
        OptionError::Kind { expected } => format!("expected {expected}, not {}", kind(value)),
        OptionError::Empty => "may not be empty".to_owned(),
        OptionError::UnknownChoice { choices } => format!("unknown value {}; there is {}", text(), listed(choices)),
        OptionError::OutOfRange { range, unit } => not_a_whole_number(value, &range, unit),
        OptionError::Text { expected } => format!("expected {expected}, but it is {}", text()),
        OptionError::TooLong { max_bytes, bytes } => format!("expected at most {max_bytes} bytes, not {bytes}"),
        OptionError::Content { problem } => problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use polyglot_core::format_options::{
        CsvOptions, FileEncoding, JsonNumber, LineEnding, NumericPolicy, OnUnrepresentable, ParquetCodec,
        ParquetOptions, UuidPolicy,
    };
    use serde_json::json;

    use super::*;

    fn check(format: &str, options: &Value) -> Result<FormatOptions, Vec<FieldError>> {
        let format = Format::by_name(format).unwrap();
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
            ("csv", json!({}), FormatOptions::default()),
            (
                "xml",
                json!({"onUnrepresentable": "replace"}),
                FormatOptions { on_unrepresentable: OnUnrepresentable::Replace, ..FormatOptions::default() },
            ),
            (
                "csv",
                json!({"delimiter": "\t", "header": false, "null": "\\N", "bom": true, "lineEnding": "crlf"}),
                csv(CsvOptions {
                    delimiter: '\t',
                    header: false,
                    null: "\\N".to_owned(),
                    bom: true,
                    line_ending: LineEnding::CrLf,
                    ..CsvOptions::default()
                }),
            ),
            ("csv", json!({"profile": "spreadsheet"}), csv(spreadsheet.clone())),
            (
                "csv",
                json!({"bom": false, "delimiter": ";", "lineEnding": "lf", "profile": "spreadsheet"}),
                csv(CsvOptions { delimiter: ';', bom: false, line_ending: LineEnding::Lf, ..spreadsheet }),
            ),
            (
                "xml",
                json!({"encoding": "file"}),
                FormatOptions { encoding: FileEncoding::File, ..FormatOptions::default() },
            ),
            (
                "jsonl",
                json!({"bigint": "string"}),
                FormatOptions { bigint: JsonNumber::String, ..FormatOptions::default() },
            ),
            (
                "json",
                json!({"numeric": "string"}),
                FormatOptions { numeric: JsonNumber::String, ..FormatOptions::default() },
            ),
            (
                "parquet",
                json!({"uuid": "string"}),
                parquet(ParquetOptions { uuid: UuidPolicy::String, ..Default::default() }),
            ),
            (
                "arrow",
                json!({"uuid": "string"}),
                parquet(ParquetOptions { uuid: UuidPolicy::String, ..Default::default() }),
            ),
            ("arrow", json!({"uuid": "uuid"}), FormatOptions::default()),
            (
                "csv",
                json!({"decimal": ",", "delimiter": ";"}),
                csv(CsvOptions { delimiter: ';', decimal: ',', ..Default::default() }),
            ),
            ("csv", json!({"decimal": "."}), FormatOptions::default()),
            // As if it was left out.
            (
                "csv",
                json!({"bom": null, "delimiter": null, "profile": null, "onUnrepresentable": null}),
                FormatOptions::default(),
            ),
            (
                "parquet",
                json!({"numeric": " decimal( 38, 09 )", "codec": "zstd", "rowGroupBytes": 1 << 20}),
                parquet(ParquetOptions {
                    codec: ParquetCodec::Zstd,
                    row_group_bytes: 1 << 20,
                    numeric: NumericPolicy::Decimal(9),
                    ..ParquetOptions::default()
                }),
            ),
            (
                "parquet",
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
            let told = Value::Object(document(&read, Format::by_name(format).unwrap()));
            assert_eq!(check(format, &told).unwrap(), expected, "{told}");
        }
    }

    #[test]
    fn bad_options_are_named() {
        for (format, options, fields) in [
            ("csv", json!([]), &["options"][..]),
            ("csv", json!("none"), &["options"]),
            ("csv", json!({"delimeter": ";", "Header": true}), &["options.delimeter", "options.Header"]),
            ("json", json!({"delimiter": ";"}), &["options.delimiter"]),
            ("xml", json!({"bigint": "string", "codec": "zstd"}), &["options.bigint", "options.codec"]),
            ("csv", json!({"rowGroupBytes": "many"}), &["options.rowGroupBytes"]),
            ("csv", json!({"onUnrepresentable": "skip"}), &["options.onUnrepresentable"]),
            ("csv", json!({"onUnrepresentable": true}), &["options.onUnrepresentable"]),
            ("csv", json!({"profile": "excel"}), &["options.profile"]),
            ("json", json!({"encoding": "gzip"}), &["options.encoding"]),
            ("parquet", json!({"encoding": "file"}), &["options.encoding"]),
            ("csv", json!({"header": "no"}), &["options.header"]),
            ("csv", json!({"bom": 1, "nope": null}), &["options.nope", "options.bom"]),
            ("json", json!({"numeric": "double"}), &["options.numeric"]),
            ("parquet", json!({"uuid": "text"}), &["options.uuid"]),
            ("csv", json!({"uuid": "string"}), &["options.uuid"]),
            ("csv", json!({"decimal": ","}), &["options.decimal"]),
            ("csv", json!({"decimal": ",", "profile": "spreadsheet"}), &["options.decimal"]),
            ("csv", json!({"decimal": ";", "delimiter": ";"}), &["options.decimal"]),
            ("csv", json!({"lineEnding": "\r\n"}), &["options.lineEnding"]),
            ("csv", json!({"null": "a\u{1}"}), &["options.null"]),
            ("csv", json!({"null": "a\nb"}), &["options.null"]),
            ("csv", json!({"null": "\"\""}), &["options.null"]),
            ("csv", json!({"null": "a,b"}), &["options.null"]),
            ("csv", json!({"null": "a|b", "delimiter": "|"}), &["options.null"]),
            ("csv", json!({"null": "x".repeat(65)}), &["options.null"]),
            ("json", json!({"bigint": 1}), &["options.bigint"]),
            ("parquet", json!({"codec": "gzip"}), &["options.codec"]),
            ("parquet", json!({"numeric": "decimal(38,39)"}), &["options.numeric"]),
            ("parquet", json!({"numeric": "decimal(38,+1)"}), &["options.numeric"]),
            ("parquet", json!({"numeric": "decimal(38,)"}), &["options.numeric"]),
            ("parquet", json!({"numeric": "decimal(18,2)"}), &["options.numeric"]),
            ("parquet", json!({"rowGroupBytes": (1 << 20) - 1}), &["options.rowGroupBytes"]),
            ("parquet", json!({"rowGroupBytes": (32 << 20) + 1}), &["options.rowGroupBytes"]),
            ("parquet", json!({"rowGroupBytes": 2e6}), &["options.rowGroupBytes"]),
            ("parquet", json!({"rowGroupBytes": "2097152"}), &["options.rowGroupBytes"]),
        ] {
            let errors = check(format, &options).expect_err(&options.to_string());
            let named: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(named, fields, "{options}: {errors:?}");
        }
    }

    #[test]
    fn only_what_no_unquoted_value_holds_may_delimit() {
        for good in ["\t", ";", "|", ",", "!", "~", "^", "/"] {
            assert!(check("csv", &json!({"delimiter": good})).is_ok(), "{good:?}");
        }
        for bad in ["", ";;", "\"", "a", "7", "-", "+", ".", ":", "\\", " ", "\r", "\n", "\0", "é", "\u{2028}"] {
            let errors = check("csv", &json!({"delimiter": bad})).expect_err(bad);
            assert_eq!(errors[0].field, "options.delimiter");
        }
    }

    #[test]
    fn an_option_of_another_format_says_whose_it_is() {
        let errors = check("csv", &json!({"bigint": "string"})).unwrap_err();
        assert_eq!(
            errors[0].message,
            "is an option of json, jsonl; for csv there is onUnrepresentable, profile, delimiter, decimal, header, null, \
             bom, lineEnding, encoding"
        );
        let errors = check("parquet", &json!({"zstd": true})).unwrap_err();
        assert_eq!(
            errors[0].message,
            "unknown option; for parquet there is onUnrepresentable, numeric, uuid, codec, rowGroupBytes"
        );
    }

    #[test]
    fn a_decimal_mark_that_is_the_delimiter_says_what_to_do() {
        let errors = check("csv", &json!({"decimal": ","})).unwrap_err();
        assert!(errors[0].message.contains("set options.delimiter to another one"), "{}", errors[0].message);
    }

    #[test]
    fn without_a_format_values_are_still_looked_at() {
        let mut errors = Vec::new();
        read(Some(&json!({"bigint": "text", "codec": "snappy", "x": 1})), None, &mut errors);
        let named: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(named, ["options.x", "options.bigint"]);
        // Which format means it is not known; a value that none of them takes is refused once.
        for (value, expected) in
            [("double", &[][..]), ("string", &[]), ("number", &[]), ("money", &["options.numeric"])]
        {
            let mut errors = Vec::new();
            read(Some(&json!({"numeric": value})), None, &mut errors);
            let named: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(named, expected, "{value}");
        }
    }
}
