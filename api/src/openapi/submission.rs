//! The body of a submission as JSON Schema. It is read by hand (`exports::validate`), so its schema is written by hand as
//! well, from the same lists and limits; a test holds the two together.

use crate::dataset_config::DEFAULT_DATASET;
use polyglot_core::compression::Compression;
use polyglot_core::format_options::FormatOptions;
use polyglot_core::request::Layout;
use polyglot_core::selection::FilterOp;
use polyglot_formats::{Format, OptionDefinition, OptionValue};
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::exports::limits;
use crate::problem::listed;

/// What is to be exported, and how.
pub(crate) struct ExportSubmission;

impl ToSchema for ExportSubmission {}

impl PartialSchema for ExportSubmission {
    fn schema() -> RefOr<Schema> {
        serde_json::from_value(schema()).expect("what follows is a schema, as a test sees to")
    }
}

/// A file format, by its name in requests and answers.
pub(crate) struct FormatSchema;

impl ToSchema for FormatSchema {
    fn name() -> std::borrow::Cow<'static, str> {
        "Format".into()
    }
}

impl PartialSchema for FormatSchema {
    fn schema() -> RefOr<Schema> {
        let schema = json!({
            "type": "string", "enum": format_names(),
            "description": "A file format, by its name in requests and answers.",
        });
        serde_json::from_value(schema).expect("a list of names is a schema")
    }
}

fn schema() -> Value {
    let mut schema = json!({
        "type": "object",
        "description": "What is to be exported, and how. Unknown fields are refused.",
        "required": ["format", "columns"],
        "additionalProperties": false,
        "properties": {
            "format": {
                "type": "string", "enum": format_names(),
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
                "description": compression(),
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
                            "direction": {"type": ["string", "null"], "enum": ["asc", "desc", null], "default": "asc"},
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
    });
    let required = ["format", "columns"];
    for (name, field) in schema["properties"].as_object_mut().into_iter().flatten() {
        if !required.contains(&name.as_str()) {
            allow_null(field);
        }
    }
    schema
}

/// Where a field may be left out, null is the same.
fn allow_null(field: &mut Value) {
    if let Some(of_one) = field["type"].as_str().map(str::to_owned) {
        field["type"] = json!([of_one, "null"]);
    }
    if let Some(values) = field.get_mut("enum").and_then(Value::as_array_mut)
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
    if let Some(schemas) = field.get_mut("anyOf").and_then(Value::as_array_mut) {
        let null = json!({"type": "null"});
        if !schemas.contains(&null) {
            schemas.push(null);
        }
    }
}

fn filter() -> Value {
    json!({
        "type": "object", "required": ["column", "op"], "additionalProperties": false,
        "properties": {
            "column": {"type": "string", "minLength": 1},
            "path": {
                "type": ["array", "null"], "minItems": 1, "maxItems": limits::PATH_STEPS,
                "description": "Of a column of type json or jsonb: the keys, or positions in an array, down to what is compared. A \
                                value there of another JSON type than that of the filter does not match; is_null is true where there \
                                is nothing, or JSON's null.",
                "items": {
                    "type": "string", "maxLength": limits::PATH_STEP_BYTES, "description": "At most 256 bytes of UTF-8.",
                },
            },
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

fn format_names() -> Vec<&'static str> {
    Format::all().map(|format| format.name).collect()
}

fn compression() -> String {
    let refusals = Format::all().filter_map(|format| Some((format, format.incompressible.as_ref()?.reason)));
    let refusals: Vec<_> = refusals.map(|(format, reason)| format!("; not for {format}, which {reason}")).collect();
    format!("Of the whole file{}.", refusals.concat())
}

fn options() -> Value {
    let mut properties = Map::new();
    for (option, formats) in limits::options() {
        let mut schema = option_schema(option, &formats);
        allow_null(&mut schema);
        // Some formats mean something else by the same name.
        let merged = match properties.remove(option.name) {
            None => schema,
            Some(mut known) => match known.get_mut("anyOf").and_then(Value::as_array_mut) {
                Some(schemas) => {
                    schemas.push(schema);
                    known
                }
                None => json!({"anyOf": [known, schema]}),
            },
        };
        properties.insert(option.name.to_owned(), merged);
    }
    json!({
        "type": "object", "additionalProperties": false,
        "description": "Each is an option of the formats that its description names, and refused for others.",
        "properties": properties,
    })
}

fn option_schema(option: &OptionDefinition, formats: &[Format]) -> Value {
    let mut schema = match &option.value {
        OptionValue::Choice(choices) => {
            let names: Vec<_> = choices.iter().map(|choice| choice.name).collect();
            json!({"type": "string", "enum": names})
        }
        OptionValue::Boolean { .. } => json!({"type": "boolean"}),
        OptionValue::Integer { range, .. } => {
            json!({"type": "integer", "minimum": range.start(), "maximum": range.end()})
        }
        OptionValue::Text { min_length, max_length, pattern, .. } => {
            let mut schema = json!({"type": "string"});
            for (fact, value) in
                [("minLength", json!(min_length)), ("maxLength", json!(max_length)), ("pattern", json!(pattern))]
            {
                if !value.is_null() {
                    schema[fact] = value;
                }
            }
            schema
        }
    };
    if let Some(default) = option.show(&FormatOptions::default()) {
        schema["default"] = default;
    }
    let of = if formats.len() == Format::COUNT { "Every format".to_owned() } else { listed(formats) };
    let parts = [of.as_str(), option.description];
    schema["description"] = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ").into();
    schema
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
        let mut options: Vec<&str> = limits::options().map(|(option, _)| option.name).collect();
        options.sort_unstable();
        options.dedup();
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
            "/properties/options/properties/numeric/anyOf/0/enum",
            "/properties/options/properties/numeric/anyOf/1/pattern",
            "/properties/options/type",
            "/properties/filters/type",
            "/properties/filters/items/properties/path/maxItems",
            "/properties/filters/items/properties/path/type",
            "/properties/layout/enum",
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
