//! `GET /audit`: what was done with the service, as JSON lines. Handlers record what they do through [`record`], before they do
//! it: what cannot be recorded is refused.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::response::IntoResponse;
use polyglot_ledger::{AuditAction, AuditEntry, AuditEvent, Export};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::identity::Caller;
use crate::problem::RouteError;
use crate::query::Parameters;
use crate::state::AppState;
use crate::timeout;
use crate::timestamp::timestamp;

/// Lines of an answer, which is some hundred KiB, about as much as a page of the list of exports.
const MAX_LIMIT: u64 = 1000;

/// A line of the audit.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditLine {
    /// Grows.
    id: i64,
    at: String,
    /// `export.submit`, `export.preview`, `export.download`, `export.manifest`, `export.delete`, `session.create`,
    /// `session.delete`, `key.create`, `key.rotate`, `key.revoke` or `request.refuse`.
    action: String,
    tenant: Option<String>,
    /// The name of the key, or the subject of the token.
    caller: Option<String>,
    /// From where; of IPv6 the first 64 bits.
    address: Option<String>,
    request_id: Option<String>,
    export_id: Option<Uuid>,
    dataset: Option<String>,
    rows: Option<i64>,
    bytes: Option<i64>,
    /// Equal where the filters were.
    filters_hash: Option<String>,
    detail: Option<String>,
}

impl From<AuditEntry> for AuditLine {
    fn from(entry: AuditEntry) -> Self {
        Self {
            id: entry.id,
            at: timestamp(entry.at),
            action: entry.action,
            tenant: entry.tenant,
            caller: entry.caller,
            address: entry.address,
            request_id: entry.request_id,
            export_id: entry.export_id,
            dataset: entry.dataset,
            rows: entry.rows,
            bytes: entry.bytes,
            filters_hash: entry.filters_hash,
            detail: entry.detail,
        }
    }
}

/// Read the audit.
///
/// What was done with the service for the caller's tenant, oldest first, as JSON lines. The next page begins after the last `id`.
#[utoipa::path(
    get, path = "/audit", operation_id = "read_audit", tag = "operation",
    params(
        ("after" = Option<i64>, Query, minimum = 0, description = "Only lines after this one; 0 unless told."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "Lines at most; 1000 unless told."),
    ),
    responses((status = 200, description = "The lines.", content_type = "application/x-ndjson", body = AuditLine)),
)]
pub(crate) async fn read(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    uri: Uri,
) -> Result<impl IntoResponse, RouteError> {
    let parameters = Parameters::read(&uri, &["after", "limit"])?;
    let after = parameters.number("after", 0..=i64::MAX.unsigned_abs())?.unwrap_or(0);
    let limit = parameters.number("limit", 1..=MAX_LIMIT)?.unwrap_or(MAX_LIMIT);
    let (after, limit) = (i64::try_from(after).unwrap_or(i64::MAX), i64::try_from(limit).unwrap_or(i64::MAX));
    let entries = timeout::ledger(app.ledger.audit(&caller.visible_tenants, after, limit)).await?;
    let mut lines = String::new();
    for entry in entries {
        let line = serde_json::to_string(&AuditLine::from(entry)).expect("a struct of texts and numbers serializes");
        lines.push_str(&line);
        lines.push('\n');
    }
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))], lines))
}

/// Records what is about to be done, and logs it.
///
/// # Errors
/// When it cannot be recorded; then it is not to be done.
pub(crate) async fn record(app: &AppState, event: AuditEvent<'_>) -> Result<(), RouteError> {
    timeout::ledger(app.ledger.record(&event)).await?;
    log(&event);
    Ok(())
}

/// What was done with an export.
pub(crate) fn of_export<'a>(action: AuditAction, caller: &'a Caller, export: &'a Export) -> AuditEvent<'a> {
    AuditEvent {
        export_id: Some(export.id),
        dataset: Some(&export.dataset),
        rows: Some(export.rows),
        bytes: Some(export.bytes),
        ..AuditEvent::new(action, caller.audit_origin())
    }
}

/// The line of the log for what was recorded.
fn log(event: &AuditEvent<'_>) {
    tracing::info!(
        action = event.action.name(),
        address = event.origin.address,
        export_id = event.export_id.map(tracing::field::display),
        dataset = event.dataset,
        detail = event.detail,
        "audit"
    );
}
