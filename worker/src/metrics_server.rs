//! The worker's HTTP server: `GET /metrics` and `GET /health` on the port that `METRICS_PORT` names. A worker listens
//! on no other port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use std::convert::Infallible;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use polyglot_runtime::http_server::HttpServer;
use polyglot_runtime::lifecycle::Lifecycle;
use polyglot_runtime::telemetry::{METRICS_CONTENT_TYPE, PoolUse, Recorder, SampleWriter};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::context::WorkerContext;
use crate::metrics;

/// Time that an answer may take after the worker has stopped.
const DRAIN: Duration = Duration::from_secs(1);

/// The error of an address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("METRICS_PORT: {address} cannot be listened on")]
pub(crate) struct NoPort {
    address: SocketAddr,
    source: std::io::Error,
}

/// The listener and the recorder that it answers from.
pub(crate) struct MetricsServer {
    listener: TcpListener,
    recorder: Recorder,
}

impl MetricsServer {
    /// Listens on the address and starts to count.
    pub(crate) fn begin(address: SocketAddr) -> Result<Self, Box<dyn std::error::Error>> {
        let listener = HttpServer::listen(address);
        let listener = listener.map_err(|source| NoPort { address, source })?;
        let recorder = Recorder::install()?;
        metrics::register_counters();
        tracing::info!(address = %address.ip(), port = address.port(), "metrics are served");
        Ok(Self { listener, recorder })
    }

    /// Answers requests until `stopping`.
    pub(crate) async fn serve(self, context: Arc<WorkerContext>, stopping: CancellationToken) {
        let Self { listener, recorder } = self;
        let small = recorder.clone().run_upkeep(stopping.clone());
        let service = service_fn(move |request: Request<_>| {
            let answer = answer(request.method(), request.uri().path(), &context, &recorder);
            async { Ok::<_, Infallible>(answer) }
        });
        let lifecycle = Lifecycle { stopping, ..Lifecycle::default() };
        tokio::join!(small, HttpServer::default().serve(listener, service, &lifecycle, DRAIN));
    }
}

/// Returns the answer to a request; hyper leaves out the body for `HEAD`.
fn answer(method: &Method, path: &str, context: &WorkerContext, recorder: &Recorder) -> Response<String> {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let (status, header, body) = match path {
        "/metrics" | "/health" if !is_read => (StatusCode::METHOD_NOT_ALLOWED, (ALLOW, "GET,HEAD"), String::new()),
        "/metrics" => (StatusCode::OK, (CONTENT_TYPE, METRICS_CONTENT_TYPE), recorder.render(samples(context))),
        "/health" => (StatusCode::OK, (CONTENT_TYPE, "application/json"), r#"{"status":"ok"}"#.to_owned()),
        _ => (StatusCode::NOT_FOUND, (CONTENT_TYPE, "text/plain"), String::new()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header.0, HeaderValue::from_static(header.1));
    response
}

/// Returns the metrics that are measured at the time of the request.
fn samples(context: &WorkerContext) -> SampleWriter {
    let mut page = SampleWriter::default();
    metrics::write_times(&mut page);
    let (slots, used) = (usize::from(context.settings.slots), context.slots_in_use());
    for (state, count) in [("used", used), ("free", slots.saturating_sub(used))] {
        page.count("polyglot_slots", &[("state", state)], count);
    }
    page.count("polyglot_memory_budget_bytes", &[], context.settings.memory_budget);
    page.count("polyglot_snapshots_kept", &[], context.snapshots.held());
    let (limit, idle) = (&context.connection_limit, context.connection_cache.idle());
    let source = PoolUse { idle, used: limit.in_use().saturating_sub(idle) };
    page.pools(&[("ledger", context.ledger.connections()), ("source", source)]);
    page.count("polyglot_source_connection_limit", &[], limit.max());
    page
}
