//! Whether the process lives, and whether it can do its work. Metrics are not here.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{SecondsFormat, Utc};
use polyglot_export::failure::chain;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::server::App;

/// How long a server may take to show that it is there.
const CHECK: Duration = Duration::from_secs(3);

/// For how long a finding is passed on. Each check of the broker is a connection of its own.
const FRESH: Duration = Duration::from_secs(1);

/// What the last look found. Whoever holds the lock looks; the others wait for what it finds.
pub(crate) type LastReadiness = tokio::sync::Mutex<Option<(Instant, Readiness)>>;

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
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Readiness {
    ledger: bool,
    /// `None`: there is to be none.
    broker: Option<bool>,
    bucket: bool,
}

/// Says that the process answers.
///
/// It looks at nothing else, so a failure means "start it again".
#[utoipa::path(
    get, path = "/health", operation_id = "is_alive", tag = "operation",
    responses((status = 200, description = "It does.", body = Alive)),
)]
pub(crate) async fn alive() -> Json<Alive> {
    Json(Alive { status: "ok", timestamp: timestamp() })
}

/// Says whether the servers are there that exports need.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "is_ready", tag = "operation",
    responses(
        (status = 200, description = "They are.", body = Ready),
        (status = 503, description = "One is down.", body = Ready,
            headers(("Retry-After" = u32, description = "Seconds after which to ask again."))),
    ),
)]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let Readiness { ledger, broker, bucket } = readiness(&app).await;
    let ready = ledger && broker != Some(false) && bucket;
    let word = |up: bool| if up { "up" } else { "down" };
    let checks = Checks { ledger: word(ledger), broker: broker.map_or("none", word), bucket: word(bucket) };
    let status = if ready { "ready" } else { "unavailable" };
    let document = Json(Ready { status, checks, timestamp: timestamp() });
    if ready {
        document.into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], document).into_response()
    }
}

async fn readiness(app: &App) -> Readiness {
    let mut last = app.readiness.lock().await;
    if let Some((at, found)) = *last
        && at.elapsed() < FRESH
    {
        return found;
    }
    let broker = async {
        match &app.broker {
            Some(broker) => Some(up("broker", broker.check()).await),
            None => None,
        }
    };
    let (ledger, broker, bucket) =
        tokio::join!(up("ledger", app.ledger.ping()), broker, up("bucket", app.storage.check()),);
    let found = Readiness { ledger, broker, bucket };
    *last = Some((Instant::now(), found));
    found
}

async fn up<E: std::error::Error + 'static>(what: &'static str, check: impl Future<Output = Result<(), E>>) -> bool {
    match tokio::time::timeout(CHECK, check).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(what, error = chain(&error), "not ready");
            false
        }
        Err(_) => {
            tracing::warn!(what, "not ready: no answer");
            false
        }
    }
}

fn timestamp() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}
