//! `GET /datasets` and `GET /datasets/{name}`: the datasets that can be exported, with their columns, the columns' types, and
//! the type of each column in every format.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use polyglot_core::column::Column;
use polyglot_core::format_options::FormatOptions;
use polyglot_core::mask::Mask;
use polyglot_core::selection::{FilterOp, OrderKey};
use polyglot_formats::Format;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::exports::filters::{operators, path_operators};
use crate::identity::Caller;
use crate::problem::RouteError;
use crate::resolved_dataset::ResolvedDataset;
use crate::source::CACHE_MAX_AGE;
use crate::state::AppState;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DatasetList {
    datasets: Vec<DatasetDocument>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Dataset)]
pub(crate) struct DatasetDocument {
    name: String,
    relation: String,
    kind: &'static str,
    /// Null until the relation was analyzed, for views, and where only some of the rows are this client's.
    estimated_rows: Option<u64>,
    /// Whether another session of the source database keeps everybody from reading it at the moment. Exports of it are refused
    /// until that has ended (`dataset-locked`).
    locked: bool,
    /// Empty where there is none.
    primary_key: Vec<String>,
    /// Of an export that asks for none.
    default_order: Vec<OrderKey>,
    /// Whether that order tells any two rows apart.
    order_promised: bool,
    columns: Vec<ColumnDocument>,
    links: Links,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DatasetColumn)]
struct ColumnDocument {
    name: String,
    #[serde(rename = "type")]
    sql_type: String,
    nullable: bool,
    /// The operators of filters on the column itself. Empty: its values are masked, and rows can neither be filtered nor sorted by it.
    /// Of types that the service does not know PostgreSQL may have fewer.
    #[schema(value_type = Vec<String>)]
    operators: &'static [FilterOp],
    /// The operators of filters with a `path`, which says where in the column's document the compared value is. Empty: the column takes
    /// no path.
    #[schema(value_type = Vec<String>)]
    path_operators: &'static [FilterOp],
    /// Its type in a file of each format, without options.
    #[schema(value_type = Object)]
    becomes: Map<String, Value>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DatasetLinks)]
struct Links {
    #[serde(rename = "self")]
    itself: String,
}

/// List datasets.
#[utoipa::path(
    get, path = "/datasets", operation_id = "list_datasets", tag = "datasets",
    responses((status = 200, description = "Everything that can be exported at the moment.", body = DatasetList)),
)]
pub(crate) async fn list(State(app): State<Arc<AppState>>, caller: Caller) -> Result<Response, RouteError> {
    // One at a time: a schema may have thousands of tables, and their list takes tens of MiB while it is made.
    let _permit = app.source.list_permit().await?;
    let datasets = app.source.list().await?;
    let visible = datasets.iter().filter(|resolved| resolved.dataset.policy.admits(&caller.tenant));
    Ok(Json(DatasetList { datasets: visible.map(DatasetDocument::of).collect() }).into_response())
}

/// Get a dataset.
#[utoipa::path(
    get, path = "/datasets/{name}", operation_id = "inspect_dataset", tag = "datasets",
    params(("name" = String, Path, description = "As GET /datasets lists it.")),
    responses((status = 200, description = "Its columns, and what they become in each format.", body = DatasetDocument)),
)]
pub(crate) async fn inspect(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<DatasetDocument>, RouteError> {
    let Ok(Path(name)) = name else {
        return Err(RouteError::invalid("name", "expected the name of a dataset, percent-encoded UTF-8"));
    };
    let meant = encoded_dots(&name).unwrap_or(&name);
    if app.source.is_hidden(&name, &caller.tenant) || app.source.is_hidden(meant, &caller.tenant) {
        return Err(RouteError::UnknownDataset(name));
    }
    let mut resolved = app.source.resolve(&name, CACHE_MAX_AGE).await?;
    if let (None, Some(dots)) = (&resolved, encoded_dots(&name)) {
        resolved = app.source.resolve(dots, CACHE_MAX_AGE).await?;
    }
    match resolved {
        Some(resolved) => Ok(Json(DatasetDocument::of(&resolved))),
        None => Err(RouteError::UnknownDataset(name)),
    }
}

impl DatasetDocument {
    fn of(resolved: &ResolvedDataset) -> Self {
        let (default_order, order_promised) = resolved.default_order();
        Self {
            name: resolved.dataset.name.clone(),
            relation: resolved.relation.name.to_string(),
            kind: resolved.relation.kind.name(),
            // How many there are of other tenants is not this one's business.
            estimated_rows: resolved.relation.estimated_rows.filter(|_| !resolved.dataset.policy.limits_rows()),
            locked: resolved.relation.locked,
            primary_key: resolved.primary_key().to_vec(),
            default_order,
            order_promised,
            columns: resolved.columns().map(|column| ColumnDocument::of(column, resolved.mask(&column.name))).collect(),
            links: Links { itself: format!("/datasets/{}", path_segment(&resolved.dataset.name)) },
        }
    }
}

impl ColumnDocument {
    fn of(column: &Column, mask: Option<Mask>) -> Self {
        let Some(mask) = mask else { return Self::unmasked(column) };
        Self { operators: &[], path_operators: &[], ..Self::unmasked(&mask.column(column)) }
    }

    fn unmasked(column: &Column) -> Self {
        let options = FormatOptions::default();
        let becomes = |format: Format| (format.name.to_owned(), format.output_type(column, &options).into());
        Self {
            name: column.name.clone(),
            sql_type: column.sql_type.clone(),
            nullable: column.nullable,
            operators: operators(column),
            path_operators: path_operators(column),
            becomes: Format::all().map(becomes).collect(),
        }
    }
}

/// The name that is meant by a percent-encoded one. Clients take the segments `.` and `..` out of a URL, percent-encoded or not (the
/// URL Standard calls them single-dot and double-dot segments), so these two names are encoded twice in links.
fn encoded_dots(name: &str) -> Option<&'static str> {
    match name {
        "%2E" => Some("."),
        "%2E%2E" => Some(".."),
        _ => None,
    }
}

/// A name as one segment of a URL's path (RFC 3986, section 2.3).
fn path_segment(name: &str) -> String {
    if matches!(name, "." | "..") {
        return name.replace('.', "%252E");
    }
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use crate::dataset_config::Dataset;
    use polyglot_core::column::{ArrayType, WireType};
    use polyglot_core::relation::RelationName;
    use serde_json::json;

    use super::*;
    use crate::dataset_policy::DatasetPolicy;
    use crate::resolved_dataset::tests::{column, relation};

    #[test]
    fn the_document_says_everything() {
        let tags = Column {
            array: Some(ArrayType { dimensions: 1, delimiter: b',' }),
            ..column("tags", "text[]", WireType::Text)
        };
        let columns = vec![
            Column { nullable: false, ..column("id", "bigint", WireType::Int8) },
            tags,
            column("secret", "text", WireType::Text),
        ];
        let dataset = Dataset {
            name: "my/orders".to_owned(),
            relation: RelationName { schema: "shop".to_owned(), name: "orders".to_owned() },
            columns: Some(vec!["tags".to_owned(), "id".to_owned()]),
            order_by: vec![OrderKey::ascending("tags")],
            policy: DatasetPolicy::default(),
        };
        let mut relation = relation(columns, &["id"]);
        relation.name = dataset.relation.clone();
        let document = DatasetDocument::of(&ResolvedDataset::new(dataset, relation).unwrap());
        let comparisons = json!(["=", "!=", "<", "<=", ">", ">=", "in", "is_null", "is_not_null"]);
        let expected = json!({
            "name": "my/orders", "relation": "shop.orders", "kind": "table", "estimatedRows": 1000,
            "locked": false, "primaryKey": ["id"],
            "defaultOrder": [{"column": "tags", "direction": "asc"}, {"column": "id", "direction": "asc"}],
            "orderPromised": true,
            "columns": [
                {"name": "id", "type": "bigint", "nullable": false, "operators": comparisons, "pathOperators": [], "becomes": {
                    "csv": "integer", "json": "integer", "jsonl": "integer", "xml": "integer", "parquet": "INT64", "arrow": "int64"}},
                {"name": "tags", "type": "text[]", "nullable": true, "operators": comparisons, "pathOperators": [], "becomes": {
                    "csv": "text", "json": "array of string", "jsonl": "array of string",
                    "xml": "elements <item> of text", "parquet": "LIST<STRING>", "arrow": "list<utf8>"}},
            ],
            "links": {"self": "/datasets/my%2Forders"},
        });
        assert_eq!(serde_json::to_value(document).unwrap(), expected);
    }

    #[test]
    fn a_name_is_one_segment() {
        assert_eq!(path_segment("orders_2-a.b~"), "orders_2-a.b~");
        // What a client makes of `/datasets/..` is `/`.
        assert_eq!(path_segment(".."), "%252E%252E");
        assert_eq!(path_segment("."), "%252E");
        assert_eq!(path_segment("..."), "...");
        assert_eq!((encoded_dots("%2E%2E"), encoded_dots("%2E"), encoded_dots("..")), (Some(".."), Some("."), None));
        assert_eq!(path_segment("a b/\"ü?"), "a%20b%2F%22%C3%BC%3F");
    }
}
