//! `GET /exports/{id}`: the state of one export.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use polyglot_ledger::Export;
use uuid::Uuid;

use super::document::ExportDocument;
use super::id::ExportId;
use crate::problem::RouteError;
use crate::state::AppState;
use crate::timeout;

/// Says everything about an export.
#[utoipa::path(
    get, path = "/exports/{id}", operation_id = "inspect_export", tag = "exports",
    params(("id" = Uuid, Path, description = "As POST /exports answers it.")),
    responses((status = 200, description = "Its state.", body = ExportDocument)),
)]
pub(crate) async fn inspect(
    State(app): State<Arc<AppState>>,
    ExportId(id): ExportId,
) -> Result<Json<ExportDocument>, RouteError> {
    Ok(Json(ExportDocument::now(&find(&app, id).await?)))
}

/// Finds an export; a 404 if there is none with this id.
pub(crate) async fn find(app: &AppState, id: Uuid) -> Result<Export, RouteError> {
    timeout::ledger(app.ledger.find(id)).await?.ok_or(RouteError::UnknownExport(id))
}
