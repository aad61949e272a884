//! `POST /exports/preview`: the first rows that an export of the same body would have, for people to look at. Values are in
//! PostgreSQL's text form, not in that of a format. Nothing is stored.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use polyglot_core::mask::Mask;
use polyglot_core::order::Order;
use polyglot_core::relation::Relation;
use polyglot_core::request::ExportRequest;
use polyglot_ledger::{AuditAction, AuditEvent};
use polyglot_source::mask::{MaskKey, masked_value};
use polyglot_source::sql::{order_sql, text_form, where_sql};
use polyglot_source::sql::{quote_identifier, quote_relation};
use serde::Serialize;
use utoipa::ToSchema;

use super::validate::Valid;
use super::{body, validate};
use crate::audit;
use crate::identity::Caller;
use crate::openapi::submission::ExportSubmission;
use crate::problem::RouteError;
use crate::source::CACHE_MAX_AGE;
use crate::state::AppState;
use crate::timeout;

/// Rows of a preview.
const MAX_ROWS: usize = 20;

/// Characters of a value, unless there are so many columns that all values together would have more than
/// [`MAX_CHARACTERS_IN_ALL`]. A longer value is cut and ends with an ellipsis.
const MAX_CHARACTERS: usize = 200;
/// Characters of a value, however many columns there are.
const MIN_CHARACTERS: usize = 16;
/// Bounds the memory of a preview to a few MiB. A column may be asked for many times.
const MAX_CHARACTERS_IN_ALL: usize = 512 << 10;

fn max_characters(columns: usize) -> usize {
    (MAX_CHARACTERS_IN_ALL / (MAX_ROWS * columns.max(1))).clamp(MIN_CHARACTERS, MAX_CHARACTERS)
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Preview {
    columns: Vec<PreviewColumn>,
    /// Each with a value for each column, which is null where the column is NULL.
    rows: Vec<Vec<Option<String>>>,
    /// There are rows behind these.
    more: bool,
    /// How many rows the filters match, as PostgreSQL estimates from its statistics. Null: it gives no estimate, or only some of the
    /// rows are this client's.
    estimated_rows: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct PreviewColumn {
    source: String,
    target: String,
    /// PostgreSQL's name.
    #[serde(rename = "type")]
    sql_type: String,
}

/// Preview the first rows.
///
/// Of an export of the same body, as PostgreSQL writes values. Nothing is stored.
#[utoipa::path(
    post, path = "/exports/preview", operation_id = "preview_export", tag = "exports",
    request_body(content = ExportSubmission, content_type = "application/json", example = json!({
        "format": "csv", "columns": [{"source": "id", "target": "ID"}, {"source": "name", "target": "Name"}],
    })),
    responses((status = 200, description = "At most 20 rows; of a value at most 200 characters, and fewer from 132 columns on.", body = Preview)),
)]
pub(crate) async fn preview(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    request: Request,
) -> Result<Json<Preview>, RouteError> {
    let body = body::read(request, &app.bodies).await?;
    let Valid { request, estimate, .. } = validate::validate(&body, &app.source, app.max_parallelism, &caller).await?;
    let resolved = app.source.resolve_readable(&request.dataset, CACHE_MAX_AGE).await?;
    // The dataset existed during the validation.
    let resolved = resolved.ok_or_else(|| RouteError::UnknownDataset(request.dataset.clone()))?;
    app.source.check_role().await?;
    let event = AuditEvent::new(AuditAction::Preview, caller.audit_origin());
    audit::record(&app, AuditEvent { dataset: Some(&request.dataset), ..event }).await?;
    let relation = &resolved.relation;
    let mut rows = app.source.first_rows(&resolved, &statement(&request, relation)?).await?;
    put_key_on(&mut rows, &request, app.mask_key.as_ref())?;
    let estimated_rows = match estimate.rows {
        // The statistics are of all rows, and would tell of those of others.
        _ if request.policy_filters > 0 || request.grant.role.is_some() => None,
        Some(rows) => Some(rows),
        // The validation asks the server only where a filter or an order depends on a type.
        None => {
            let explain = explain(&request, relation)?;
            timeout::source(app.source.plan(&resolved, &explain)).await?.unwrap_or_default().rows
        }
    };
    let more = rows.len() > MAX_ROWS;
    let longest = max_characters(request.columns.len());
    let rows = rows.into_iter().take(MAX_ROWS);
    let masks = request.grant;
    let columns = request.columns.into_iter().map(|column| PreviewColumn {
        sql_type: relation.column(&column.source).map_or_else(String::new, |shown| match masks.mask(&column.source) {
            Some(mask) => mask.column(shown).sql_type,
            None => shown.sql_type.clone(),
        }),
        source: column.source,
        target: column.target,
    });
    Ok(Json(Preview {
        columns: columns.collect(),
        rows: rows
            .map(|row| row.into_iter().map(|value| value.map(|value| truncated(value, longest))).collect())
            .collect(),
        more,
        estimated_rows,
    }))
}

/// Has the server estimate the number of rows of the whole export.
fn explain(request: &ExportRequest, relation: &Relation) -> Result<String, RouteError> {
    Ok(format!("EXPLAIN SELECT FROM {} AS r{}", quote_relation(&relation.name), conditions(request, relation)?))
}

fn conditions(request: &ExportRequest, relation: &Relation) -> Result<String, RouteError> {
    where_sql(&request.filters, relation, "r")
        .map_err(|column| RouteError::Internal(format!("a filter of {column:?}, which was found before").into()))
}

/// The statement reads one row more than the preview has, and one character more of each value, to detect that there is more.
fn statement(request: &ExportRequest, relation: &Relation) -> Result<String, RouteError> {
    let characters = max_characters(request.columns.len()) + 1;
    let value = |source: &str| {
        let name = format!("r.{}", quote_identifier(source));
        match request.grant.mask(source) {
            Some(mask @ Mask::Last4) => return format!("pg_catalog.left({}, {characters})", masked_value(&name, mask)),
            // All of the digest, for the key is put on all of it.
            Some(mask) => return format!("{}::pg_catalog.text", masked_value(&name, mask)),
            None => {}
        }
        let is_built_in = relation.column(source).is_some_and(|column| column.type_names.is_built_in());
        // A cast of a type that PostgreSQL has built in is its own. The owner of another type may have created a cast.
        let text = if is_built_in { format!("{name}::pg_catalog.text") } else { text_form(&name) };
        format!("pg_catalog.left({text}, {characters})")
    };
    let values: Vec<_> = request.columns.iter().map(|column| value(&column.source)).collect();
    Ok(format!(
        "SELECT {} FROM {} AS r{}{} LIMIT {}",
        values.join(", "),
        quote_relation(&relation.name),
        conditions(request, relation)?,
        order_sql(&Order::of(request, relation), "r"),
        MAX_ROWS + 1
    ))
}

/// Makes the masked values of the digests that the server has sent.
fn put_key_on(
    rows: &mut [Vec<Option<String>>],
    request: &ExportRequest,
    key: Option<&MaskKey>,
) -> Result<(), RouteError> {
    for (at, column) in request.columns.iter().enumerate() {
        if request.grant.mask(&column.source) != Some(Mask::Hash) {
            continue;
        }
        let key =
            key.ok_or_else(|| RouteError::Internal("a column is to be hashed, and there is no MASK_KEY".into()))?;
        for value in rows.iter_mut().filter_map(|row| row.get_mut(at)?.as_mut()) {
            *value = key.masked(value).map_err(|error| RouteError::Internal(error.into()))?;
        }
    }
    Ok(())
}

fn truncated(mut value: String, characters: usize) -> String {
    if let Some((end, _)) = value.char_indices().nth(characters) {
        value.truncate(end);
        value.push('…');
    }
    value
}

#[cfg(test)]
mod tests {
    use polyglot_core::request::ColumnMapping;
    use polyglot_core::selection::{Filter, FilterOp};

    use super::*;
    use crate::resolved_dataset::tests::records;

    #[test]
    fn the_statement_names_nothing_but_quoted_columns_and_values() {
        let resolved = records(&["id", "na\"me"]);
        let columns = vec![ColumnMapping { source: "na\"me".to_owned(), target: "'; DROP".to_owned() }];
        let filter = Filter {
            column: "id".to_owned(),
            path: Vec::new(),
            op: FilterOp::Less,
            values: vec!["1'; DROP TABLE records".to_owned()],
        };
        let request = ExportRequest { filters: vec![filter], ..resolved.request("csv", columns) };
        assert_eq!(
            statement(&request, &resolved.relation).unwrap(),
            "SELECT pg_catalog.left(r.\"na\"\"me\"::pg_catalog.text, 201) FROM \"public\".\"records\" AS r \
             WHERE (r.\"id\" OPERATOR(pg_catalog.<) '1''; DROP TABLE records') ORDER BY r.\"id\" LIMIT 21"
        );
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        assert_eq!(truncated("ü".repeat(200), 200), "ü".repeat(200));
        assert_eq!(truncated("ü".repeat(201), 200), format!("{}…", "ü".repeat(200)));
        assert_eq!([1, 131, 132, 1638, 100_000].map(max_characters), [200, 200, 198, 16, 16]);
    }
}
