//! Exporting traces: OTLP over HTTP, configured by the standard `OTEL_*` variables. The exporter has a thread, a queue and a
//! runtime of its own, so that a slow or unavailable endpoint does not delay work; spans that do not fit the queue are dropped.
//!
//! The HTTP client is not `opentelemetry_http`'s `HyperClient`: that one always pools connections, and nothing would drive a
//! pooled connection between two exports, because the runtime runs only during a request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::trace;
use crate::config::{ConfigError, Environment};
use polyglot_core::failure::chain;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const SERVICE: &str = "service.name";

/// Longest wait at the end of a process for the last spans to be sent.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// Shortest interval between two log lines about spans that were not exported.
const LOG_INTERVAL: Duration = Duration::from_mins(1);
/// Largest accepted answer, in bytes; it is empty, or an error page.
const LARGEST_ANSWER: usize = 64 << 10;

/// The exporter of a process, if it has one.
#[must_use]
pub struct Tracing(Option<SdkTracerProvider>);

impl Tracing {
    /// Sends the remaining spans, for at most three seconds. Blocks; call it when all work is done.
    pub fn end(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT)
        {
            tracing::warn!(error = chain(&error), "the last spans may be lost");
        }
    }
}

/// Makes the exporter that the variables ask for; none, unless an endpoint is set. The SDK reads its own variables from the
/// environment, so they cannot come from files. `service` is the service's name unless a variable sets one.
pub(crate) fn layer(env: &Environment, service: &'static str) -> Result<(Option<SdkTracer>, Tracing), ConfigError> {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let disabled = env.text("OTEL_SDK_DISABLED", "false")?.eq_ignore_ascii_case("true")
        || env.text("OTEL_TRACES_EXPORTER", "otlp")? == "none";
    let Some((name, endpoint)) =
        [TRACES_ENDPOINT, ENDPOINT].into_iter().find_map(|name| Some((name, variable(name)?))).filter(|_| !disabled)
    else {
        return Ok((None, Tracing(None)));
    };
    let problem = |problem: String| ConfigError::Problem { name: name.to_owned(), problem };
    let limit = env.number("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000, 1..=600_000, "milliseconds")?;
    let limit = env.number("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", limit, 1..=600_000, "milliseconds")?;
    let client = Sender::new(endpoint.starts_with("https:"), Duration::from_millis(limit));
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(client.map_err(|error| problem(format!("no client for it: {}", chain(&error))))?)
        .build()
        .map_err(|error| problem(error.to_string()))?;
    // The SDK reads the service's name from `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES`.
    let named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|pairs| {
            pairs.split(',').any(|pair| pair.split('=').next().is_some_and(|key| key.trim() == SERVICE))
        });
    let resource = Resource::builder();
    let resource = if named { resource } else { resource.with_service_name(service) };
    let provider = SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(LossReporter { exporter, logged_at: Mutex::default(), lost: AtomicU64::new(0) })
        .build();
    let tracer = provider.tracer("polyglot");
    if !trace::start(tracer.clone()) {
        return Err(problem("traces are exported already".to_owned()));
    }
    Ok((Some(tracer), Tracing(Some(provider))))
}

/// Requests over plain HTTP, or over TLS with the system's certificates.
#[derive(Debug)]
enum Connections {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

/// Sends one request at a time, on the exporter's own thread.
#[derive(Debug)]
struct Sender {
    runtime: Runtime,
    connections: Connections,
    limit: Duration,
}

impl Sender {
    fn new(tls: bool, limit: Duration) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Connections are not pooled: the runtime does not run between two requests.
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_max_idle_per_host(0);
        let connections = if tls {
            let https = HttpsConnectorBuilder::new().with_native_roots()?.https_only().enable_http1().build();
            Connections::Tls(client.build(https))
        } else {
            Connections::Plain(client.build(HttpConnector::new()))
        };
        Ok(Self { runtime, connections, limit })
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = request.map(Full::new);
        let answer = match &self.connections {
            Connections::Plain(client) => client.request(request).await?,
            Connections::Tls(client) => client.request(request).await?,
        };
        let (head, body) = answer.into_parts();
        Ok(Response::from_parts(head, Limited::new(body, LARGEST_ANSWER).collect().await?.to_bytes()))
    }
}

#[async_trait::async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Blocks the exporter's thread, which has nothing else to do and no runtime.
        self.runtime.block_on(async { tokio::time::timeout(self.limit, self.exchange(request)).await? })
    }
}

/// Logs how many spans could not be exported, at most once a minute.
#[derive(Debug)]
struct LossReporter<E> {
    exporter: E,
    logged_at: Mutex<Option<Instant>>,
    /// Spans that were lost since the last log line.
    lost: AtomicU64,
}

impl<E: SpanExporter> SpanExporter for LossReporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let exported = self.exporter.export(batch).await;
        if let Err(error) = &exported {
            let lost = self.lost.fetch_add(spans, Ordering::Relaxed) + spans;
            let mut logged_at = self.logged_at.lock().unwrap_or_else(PoisonError::into_inner);
            if logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                tracing::warn!(error = chain(error), spans = lost, "spans cannot be exported and are lost");
                self.lost.store(0, Ordering::Relaxed);
                *logged_at = Some(Instant::now());
            }
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
