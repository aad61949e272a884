//! `POST /exports`: the request is checked and the export is stored in the ledger, with the message for the workers. The
//! broker need not be available.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use polyglot_core::failure::chain;
use polyglot_core::status::Status;
use polyglot_ledger::{Accepted, AuditAction, AuditEvent, Reservation, ReservedKey, Submission};
use polyglot_runtime::telemetry::TraceContext;
use serde::Serialize;
use tracing::Instrument;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::Body;
use super::validate::Valid;
use super::{body, idempotency, planner_cost, validate};
use crate::identity::Caller;
use crate::openapi::submission::ExportSubmission;
use crate::problem::RouteError;
use crate::state::AppState;
use crate::tenant_limits::refused_by_ledger;
use crate::timeout;

/// The export that stands for a submission.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Submitted {
    export_id: Uuid,
    status: Status,
}

/// Header of an answer that was given before.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Submit an export.
///
/// Everything that can be checked is checked before the answer, and every mistake is named.
#[utoipa::path(
    post, path = "/exports", operation_id = "submit_export", tag = "exports",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        description = "A second request with the same key and body gets the first answer again.")),
    request_body(content = ExportSubmission, content_type = "application/json", example = json!({
        "format": "csv", "compression": "gzip",
        "columns": [{"source": "id", "target": "ID"}, {"source": "name", "target": "Name"}],
        "filters": [{"column": "created_at", "op": ">=", "value": "2026-01-01"}],
    })),
    responses(
        (status = 201, description = "It is accepted, and a worker will take it.", body = Submitted,
            headers(("Location" = String, description = "Of its state."),
                ("Idempotent-Replayed" = Option<String>, description = "`true`: the answer was given before under the key."))),
        (status = 200, description = "An identical one is under way, which is what `coalesce` asked for.", body = Submitted,
            headers(("Location" = String, description = "Of its state."))),
    ),
)]
pub(crate) async fn submit(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    mut request: Request,
) -> Result<Response, RouteError> {
    let key = idempotency::key(request.headers())?;
    // Set by `request_layer::track`.
    let origin = request.extensions_mut().remove::<TraceContext>().unwrap_or_default();
    let body = body::read(request, &app.bodies).await?;
    let Some(key) = key else { return Ok(answer(accept(&app, &caller, &body, None, &origin).await?)) };
    // In a task of its own: a client that disconnects and tries again with the key finds the answer under it.
    let accepting = accept_with_key(Arc::clone(&app), caller, key, body, origin).in_current_span();
    app.lifecycle.tasks.spawn(accepting).await.map_err(|_| RouteError::Panicked)?
}

/// Accepts the submission if the key is new, else repeats the first answer. The key of a submission that is refused is free
/// again.
async fn accept_with_key(
    app: Arc<AppState>,
    caller: Caller,
    key: String,
    body: Body,
    origin: TraceContext,
) -> Result<Response, RouteError> {
    let key = match timeout::ledger(app.ledger.reserve_key(&caller.tenant, &key, &body.text)).await? {
        Reservation::Ours(key) => key,
        Reservation::Answered(accepted) => {
            tracing::info!(export_id = %accepted.id, "submission repeated, first answer replayed");
            let mut response = answer(accepted);
            response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
            return Ok(response);
        }
        Reservation::InProgress => return Err(RouteError::KeyInProgress),
        Reservation::OtherBody => return Err(RouteError::KeyReused),
    };
    let accepted = accept(&app, &caller, &body, Some(&key), &origin).await;
    // The ledger releases the key only if no export has it: an acceptance whose result was lost keeps the key.
    if accepted.is_err()
        && let Err(error) = timeout::ledger(app.ledger.release_key(&key)).await
    {
        tracing::warn!(
            error = chain(&error),
            "an idempotency key could not be released and stays reserved for a minute"
        );
    }
    accepted.map(answer)
}

/// Validates the submission and stores the export.
async fn accept(
    app: &AppState,
    caller: &Caller,
    body: &Body,
    key: Option<&ReservedKey>,
    origin: &TraceContext,
) -> Result<Accepted, RouteError> {
    let Valid { mut request, is_private, expected_size, coalesce, .. } =
        validate::validate(body, &app.source, app.max_parallelism, caller).await?;
    app.source.check_role().await?;
    let limits = app.tenant_gate.of(&caller.tenant);
    if let Some(max) = limits.planner_cost {
        planner_cost::check(&app.source, &request, max).await?;
    }
    request.parallelism = limits.parallelism_of(request.parallelism);
    let owner = is_private.then_some(caller.name.as_str());
    let filters = serde_json::to_string(&request.filters).expect("filters are texts");
    let event = AuditEvent {
        filters: (!request.filters.is_empty()).then_some(filters.as_str()),
        ..AuditEvent::new(AuditAction::Submit, caller.audit_origin())
    };
    let submission = Submission {
        tenant: &caller.tenant,
        owner,
        limits: Some(limits),
        audit: Some(&event),
        request: &request,
        expected_size,
        key,
        join: coalesce,
        origin,
    };
    let accepted = timeout::ledger(app.ledger.accept(submission)).await.map_err(refused_by_ledger)?;
    app.relay.wake();
    tracing::info!(
        export_id = %accepted.id, dataset = request.dataset, format = request.format.as_str(), joined = accepted.joined,
        "export accepted"
    );
    Ok(accepted)
}

/// The answer: 201 for a new export, 200 for one that was already under way.
fn answer(accepted: Accepted) -> Response {
    let status = if accepted.joined { StatusCode::OK } else { StatusCode::CREATED };
    let document = Json(Submitted { export_id: accepted.id, status: accepted.status });
    (status, [(header::LOCATION, format!("/exports/{}", accepted.id))], document).into_response()
}
