//! `POST /exports`: everything that can be checked is checked, then the export is in the ledger and a worker
//! will hear of it, whether or not the broker is up.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use polyglot_export::status::Status;
use serde_json::json;

use super::{TENANT, body, validate};
use crate::patience;
use crate::problem::RouteError;
use crate::server::App;

pub(crate) async fn submit(State(app): State<Arc<App>>, request: Request) -> Result<impl IntoResponse, RouteError> {
    let body = body::read(request).await?;
    let request = validate::validate(&body, &app.source).await?;
    let id = patience::ledger(app.ledger.submit(TENANT, &request)).await?;
    app.relay.wake();
    tracing::info!(export_id = %id, dataset = request.dataset, format = request.format.name(), "export accepted");
    let answer = Json(json!({ "exportId": id, "status": Status::Pending }));
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("/exports/{id}"))], answer))
}
