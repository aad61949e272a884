//! `POST /exports/preview`: the first rows that an export of the same body would have, with each value as the file would have it.
//! The rows are read in binary form and go through the encoder of the format, as a worker has it. Nothing is stored.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use polyglot_core::column::WireType;
use polyglot_core::mask::Mask;
use polyglot_core::order::Order;
use polyglot_core::relation::Relation;
use polyglot_core::request::ExportRequest;
use polyglot_formats::copy::{FieldIndex, Malformed, row_of_record};
use polyglot_formats::{EncodeError, Format, OutputColumn};
use polyglot_ledger::{AuditAction, AuditEvent};
use polyglot_source::mask::{MaskKey, masked_value};
use polyglot_source::sql::{fetched, order_sql, quote_identifier, quote_relation, text_form, where_sql};
use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;
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

/// Characters of a value as the file has it, unless there are so many columns that all values together would have more than
/// [`MAX_CHARACTERS_IN_ALL`]. A longer value is cut and ends with an ellipsis.
const MAX_CHARACTERS: usize = 200;
/// Characters of a value, however many columns there are.
const MIN_CHARACTERS: usize = 16;
/// Bounds the memory of a preview, with [`BYTES_PER_CHARACTER`], to a few MiB; where every value is an array of numbers, which take
/// more in binary form than as text, to some twenty. A column may be asked for many times.
const MAX_CHARACTERS_IN_ALL: usize = 512 << 10;
/// Of a value that means nothing when it is cut (JSON, an array, a number), the text may have so many bytes for each character that
/// is shown. Of a longer one the beginning of PostgreSQL's text is shown.
const BYTES_PER_CHARACTER: usize = 4;

fn max_characters(columns: usize) -> usize {
    (MAX_CHARACTERS_IN_ALL / (MAX_ROWS * columns.max(1))).clamp(MIN_CHARACTERS, MAX_CHARACTERS)
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Preview {
    columns: Vec<PreviewColumn>,
    /// Each with a value for each column as the file has it: with the quotes and escapes of a text format, and readable of a binary
    /// one. Null where the file has NULL.
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
/// Of an export of the same body, with each value as the file has it. Nothing is stored.
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
    let selection = Selection::of(&request, relation)?;
    let mut rows = app.source.first_rows(&resolved, &selection.statement(&request, relation)?).await?;
    let more = rows.len() > MAX_ROWS;
    rows.truncate(MAX_ROWS);
    let rows = selection.shown(&rows, &request, app.mask_key.as_ref())?;
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
    let masks = request.grant;
    let columns = request.columns.into_iter().map(|column| PreviewColumn {
        sql_type: relation.column(&column.source).map_or_else(String::new, |shown| match masks.mask(&column.source) {
            Some(mask) => mask.column(shown).sql_type,
            None => shown.sql_type.clone(),
        }),
        source: column.source,
        target: column.target,
    });
    Ok(Json(Preview { columns: columns.collect(), rows, more, estimated_rows }))
}

/// Has the server estimate the number of rows of the whole export.
fn explain(request: &ExportRequest, relation: &Relation) -> Result<String, RouteError> {
    Ok(format!("EXPLAIN SELECT FROM {} AS r{}", quote_relation(&relation.name), conditions(request, relation)?))
}

fn conditions(request: &ExportRequest, relation: &Relation) -> Result<String, RouteError> {
    where_sql(&request.filters, relation, "r")
        .map_err(|column| RouteError::Internal(format!("a filter of {column:?}, which was found before").into()))
}

/// What is read of each row, and what becomes of it.
struct Selection {
    format: Format,
    columns: Vec<OutputColumn>,
    /// The columns whose fields are digests, which become hashes under the key of the masks.
    digests: Vec<usize>,
    /// The selected expressions, one for each column.
    expressions: Vec<String>,
    /// Of columns whose values mean nothing when they are cut: the beginning of PostgreSQL's text of a value that is too long, for
    /// which the column's own expression is NULL.
    beginnings: Vec<(usize, String)>,
    /// Characters of a value.
    longest: usize,
}

impl Selection {
    fn of(request: &ExportRequest, relation: &Relation) -> Result<Self, RouteError> {
        let format = Format::of(request).map_err(|unknown| RouteError::Internal(unknown.into()))?;
        let longest = max_characters(request.columns.len());
        // One more, by which it shows that there is more.
        let cut = |text: &str| format!("pg_catalog.left({text}, {})", longest + 1);
        let mut selection =
            Self { format, columns: vec![], digests: vec![], expressions: vec![], beginnings: vec![], longest };
        for (at, mapping) in request.columns.iter().enumerate() {
            let source = relation.column(&mapping.source).ok_or_else(|| {
                RouteError::Internal(format!("a column {:?}, which was found before", mapping.source).into())
            })?;
            let name = format!("r.{}", quote_identifier(&source.name));
            let mask = request.grant.mask(&source.name);
            let column = mask.map_or_else(|| source.clone(), |mask| mask.column(source));
            let (wire, array, expression) = if let Some(mask) = mask {
                let masked = masked_value(&name, mask);
                (column.wire, column.array, if mask == Mask::Last4 { cut(&masked) } else { masked })
            } else {
                let (wire, array, expression) = fetched(&column, &name, format.arrays_as_text);
                let text = text_form(&name);
                let expression = match (wire, array) {
                    (WireType::Text | WireType::TextForm, None) => cut(&text),
                    (WireType::Bytea, None) => format!("pg_catalog.substring({name}, 1, {})", longest + 1),
                    (WireType::Json | WireType::Jsonb | WireType::Numeric(_), _) | (_, Some(_)) => {
                        let is_long = format!(
                            "pg_catalog.octet_length({text}) OPERATOR(pg_catalog.>) {}",
                            longest * BYTES_PER_CHARACTER
                        );
                        selection.beginnings.push((at, format!("CASE WHEN {is_long} THEN {} END", cut(&text))));
                        format!("CASE WHEN {is_long} THEN NULL ELSE {expression} END")
                    }
                    _ => expression,
                };
                (wire, array, expression)
            };
            if mask == Some(Mask::Hash) {
                selection.digests.push(at);
            }
            selection.expressions.push(expression);
            let name = mapping.target.clone();
            selection.columns.push(OutputColumn { name, wire, array, is_non_text: column.is_non_text });
        }
        Ok(selection)
    }

    /// The statement reads one row more than the preview has, to detect that there is more. A row comes as two records, because the
    /// values of a statement like this one arrive as text otherwise.
    fn statement(&self, request: &ExportRequest, relation: &Relation) -> Result<String, RouteError> {
        let beginnings: Vec<_> = self.beginnings.iter().map(|(_, beginning)| beginning.as_str()).collect();
        Ok(format!(
            "SELECT {} AS columns, {} AS beginnings FROM {} AS r{}{} LIMIT {}",
            record(&self.expressions.join(", ")),
            record(&beginnings.join(", ")),
            quote_relation(&relation.name),
            conditions(request, relation)?,
            order_sql(&Order::of(request, relation), "r"),
            MAX_ROWS + 1
        ))
    }

    /// The values as the file has them.
    fn shown(
        &self,
        rows: &[PgRow],
        request: &ExportRequest,
        key: Option<&MaskKey>,
    ) -> Result<Vec<Vec<Option<String>>>, RouteError> {
        let mut encoder = self.format.encoder(&request.options, &self.columns, 1);
        let malformed = |malformed: Malformed| RouteError::Internal(malformed.into());
        let (mut index, mut beginnings) = (FieldIndex::default(), FieldIndex::default());
        let mut shown = Vec::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            let mut columns = read_record(row, "columns")?;
            if !self.digests.is_empty() {
                let key = key
                    .ok_or_else(|| RouteError::Internal("a column is to be hashed, and there is no MASK_KEY".into()))?;
                let put_on =
                    |digest: &mut [u8]| key.put_on(digest).map_err(|_| Malformed("a masked value without its digest"));
                index.overwrite(&mut columns, self.columns.len(), &self.digests, put_on).map_err(malformed)?;
            }
            let (columns, _) = index.read(&columns, self.columns.len()).map_err(malformed)?;
            let mut values = encoder.shown(columns).map_err(|error| match error {
                EncodeError::Undecodable { .. } | EncodeError::Unrepresentable { .. } => {
                    RouteError::PreviewUnrepresentable { row: at + 1, problem: error.to_string() }
                }
                error => RouteError::Internal(error.into()),
            })?;
            let texts = read_record(row, "beginnings")?;
            let (texts, _) = beginnings.read(&texts, self.beginnings.len()).map_err(malformed)?;
            for ((column, _), text) in self.beginnings.iter().zip(texts.fields()) {
                if let Some(text) = text {
                    values[*column] = Some(String::from_utf8_lossy(text).into_owned());
                }
            }
            shown.push(values.into_iter().map(|value| value.map(|value| truncated(value, self.longest))).collect());
        }
        Ok(shown)
    }
}

/// The binary form of the values as text: as hexadecimal digits, because code of the relation could change how the server writes
/// `bytea`.
fn record(values: &str) -> String {
    format!("pg_catalog.encode(pg_catalog.record_send(ROW({values})), 'hex')")
}

/// The row of a record that is a column of the answer.
fn read_record(row: &PgRow, name: &str) -> Result<Vec<u8>, RouteError> {
    let digits: &str = row.try_get(name)?;
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let record: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    let record = record.ok_or(Malformed("hexadecimal digits that are none"));
    record.and_then(|record| row_of_record(&record)).map_err(|malformed| RouteError::Internal(malformed.into()))
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
            Selection::of(&request, &resolved.relation).unwrap().statement(&request, &resolved.relation).unwrap(),
            "SELECT pg_catalog.encode(pg_catalog.record_send(ROW(pg_catalog.left(CASE WHEN r.\"na\"\"me\" IS NOT DISTINCT FROM NULL THEN NULL ELSE \
             pg_catalog.format('%s', r.\"na\"\"me\") END, 201))), 'hex') AS columns, pg_catalog.encode(pg_catalog.record_send(ROW()), 'hex') AS beginnings \
             FROM \"public\".\"records\" AS r WHERE (r.\"id\" OPERATOR(pg_catalog.<) '1''; DROP TABLE records') \
             ORDER BY r.\"id\" LIMIT 21"
        );
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        assert_eq!(truncated("ü".repeat(200), 200), "ü".repeat(200));
        assert_eq!(truncated("ü".repeat(201), 200), format!("{}…", "ü".repeat(200)));
        assert_eq!([1, 131, 132, 1638, 100_000].map(max_characters), [200, 200, 198, 16, 16]);
    }
}
