//! `DELETE /exports/{id}`: cancels an export that is under way, deletes the file of one that has ended.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use polyglot_ledger::{AuditAction, AuditEvent, Deletion};

use super::document::ExportDocument;
use super::id::ExportId;
use super::inspect::find;
use crate::identity::Caller;
use crate::problem::RouteError;
use crate::state::AppState;
use crate::timeout;

/// Cancel an export, or delete its file.
///
/// The values of its filters are removed from what is kept of it. Safe to repeat.
#[utoipa::path(
    delete, path = "/exports/{id}", operation_id = "delete_export", tag = "exports",
    params(("id" = Uuid, Path, description = "As POST /exports answers it.")),
    responses(
        (status = 202, description = "It was not finished, and will be cancelled.", body = ExportDocument),
        (status = 204, description = "It had ended, and has no file any more."),
    ),
)]
pub(crate) async fn delete(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    ExportId(id): ExportId,
) -> Result<Response, RouteError> {
    let event = AuditEvent::new(AuditAction::Delete, caller.audit_origin());
    match timeout::ledger(caller.view(&app.ledger).delete(id, &event)).await? {
        Deletion::Unknown => Err(RouteError::UnknownExport(id)),
        Deletion::Cancelling => {
            tracing::info!(export_id = %id, "cancellation requested");
            Ok((StatusCode::ACCEPTED, Json(ExportDocument::now(&find(&app, &caller, id).await?))).into_response())
        }
        Deletion::Ended { object_key } => {
            if let Some(key) = object_key {
                // The ledger no longer lets anyone download the file. If the object store fails now, a repeated DELETE or
                // the sweeper deletes the object later.
                timeout::store(app.storage.delete_result(&key)).await?;
                timeout::ledger(app.ledger.object_deleted(id)).await?;
                tracing::info!(export_id = %id, "file deleted");
            }
            Ok(StatusCode::NO_CONTENT.into_response())
        }
    }
}
