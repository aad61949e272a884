//! `GET /metrics`: the metrics of this process, and gauges that are read from the ledger, the broker and the object store
//! for the scrape. Each read has a timeout; a server that is not available leaves its gauges out, and the answer is still 200.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use polyglot_core::tenant::DEFAULT_TENANT;
use polyglot_ledger::TenantBacklog;
use polyglot_runtime::telemetry::{METRICS_CONTENT_TYPE, SampleWriter};

use crate::readiness::Readiness;
use crate::state::AppState;

/// Age up to which the results of earlier readiness probes are answered again.
const MAX_AGE: Duration = Duration::from_secs(5);

/// Get the metrics, for Prometheus.
///
/// With what it looks up when it is asked; a server that is away leaves its numbers out.
#[utoipa::path(
    get, path = "/metrics", operation_id = "scrape_metrics", tag = "operation",
    responses((status = 200, description = "The text format, version 0.0.4.", content_type = "text/plain", body = String)),
)]
pub(crate) async fn scrape(State(app): State<Arc<AppState>>) -> Response {
    let (readiness, backlog, finished) =
        tokio::join!(app.readiness.check(MAX_AGE), app.ledger_stats.backlog(), app.ledger_stats.finished());
    // Counts from minutes ago are not shown while the ledger is not available.
    let finished = finished.filter(|_| backlog.is_some());
    let mut page = SampleWriter::default();
    let exports = backlog.iter().flat_map(|backlog| &backlog.active).chain(finished.iter().flatten());
    for (status, count) in exports {
        page.write("polyglot_exports", &[("state", status.name())], number(*count));
    }
    if let Some(backlog) = &backlog {
        // A gauge without a sample would look like a metric that is not there.
        let default = TenantBacklog { tenant: DEFAULT_TENANT.to_owned(), pending: 0, running: 0 };
        let has_default = backlog.tenants.iter().any(|it| it.tenant == DEFAULT_TENANT);
        for it in backlog.tenants.iter().chain((!has_default).then_some(&default)) {
            for (state, count) in [("pending", it.pending), ("running", it.running)] {
                page.write("polyglot_tenant_exports", &[("tenant", &it.tenant), ("state", state)], number(count));
            }
        }
        page.write("polyglot_outbox_messages", &[], number(backlog.outbox));
        page.write("polyglot_ready_exports", &[], number(backlog.ready));
        page.write("polyglot_ready_oldest_seconds", &[], backlog.ready_for_seconds);
        page.write("polyglot_open_snapshots", &[], number(backlog.open_snapshots));
        page.write("polyglot_waiting_for_place_exports", &[], number(backlog.waiting_for_place));
    }
    let Readiness { ledger, broker, bucket, depths, source, source_refused: _ } = readiness;
    if let Some(depths) = depths {
        for (queue, messages) in [("tokens", depths.tokens), ("dead", depths.dead)] {
            page.write("polyglot_queue_messages", &[("queue", queue)], messages.into());
        }
    }
    let dependencies =
        [("ledger", Some(ledger)), ("broker", broker), ("bucket", Some(bucket)), ("source", Some(source.is_some()))];
    for (dependency, up) in dependencies {
        if let Some(up) = up {
            page.write("polyglot_up", &[("dependency", dependency)], f64::from(u8::from(up)));
        }
    }
    page.pools(&[("ledger", app.ledger.connections()), ("source", app.source.connections())]);
    page.count("polyglot_source_connection_limit", &[], app.source.max_connections());
    if let Some(source) = source {
        page.write("polyglot_source_sessions", &[], number(source.sessions));
        page.write("polyglot_source_oldest_snapshot_seconds", &[], source.oldest_snapshot_seconds);
        page.write("polyglot_source_oldest_xmin_age", &[], number(source.oldest_xmin_age));
        page.write("polyglot_source_longest_statement_seconds", &[], source.longest_statement_seconds);
    }
    ([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], app.recorder.render(page)).into_response()
}

/// A count as a sample. Counts above `u32::MAX` are not expected, and are capped.
fn number(count: i64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}
