//! `GET /exports/{id}`: the state of one export, and the request that it was made for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use polyglot_core::failure::chain;
use polyglot_ledger::Export;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::document::ExportDocument;
use super::id::ExportId;
use super::request_document;
use crate::identity::Caller;
use crate::openapi::submission::ExportSubmission;
use crate::problem::RouteError;
use crate::state::AppState;
use crate::timeout;

/// An export, as far as it is, and its request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InspectedExport {
    #[serde(flatten)]
    export: ExportDocument,
    /// The body of `POST /exports` that asks for the same; members that have their default are left out. Once the export is
    /// cancelled or deleted by `DELETE`, its filters have no values. Null if this version of the service cannot read the request.
    #[schema(value_type = Option<ExportSubmission>)]
    request: Option<Value>,
}

/// Get an export.
#[utoipa::path(
    get, path = "/exports/{id}", operation_id = "inspect_export", tag = "exports",
    params(("id" = Uuid, Path, description = "As POST /exports answers it.")),
    responses((status = 200, description = "Its state, and its request.", body = InspectedExport)),
)]
pub(crate) async fn inspect(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    ExportId(id): ExportId,
) -> Result<Json<InspectedExport>, RouteError> {
    let found = timeout::ledger(caller.view(&app.ledger).find_with_request(id)).await?;
    let (export, request) = found.ok_or(RouteError::UnknownExport(id))?;
    // Written by a newer version: the state is still worth an answer.
    let request = request.inspect_err(|error| tracing::warn!(error = chain(error), "a request cannot be shown")).ok();
    let request = request.as_ref().map(request_document::document);
    Ok(Json(InspectedExport { export: ExportDocument::now(&export), request }))
}

/// Finds an export that the caller may see; a 404 if there is none with this id.
pub(crate) async fn find(app: &AppState, caller: &Caller, id: Uuid) -> Result<Export, RouteError> {
    timeout::ledger(caller.view(&app.ledger).find(id)).await?.ok_or(RouteError::UnknownExport(id))
}
