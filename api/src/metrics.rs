//! `GET /metrics`: what the api has counted, and what it looks up when it is asked. Each look has a time limit and is kept for
//! a moment; a server that is away leaves its numbers out, and the answer is 200 all the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use polyglot_core::failure::chain;
use polyglot_ledger::{Ended, Waits, in_time};
use polyglot_runtime::telemetry::{METRICS_CONTENT_TYPE, Page, Recorder};
use tokio::time::{Instant, timeout};

use crate::health::{self, Readiness};
use crate::server::App;

/// The age up to which a number is as good as a new one: several may ask, and each look costs the servers something.
const FRESH: Duration = Duration::from_secs(5);
/// How long the ledger may take for its part.
const LEDGER: Duration = Duration::from_millis(2500);
/// The longest that a count may take, with some room.
const COUNT: Duration = Duration::from_secs(20);
/// How long the very first answer waits for exports that have ended.
const FIRST: Duration = Duration::from_secs(1);

/// Of the time between two counts of what has ended, counting takes at most the hundredth part: there is an index, but it has
/// every export that there ever was.
const PAUSES: u32 = 100;

/// What is kept between two scrapes.
pub(crate) struct Metrics {
    recorder: Recorder,
    /// Whoever holds the lock looks; the others wait for what it finds.
    waits: tokio::sync::Mutex<Option<(Instant, Option<Waits>)>>,
    ended: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    ended: Option<Ended>,
    /// Not before; `None`: at once.
    next: Option<Instant>,
}

impl Metrics {
    pub(crate) fn new(recorder: Recorder) -> Self {
        Self { recorder, waits: tokio::sync::Mutex::default(), ended: Mutex::default() }
    }
}

/// What the process has counted, for Prometheus.
///
/// With what it looks up when it is asked; a server that is away leaves its numbers out.
#[utoipa::path(
    get, path = "/metrics", operation_id = "scrape_metrics", tag = "operation",
    responses((status = 200, description = "The text format, version 0.0.4.", content_type = "text/plain", body = String)),
)]
pub(crate) async fn scrape(State(app): State<Arc<App>>) -> Response {
    let (readiness, waits, ended) = tokio::join!(health::readiness(&app, FRESH), waits(&app), ended(&app));
    // What was counted minutes ago is not passed on while the ledger is away.
    let ended = ended.filter(|_| waits.is_some());
    let mut page = Page::default();
    let exports = waits.iter().flat_map(|waits| &waits.active).chain(ended.iter().flatten());
    for (status, count) in exports {
        page.write("polyglot_exports", &[("state", status.name())], number(*count));
    }
    if let Some(waits) = &waits {
        page.write("polyglot_outbox_messages", &[], number(waits.outbox));
        page.write("polyglot_ready_exports", &[], number(waits.ready));
        page.write("polyglot_ready_oldest_seconds", &[], waits.ready_for_seconds);
    }
    let Readiness { ledger, broker, bucket, depths } = readiness;
    if let Some(depths) = depths {
        for (queue, messages) in [("tokens", depths.tokens), ("dead", depths.dead)] {
            page.write("polyglot_queue_messages", &[("queue", queue)], messages.into());
        }
    }
    for (dependency, up) in [("ledger", Some(ledger)), ("broker", broker), ("bucket", Some(bucket))] {
        if let Some(up) = up {
            page.write("polyglot_up", &[("dependency", dependency)], f64::from(u8::from(up)));
        }
    }
    page.pools(&[("ledger", app.ledger.connections()), ("source", app.source.connections())]);
    ([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], app.metrics.recorder.render(page)).into_response()
}

/// Exports by the billion are none.
fn number(count: i64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

async fn waits(app: &App) -> Option<Waits> {
    let mut kept = app.metrics.waits.lock().await;
    if let Some((at, found)) = &*kept
        && at.elapsed() < FRESH
    {
        return found.clone();
    }
    let found = match timeout(LEDGER, Box::pin(app.ledger.waits())).await {
        Ok(Ok(waits)) => Some(waits),
        // That the ledger is away is said by the look at its readiness.
        Ok(Err(error)) => {
            tracing::debug!(error = chain(&error), "what waits cannot be counted");
            None
        }
        Err(_) => None,
    };
    *kept = Some((Instant::now(), found.clone()));
    found
}

/// What was counted last; a count that is due goes on behind the answer.
async fn ended(app: &Arc<App>) -> Option<Ended> {
    let counting = {
        let mut counted = app.metrics.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.next.is_some_and(|next| Instant::now() < next) {
            return counted.ended.clone();
        }
        // Until the count says; it has a time limit of its own.
        counted.next = Some(Instant::now() + COUNT);
        let counting = app.lifecycle.tasks.spawn(count(Arc::clone(app)));
        if counted.ended.is_some() {
            return counted.ended.clone();
        }
        counting
    };
    timeout(FIRST, counting).await.ok();
    app.metrics.ended.lock().unwrap_or_else(PoisonError::into_inner).ended.clone()
}

async fn count(app: Arc<App>) {
    let began = Instant::now();
    let found = in_time(app.ledger.ended()).await;
    // A count that fails has cost as much as one that does not.
    let next = Some(Instant::now() + (began.elapsed() * PAUSES).max(FRESH));
    let mut counted = app.metrics.ended.lock().unwrap_or_else(PoisonError::into_inner);
    match found {
        Ok(ended) => *counted = Counted { ended: Some(ended), next },
        Err(error) => {
            counted.next = next;
            tracing::warn!(error = chain(&error), "exports that have ended cannot be counted");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt;

    use super::*;
    use crate::server::router;
    use crate::server::tests::lonely;

    #[tokio::test]
    async fn a_scrape_is_answered_when_every_server_is_away() {
        let app = Arc::new(lonely().await);
        for _ in 0..2 {
            let began = std::time::Instant::now();
            let request = Request::get("/metrics").body(Body::empty()).unwrap();
            let answer = router(Arc::clone(&app)).oneshot(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert!(answer.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
            let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            let body = std::str::from_utf8(&body).unwrap();
            for dependency in ["ledger", "broker", "bucket"] {
                assert!(body.contains(&format!("\npolyglot_up{{dependency=\"{dependency}\"}} 0\n")), "{body}");
            }
            for absent in ["polyglot_exports", "polyglot_outbox", "polyglot_ready", "polyglot_queue"] {
                assert!(!body.contains(absent), "{body}");
            }
            assert!(body.contains("process_resident_memory_bytes ") && body.contains("pool=\"source\""), "{body}");
            assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        }
    }
}
