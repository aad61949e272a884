//! Whether the process lives, and whether it can do its work. Its numbers are in `metrics`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{SecondsFormat, Utc};
use polyglot_core::failure::chain;
use polyglot_ledger::queue::Depths;
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
    pub(crate) ledger: bool,
    /// `None`: there is to be none.
    pub(crate) broker: Option<bool>,
    pub(crate) bucket: bool,
    /// What waits in the broker's queues, if it answered.
    pub(crate) depths: Option<Depths>,
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
    let Readiness { ledger, broker, bucket, .. } = readiness(&app, FRESH).await;
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

/// As it was at most `fresh` ago.
pub(crate) async fn readiness(app: &App, fresh: Duration) -> Readiness {
    let mut last = app.readiness.lock().await;
    if let Some((at, found)) = *last
        && at.elapsed() < fresh
    {
        return found;
    }
    let broker = async {
        match &app.broker {
            Some(broker) => Some(look("broker", broker.check()).await),
            None => None,
        }
    };
    let (ledger, broker, bucket) =
        tokio::join!(look("ledger", app.ledger.ping()), broker, look("bucket", app.storage.check()));
    let found = Readiness {
        ledger: ledger.is_some(),
        broker: broker.map(|depths| depths.is_some()),
        bucket: bucket.is_some(),
        depths: broker.flatten(),
    };
    *last = Some((Instant::now(), found));
    found
}

/// What the server answers; `None`, and a line in the log, if it does not.
async fn look<T, E>(what: &'static str, check: impl Future<Output = Result<T, E>>) -> Option<T>
where
    E: std::error::Error + 'static,
{
    match tokio::time::timeout(CHECK, check).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::warn!(what, error = chain(&error), "not ready");
            None
        }
        Err(_) => {
            tracing::warn!(what, "not ready: no answer");
            None
        }
    }
}

fn timestamp() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}
