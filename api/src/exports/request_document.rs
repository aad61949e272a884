//! The request of an export as `GET /exports/{id}` gives it back: a body of `POST /exports` that asks for the same.

use polyglot_core::compression::Compression;
use polyglot_core::format_options::FormatOptions;
use polyglot_core::request::{ExportRequest, Layout};
use polyglot_core::selection::{Filter, FilterOp};
use polyglot_formats::Format;
use serde_json::{Map, Value, json};

/// The members of the submission. The ledger does not say which defaults a client has named, so none is. What the service has
/// added (relation, exposed columns, limit of rows) is not part of a submission.
pub(super) fn document(request: &ExportRequest) -> Value {
    let columns = request.columns.iter().map(|column| json!({"source": column.source, "target": column.target}));
    let mut document = Map::from_iter([
        ("dataset".to_owned(), request.dataset.clone().into()),
        ("format".to_owned(), request.format.as_str().into()),
        ("columns".to_owned(), columns.collect()),
    ]);
    let filters: Vec<Value> = request.own_filters().iter().map(filter).collect();
    let order_by = request.order_by.iter().map(|key| json!({"column": key.column, "direction": key.direction}));
    let order_by: Vec<Value> = order_by.collect();
    let options = Format::of(request).map(|format| chosen_options(&request.options, format)).unwrap_or_default();
    let layout = (request.layout != Layout::default()).then(|| request.layout.name());
    let optional = [
        ("compression", request.compression.map(|compression| Compression::name(compression).into())),
        ("filters", (!filters.is_empty()).then(|| filters.into())),
        ("orderBy", (!order_by.is_empty()).then(|| order_by.into())),
        ("options", (!options.is_empty()).then(|| options.into())),
        ("layout", layout.map(Value::from)),
        ("parallelism", request.parallelism.map(Value::from)),
    ];
    document.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    document.into()
}

/// A filter as in a submission, with its values as the text that PostgreSQL got. It has none where the operator takes none, and
/// where the export was deleted.
pub(super) fn filter(filter: &Filter) -> Value {
    let mut document = json!({ "column": filter.column, "op": filter.op.name() });
    if !filter.path.is_empty() {
        document["path"] = json!(filter.path);
    }
    let value = |text: &String| if filter.path.is_empty() { json!(text) } else { json_value(text) };
    match (filter.op, filter.values.first()) {
        (_, None) => {}
        (FilterOp::In, Some(_)) => document["value"] = filter.values.iter().map(value).collect(),
        (_, Some(text)) => document["value"] = value(text),
    }
    document
}

/// A value of a filter with a path, in its JSON type; a number of more digits than a double has as text, so that it keeps them.
fn json_value(text: &str) -> Value {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return json!(text) };
    let shown = value.to_string();
    if value.is_number() && shown != text { json!(text) } else { value }
}

/// The options that a submission needs to get `options`. They are read in their order, so an option that one before it has
/// set already, as a profile sets several, is left out.
fn chosen_options(options: &FormatOptions, format: Format) -> Map<String, Value> {
    let mut reached = FormatOptions::default();
    let mut chosen = Map::new();
    for option in format.options {
        let Some(value) = option.show(options) else { continue };
        if option.show(&reached).as_ref() != Some(&value) && option.read(&value, &mut reached).is_ok() {
            chosen.insert(option.name.to_owned(), value);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use polyglot_core::format_options::CsvOptions;
    use polyglot_core::grant::Grant;
    use polyglot_core::request::ColumnMapping;
    use polyglot_core::selection::{Direction, OrderKey};

    use super::*;
    use crate::resolved_dataset::tests::records;

    fn request() -> ExportRequest {
        records(&["id"]).request("csv", vec![ColumnMapping { source: "id".to_owned(), target: "a".to_owned() }])
    }

    #[test]
    fn defaults_and_what_the_service_has_added_are_left_out() {
        let request = ExportRequest {
            row_limit: Some(7),
            grant: Grant { columns: Some(vec!["id".to_owned()]), ..Grant::default() },
            ..request()
        };
        let expected = json!({"dataset": "records", "format": "csv", "columns": [{"source": "id", "target": "a"}]});
        assert_eq!(document(&request), expected);
    }

    #[test]
    fn every_choice_is_given_back_as_it_was_submitted() {
        let filter = |op, values: &[&str]| Filter {
            path: Vec::new(),
            column: "id".to_owned(),
            op,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let options = FormatOptions {
            csv: CsvOptions { delimiter: ';', bom: false, ..CsvOptions::spreadsheet() },
            ..FormatOptions::default()
        };
        let request = ExportRequest {
            compression: Some(Compression::Zstd),
            filters: vec![
                filter(FilterOp::In, &["1", "2"]),
                filter(FilterOp::IsNull, &[]),
                filter(FilterOp::Less, &["3"]),
            ],
            order_by: vec![OrderKey { column: "id".to_owned(), direction: Direction::Desc }],
            options,
            parallelism: Some(2),
            layout: Layout::Files,
            ..request()
        };
        let expected = json!({
            "dataset": "records", "format": "csv", "columns": [{"source": "id", "target": "a"}], "compression": "zstd",
            "filters": [
                {"column": "id", "op": "in", "value": ["1", "2"]}, {"column": "id", "op": "is_null"},
                {"column": "id", "op": "<", "value": "3"},
            ],
            "orderBy": [{"column": "id", "direction": "desc"}],
            "options": {"profile": "spreadsheet", "delimiter": ";", "bom": false},
            "layout": "files", "parallelism": 2,
        });
        assert_eq!(document(&request), expected);
        // As a deletion leaves it: the operators without their values.
        let deleted = ExportRequest { filters: vec![filter(FilterOp::Less, &[])], ..request };
        assert_eq!(document(&deleted)["filters"], json!([{"column": "id", "op": "<"}]));
    }
}
