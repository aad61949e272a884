//! What a column becomes in a format, in words: for lists of datasets, and for manifests. How it is written is the
//! worker's encoders'; the system tests compare what files hold with what is said here.

use polyglot_core::column::{Column, WireType};
use polyglot_core::format::Format;
use polyglot_core::format_options::{BigintPolicy, FormatOptions, NumericPolicy};

/// The type of `column` in a file of `format`.
#[must_use]
pub fn output_type(column: &Column, format: Format, options: &FormatOptions) -> String {
    match format {
        Format::Csv if column.array.is_some() => "text".to_owned(),
        Format::Csv => in_csv(column.wire).to_owned(),
        Format::Json | Format::Jsonl => {
            in_array(column, in_json(column.wire, options), |items| format!("array of {items}"))
        }
        Format::Xml => in_array(column, in_xml(column.wire), |items| format!("elements <item> of {items}")),
        Format::Parquet => {
            let mut name = in_parquet(column.wire, options);
            for _ in 0..column.array.map_or(0, |array| array.dimensions) {
                name = format!("LIST<{name}>");
            }
            name
        }
    }
}

fn in_array(column: &Column, items: &str, list: impl FnOnce(&str) -> String) -> String {
    if column.array.is_some() { list(items) } else { items.to_owned() }
}

fn in_csv(wire: WireType) -> &'static str {
    match wire {
        WireType::Bool => "boolean",
        WireType::Int2 | WireType::Int4 | WireType::Int8 => "integer",
        WireType::Float4 | WireType::Float8 | WireType::Numeric(_) => "number",
        WireType::Text | WireType::TextForm => "text",
        WireType::Bytea => "hex",
        WireType::Date => "date",
        WireType::Time => "time",
        WireType::Timestamp => "date-time without zone",
        WireType::TimestampTz => "date-time",
        WireType::Uuid => "uuid",
        WireType::Json | WireType::Jsonb => "JSON",
    }
}

fn in_json(wire: WireType, options: &FormatOptions) -> &'static str {
    match wire {
        WireType::Bool => "boolean",
        WireType::Int8 if options.bigint == BigintPolicy::String => "string",
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
    }
}

fn in_xml(wire: WireType) -> &'static str {
    match wire {
        WireType::Bytea => "base64",
        WireType::Json | WireType::Jsonb => "nested elements",
        _ => in_csv(wire),
    }
}

fn in_parquet(wire: WireType, options: &FormatOptions) -> String {
    let name = match wire {
        WireType::Bool => "BOOLEAN",
        WireType::Int2 => "INT32 (INT 16)",
        WireType::Int4 => "INT32",
        WireType::Int8 => "INT64",
        WireType::Float4 => "FLOAT",
        WireType::Float8 => "DOUBLE",
        WireType::Numeric(_) => {
            return match (wire.decimal(), options.parquet.numeric) {
                (Some((precision, scale)), _) => format!("DECIMAL({precision}, {scale})"),
                (None, NumericPolicy::String) => "STRING".to_owned(),
                (None, NumericPolicy::Double) => "DOUBLE".to_owned(),
                (None, NumericPolicy::Decimal(scale)) => format!("DECIMAL(38, {scale})"),
            };
        }
        WireType::Text | WireType::TextForm | WireType::Json | WireType::Jsonb => "STRING",
        WireType::Bytea => "BYTE_ARRAY",
        WireType::Date => "DATE",
        WireType::Time => "TIME(MICROS)",
        WireType::Timestamp => "TIMESTAMP(MICROS, local)",
        WireType::TimestampTz => "TIMESTAMP(MICROS, UTC)",
        WireType::Uuid => "UUID",
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyglot_core::column::ArrayType;
    use polyglot_core::format_options::ParquetOptions;
    use polyglot_core::relation::Relation;

    #[test]
    fn types_are_named_with_their_options() {
        let mut column = Relation::for_test(&["a"], &[]).columns.remove(0);
        let options = FormatOptions {
            bigint: BigintPolicy::String,
            parquet: ParquetOptions { numeric: NumericPolicy::Decimal(9), ..ParquetOptions::default() },
            ..FormatOptions::default()
        };
        column.wire = WireType::Numeric(None);
        assert_eq!(output_type(&column, Format::Parquet, &options), "DECIMAL(38, 9)");
        assert_eq!(output_type(&column, Format::Parquet, &FormatOptions::default()), "STRING");
        column.wire = WireType::Int8;
        column.array = Some(ArrayType { dimensions: 2, delimiter: b',' });
        assert_eq!(output_type(&column, Format::Parquet, &options), "LIST<LIST<INT64>>");
        assert_eq!(output_type(&column, Format::Json, &options), "array of string");
        assert_eq!(output_type(&column, Format::Xml, &options), "elements <item> of integer");
        assert_eq!(output_type(&column, Format::Csv, &options), "text");
    }
}
