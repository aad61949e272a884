//! Whether the process lives, and whether it can do its work. Metrics are not here.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{SecondsFormat, Utc};
use polyglot_export::failure::chain;
use serde_json::json;
use tokio::time::Instant;

use crate::server::App;

/// How long a server may take to show that it is there.
const CHECK: Duration = Duration::from_secs(3);

/// For how long a finding is passed on. Each check of the broker is a connection of its own.
const FRESH: Duration = Duration::from_secs(1);

/// What the last look found. Whoever holds the lock looks; the others wait for what it finds.
pub(crate) type LastReadiness = tokio::sync::Mutex<Option<(Instant, Readiness)>>;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Readiness {
    ledger: bool,
    /// `None`: there is to be none.
    broker: Option<bool>,
    bucket: bool,
}

/// `GET /health`: the process answers. It looks at nothing else, so a failure means "start it again".
pub(crate) async fn alive() -> impl IntoResponse {
    Json(json!({ "status": "ok", "timestamp": timestamp() }))
}

/// `GET /health/ready`: each server that exports need, `up` or `down`, and 503 if any is down. A broker that is not
/// configured is `none`.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let Readiness { ledger, broker, bucket } = readiness(&app).await;
    let ready = ledger && broker != Some(false) && bucket;
    let word = |up: bool| if up { "up" } else { "down" };
    let document = Json(json!({
        "status": if ready { "ready" } else { "unavailable" },
        "checks": { "ledger": word(ledger), "broker": broker.map_or("none", word), "bucket": word(bucket) },
        "timestamp": timestamp(),
    }));
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
