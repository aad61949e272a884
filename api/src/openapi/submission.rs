//! The body of a submission as JSON Schema. It is read by hand (`exports::validate`), so its schema is written by hand as
//! well, from the same lists and limits; a test holds the two together.

use crate::dataset_config::DEFAULT_DATASET;
use polyglot_core::compression::Compression;
use polyglot_core::format::Format;
use polyglot_core::format_options::ParquetOptions;
use polyglot_core::request::Layout;
use polyglot_core::selection::FilterOp;
use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::exports::limits;

/// What is to be exported, and how.
pub(crate) struct ExportSubmission;

impl ToSchema for ExportSubmission {}

impl PartialSchema for ExportSubmission {
    fn schema() -> RefOr<Schema> {
        serde_json::from_value(schema()).expect("what follows is a schema, as a test sees to")
    }
}

fn schema() -> Value {
    json!({
        "type": "object",
        "description": "What is to be exported, and how. Unknown fields are refused.",
        "required": ["format", "columns"],
        "additionalProperties": false,
        "properties": {
            "format": {
                "type": "string", "enum": Format::ALL.map(Format::name),
                "description": "What the file is written as.",
            },
            "columns": {
                "type": "array", "minItems": 1, "maxItems": limits::COLUMNS,
                "description": "The columns of the file, in this order.",
                "items": {
                    "type": "object", "required": ["source", "target"], "additionalProperties": false,
                    "properties": {
                        "source": {"type": "string", "minLength": 1, "description": "A column of the dataset."},
                        "target": {
                            "type": "string", "minLength": 1, "maxLength": limits::TARGET_BYTES,
                            "description": "What it is called in the file; no name twice. At most 255 bytes of UTF-8.",
                        },
                    },
                },
            },
            "compression": {
                "type": ["string", "null"],
                "enum": Compression::ALL.iter().map(|it| json!(it.name())).chain([Value::Null]).collect::<Vec<_>>(),
                "description": "Of the whole file; not for parquet, which compresses its own content.",
            },
            "dataset": {"type": "string", "minLength": 1, "default": DEFAULT_DATASET, "description": "One of GET /datasets."},
            "filters": {
                "type": "array", "maxItems": limits::FILTERS,
                "description": "All of them must hold for a row to be in the file.",
                "items": filter(),
            },
            "orderBy": {
                "type": "array", "maxItems": limits::ORDER_KEYS,
                "description": "Which columns sort the rows; the primary key is behind them, to break ties.",
                "items": {"anyOf": [
                    {"type": "string", "minLength": 1, "description": "A column, ascending."},
                    {
                        "type": "object", "required": ["column"], "additionalProperties": false,
                        "properties": {
                            "column": {"type": "string", "minLength": 1},
                            "direction": {"type": "string", "enum": ["asc", "desc"], "default": "asc"},
                        },
                    },
                ]},
            },
            "options": options(),
            "parallelism": {
                "type": "integer", "minimum": 1, "maximum": 1000,
                "description": "Shards that are worked on at a time; at most MAX_PARALLELISM, which is also the default.",
            },
            "layout": {
                "type": "string", "enum": Layout::ALL.map(Layout::name), "default": Layout::File.name(),
                "description": "One object, or one for each shard.",
            },
            "coalesce": {
                "type": "boolean", "default": false,
                "description": "An identical export that is under way will do; the answer is 200 then.",
            },
        },
    })
}

fn filter() -> Value {
    json!({
        "type": "object", "required": ["column", "op"], "additionalProperties": false,
        "properties": {
            "column": {"type": "string", "minLength": 1},
            "op": {"type": "string", "enum": FilterOp::ALL.map(FilterOp::name)},
            "value": {
                "description": "In the text form of the column's type, or a JSON number or boolean. Several for in, none \
                                for is_null and is_not_null.",
                "anyOf": [
                    {"type": "string"}, {"type": "number"}, {"type": "boolean"}, {"type": "null"},
                    {
                        "type": "array", "minItems": 1, "maxItems": limits::FILTER_VALUES,
                        "items": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]},
                    },
                ],
            },
        },
    })
}

fn options() -> Value {
    json!({
        "type": "object", "additionalProperties": false,
        "description": "Each is an option of the formats that its description names, and refused for others.",
        "properties": {
            "onUnrepresentable": {
                "type": "string", "enum": ["fail", "replace"], "default": "fail",
                "description": "Every format: what becomes of a value that the format cannot hold. The manifest counts replaced ones.",
            },
            "profile": {
                "type": "string", "enum": ["spreadsheet"],
                "description": "csv: BOM, CRLF, and text that looks like a formula is defused.",
            },
            "delimiter": {
                "type": "string", "minLength": 1, "maxLength": 1, "default": ",",
                "description": "csv: a tab or one ASCII punctuation character other than \" - + . : \\",
            },
            "header": {"type": "boolean", "default": true, "description": "csv: a first row with the columns' names."},
            "null": {
                "type": "string", "maxLength": limits::NULL_BYTES, "default": "",
                "description": "csv: what stands for NULL. At most 64 bytes without delimiter, quote or control character.",
            },
            "bom": {"type": "boolean", "default": false, "description": "csv: a byte order mark in front."},
            "lineEnding": {"type": "string", "enum": ["lf", "crlf"], "default": "lf", "description": "csv"},
            "bigint": {
                "type": "string", "enum": ["number", "string"], "default": "number",
                "description": "json, jsonl: how a 64-bit integer is written.",
            },
            "numeric": {
                "type": "string", "default": "string",
                "pattern": "^ *(string|double|d *e *c *i *m *a *l *\\( *3 *8 *, *[0-9 ]+\\)) *$",
                "description": "parquet: what becomes of a numeric without precision, or with more than 38 digits: string, \
                                double or decimal(38,s) with s from 0 to 38.",
            },
            "codec": {"type": "string", "enum": ["snappy", "zstd"], "default": "snappy", "description": "parquet"},
            "rowGroupBytes": {
                "type": "integer", "minimum": ParquetOptions::SMALLEST_ROW_GROUP, "maximum": ParquetOptions::LARGEST_ROW_GROUP,
                "default": ParquetOptions::default().row_group_bytes,
                "description": "parquet: bytes of a row group before compression.",
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(object: &Value) -> Vec<&str> {
        let mut names: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn every_field_and_option_is_described() {
        let schema = schema();
        let mut fields = limits::FIELDS.to_vec();
        fields.sort_unstable();
        assert_eq!(names(&schema["properties"]), fields);
        let mut options: Vec<&str> = limits::option_names().collect();
        options.sort_unstable();
        assert_eq!(names(&schema["properties"]["options"]["properties"]), options);
    }

    #[test]
    fn the_description_keeps_all_of_the_schema() {
        let kept = serde_json::to_value(ExportSubmission::schema()).unwrap();
        for path in [
            "/additionalProperties",
            "/required",
            "/properties/columns/minItems",
            "/properties/columns/items/properties/target/maxLength",
            "/properties/compression/enum",
            "/properties/compression/type",
            "/properties/filters/items/properties/value/anyOf/4/items",
            "/properties/orderBy/items/anyOf/1/properties/direction/default",
            "/properties/options/additionalProperties",
            "/properties/options/properties/numeric/pattern",
            "/properties/options/properties/rowGroupBytes/maximum",
        ] {
            let written = schema();
            assert_eq!(
                kept.pointer(path).map(ToString::to_string),
                written.pointer(path).map(ToString::to_string),
                "{path}"
            );
            assert!(written.pointer(path).is_some(), "{path}");
        }
    }
}
