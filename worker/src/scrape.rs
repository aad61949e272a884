//! `GET /metrics` and `GET /health` of a worker, on the port that `METRICS_PORT` names. The only thing a worker listens for.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use polyglot_export::lifecycle::Lifecycle;
use polyglot_export::listen;
use polyglot_export::telemetry::{Page, PoolUse, Recorder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::counts;
use crate::source::open_connections;
use crate::worker::Worker;

/// How long an answer that is being sent may go on when the worker has stopped.
const DRAIN: Duration = Duration::from_secs(1);

/// A port that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("METRICS_PORT: {port} cannot be listened on")]
pub(crate) struct NoPort {
    port: u16,
    source: std::io::Error,
}

/// What is asked, and what answers.
pub(crate) struct Scrape {
    listener: TcpListener,
    recorder: Recorder,
}

impl Scrape {
    /// Counts from now on, and has the port.
    pub(crate) async fn begin(port: u16) -> Result<Self, Box<dyn std::error::Error>> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
        let listener = listener.map_err(|source| NoPort { port, source })?;
        let recorder = Recorder::install()?;
        counts::begin();
        tracing::info!(port, "metrics are served");
        Ok(Self { listener, recorder })
    }

    /// Answers until `stopping`.
    pub(crate) async fn serve(self, worker: Arc<Worker>, stopping: CancellationToken) {
        let Self { listener, recorder } = self;
        let small = recorder.clone().keep_small(stopping.clone());
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/health", get(async || Json(serde_json::json!({ "status": "ok" }))))
            .with_state((worker, recorder));
        let lifecycle = Lifecycle { stopping, ..Lifecycle::default() };
        tokio::join!(small, listen::serve(listener, router, &lifecycle, DRAIN));
    }
}

async fn metrics(State((worker, recorder)): State<(Arc<Worker>, Recorder)>) -> Response {
    let mut page = Page::default();
    counts::write_times(&mut page);
    let (slots, used) = (usize::from(worker.settings.slots), worker.in_use());
    for (state, count) in [("used", used), ("free", slots.saturating_sub(used))] {
        page.count("polyglot_slots", &[("state", state)], count);
    }
    page.count("polyglot_memory_budget_bytes", &[], worker.settings.memory_budget);
    page.count("polyglot_snapshots_kept", &[], worker.sessions.kept());
    let idle = worker.idle.waiting() + worker.sessions.waiting();
    let source = PoolUse { idle, used: open_connections().saturating_sub(idle) };
    page.pools(&[("ledger", worker.ledger.connections()), ("source", source)]);
    recorder.answer(page)
}
