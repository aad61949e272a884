//! Exporting traces: OTLP over HTTP, as the standard `OTEL_*` variables say. It has a thread, a queue and a runtime of its
//! own, so that an endpoint that is slow or away costs the work nothing; what does not fit the queue is dropped.

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

/// How long the end of a process waits for what is left to be sent.
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// How often an endpoint that does not take spans is mentioned in the log.
const MENTION: Duration = Duration::from_mins(1);
/// An answer has a few bytes, or an error page.
const LARGEST_ANSWER: usize = 64 << 10;

/// The exporter of a process, if it has one.
#[must_use]
pub struct Tracing(Option<SdkTracerProvider>);

impl Tracing {
    /// Sends what is left, for at most three seconds. Blocks; call it when all work is done.
    pub fn end(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown_with_timeout(LAST_PATIENCE)
        {
            tracing::warn!(error = chain(&error), "the last spans may be lost");
        }
    }
}

/// What the variables ask for: nothing, unless an endpoint is set. These are the SDK's own variables, so it reads them from
/// the environment itself, and not from files. `service` is the process's name where they have none.
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
    // With the service's name, as the SDK finds it, in `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES`.
    let named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|pairs| {
            pairs.split(',').any(|pair| pair.split('=').next().is_some_and(|key| key.trim() == SERVICE))
        });
    let resource = Resource::builder();
    let resource = if named { resource } else { resource.with_service_name(service) };
    let provider = SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(Reporting { exporter, said: Mutex::default(), lost: AtomicU64::new(0) })
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
        // A connection is not kept: between two requests nobody would look after it.
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

/// Says in the log what becomes of spans that cannot be sent, now and then.
#[derive(Debug)]
struct Reporting<E> {
    exporter: E,
    said: Mutex<Option<Instant>>,
    /// Spans that were not sent since it was said last.
    lost: AtomicU64,
}

impl<E: SpanExporter> SpanExporter for Reporting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let exported = self.exporter.export(batch).await;
        if let Err(error) = &exported {
            let lost = self.lost.fetch_add(spans, Ordering::Relaxed) + spans;
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.is_none_or(|said| said.elapsed() >= MENTION) {
                tracing::warn!(error = chain(error), spans = lost, "spans cannot be exported and are lost");
                self.lost.store(0, Ordering::Relaxed);
                *said = Some(Instant::now());
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
