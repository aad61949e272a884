//! The layer around every route: gives the request an id and a span, adds problem documents to error responses, sets the
//! headers that every response has, counts the request, and writes one line to the access log.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use polyglot_runtime::telemetry::{self, HTTP_DURATION, HTTP_REQUESTS, TraceContext};
use tracing::field::Empty;
use tracing::{Instrument, Span};
use uuid::Uuid;

use crate::problem::{Answer, RouteError, quoted};
use crate::security_headers::{self, HasTls};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_ID_BYTES: usize = 128;

/// Routes that monitoring requests every few seconds: logged, but not traced.
const PROBES: [&str; 3] = ["/health", "/health/ready", "/metrics"];

pub(crate) async fn track(State(has_tls): State<HasTls>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let path = request.uri().path().to_owned();
    // The route's pattern where there is one: patterns can be grouped, and an unknown path may hold anything.
    let matched = request.extensions().get::<MatchedPath>().map(|matched| matched.as_str().to_owned());
    let method = request.method();
    let line = AccessLine {
        started: Instant::now(),
        status: None,
        // The values of a label are bounded, whatever paths clients request.
        route: matched.clone().unwrap_or_else(|| "unmatched".to_owned()),
        method: method_label(method),
    };
    let name = format!("{} {}", line.method, matched.as_deref().unwrap_or_default());
    let route = matched.unwrap_or_else(|| quoted(&path));
    // At the level of errors, so that every line that RUST_LOG lets through has the request id.
    let span = if PROBES.contains(&route.as_str()) {
        tracing::error_span!("probe", request_id = id, %method, route, tenant = Empty, caller = Empty)
    } else {
        tracing::error_span!(
            "request", request_id = id, %method, route, export_id = Empty, tenant = Empty, caller = Empty, otel.name = Empty, otel.kind = Empty, otel.status_code = Empty
        )
    };
    if let Some(export_id) = export_id(&path) {
        span.record("export_id", tracing::field::display(export_id));
    }
    let stated = TraceContext::of_request(&id, request.headers());
    telemetry::set_parent(&span, &stated);
    telemetry::rename(&span, name.trim_end(), "server");
    let origin = telemetry::trace_context_of(&span, stated);
    request.extensions_mut().insert(origin);
    async move {
        // Moves the whole line into the future, not only the field that is set below.
        let mut line = line;
        let mut response = next.run(request).await;
        if let Some(error) = response.extensions_mut().remove::<Arc<RouteError>>() {
            error.log();
            *response.body_mut() = Answer::to(&error).document(&path, &id).to_string().into();
        }
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, HeaderValue::try_from(id).expect("visible ASCII is a header value"));
        security_headers::add(headers, has_tls);
        // States change and files are private: no cache should store a response.
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        line.status = Some(response.status().as_u16());
        if response.status().is_server_error() {
            telemetry::failed(&Span::current());
        }
        response
    }
    .instrument(span)
    .await
}

/// The export that the request is about.
fn export_id(path: &str) -> Option<Uuid> {
    path.strip_prefix("/exports/")?.split('/').next()?.parse().ok()
}

/// The client's own request id if it is short and visible ASCII, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .map(HeaderValue::as_bytes)
        .filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic))
        .and_then(|id| std::str::from_utf8(id).ok())
        .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// A line of the access log. It is written on drop, so also when the client disconnects before the response. The time ends
/// at the head of the response; a streamed body goes on after it.
struct AccessLine {
    started: Instant,
    status: Option<u16>,
    route: String,
    method: &'static str,
}

/// Status of a request whose client disconnected before the response, as in nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The method as a label of bounded values: clients may send any token.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("OTHER")
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let (route, method) = (std::mem::take(&mut self.route), self.method);
        let status = self.status.unwrap_or(CLIENT_CLOSED_REQUEST).to_string();
        metrics::histogram!(HTTP_DURATION, "route" => route.clone(), "method" => method).record(elapsed);
        metrics::counter!(HTTP_REQUESTS, "route" => route, "method" => method, "status" => status).increment(1);
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if let Some(status) = self.status {
            tracing::info!(status, milliseconds, "answered");
        } else {
            tracing::info!(milliseconds, "client disconnected before the response");
        }
    }
}
