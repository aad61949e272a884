//! `GET /health` and `GET /health/ready`: liveness and readiness of the process. The probes are in `readiness`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use serde::Serialize;
use utoipa::ToSchema;

use crate::readiness::Readiness;
use crate::state::AppState;
use crate::timestamp::timestamp;

/// Age up to which the results of earlier probes are answered again.
const MAX_AGE: Duration = Duration::from_secs(1);

#[derive(Serialize, ToSchema)]
pub(crate) struct Alive {
    /// `ok`
    status: &'static str,
    #[schema(format = DateTime)]
    timestamp: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Ready {
    /// `ready` or `unavailable`
    status: &'static str,
    checks: Checks,
    #[schema(format = DateTime)]
    timestamp: String,
}

/// Each `up` or `down`.
#[derive(Serialize, ToSchema)]
struct Checks {
    ledger: &'static str,
    /// `none` where the service runs without one.
    broker: &'static str,
    bucket: &'static str,
    /// As of a few seconds ago. Without the source the api stays ready. `refused`: it answers, but its role may do more than read,
    /// and exports are refused.
    source: &'static str,
}

/// Check that the process answers.
///
/// It looks at nothing else, so a failure means "start it again".
#[utoipa::path(
    get, path = "/health", operation_id = "is_alive", tag = "operation",
    responses((status = 200, description = "It does.", body = Alive)),
)]
pub(crate) async fn alive() -> Json<Alive> {
    Json(Alive { status: "ok", timestamp: timestamp(Utc::now()) })
}

/// Check the servers that exports need.
///
/// The source database is checked as well, but the answer stays 200 without it: statuses, events and finished files do not
/// need it, and every api would be taken out of service at once.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "is_ready", tag = "operation",
    responses(
        (status = 200, description = "They are, but for the source perhaps.", body = Ready),
        (status = 503, description = "One is down.", body = Ready,
            headers(("Retry-After" = u32, description = "Seconds after which to ask again."))),
    ),
)]
pub(crate) async fn ready(State(app): State<Arc<AppState>>) -> Response {
    let Readiness { ledger, broker, bucket, source, source_refused, .. } = app.readiness.check(MAX_AGE).await;
    let ready = ledger && broker != Some(false) && bucket;
    let name = |up: bool| if up { "up" } else { "down" };
    let checks = Checks {
        ledger: name(ledger),
        broker: broker.map_or("none", name),
        bucket: name(bucket),
        source: if source_refused { "refused" } else { name(source.is_some()) },
    };
    let status = if ready { "ready" } else { "unavailable" };
    let document = Json(Ready { status, checks, timestamp: timestamp(Utc::now()) });
    if ready {
        document.into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], document).into_response()
    }
}
