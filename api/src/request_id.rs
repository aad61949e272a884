//! The layer around every route: gives the request an id and a span, finishes problem documents with it, sets
//! the headers that every answer has, and writes one access line.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;
use uuid::Uuid;

use crate::problem::{RouteError, quoted};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_ID: usize = 128;

pub(crate) async fn track(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let path = request.uri().path().to_owned();
    // The pattern where there is one: it groups, and a stranger's path is not always fit to print.
    let route = match request.extensions().get::<MatchedPath>() {
        Some(matched) => matched.as_str().to_owned(),
        None => quoted(&path),
    };
    let span = tracing::info_span!("request", request_id = id, method = %request.method(), route);
    async move {
        let mut line = AccessLine { started: Instant::now(), status: None };
        let mut response = next.run(request).await;
        if let Some(error) = response.extensions_mut().remove::<Arc<RouteError>>() {
            error.log();
            *response.body_mut() = error.document(&path, &id);
        }
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, HeaderValue::try_from(id).expect("visible ASCII is a header value"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // States change and files are private: nothing in between should keep an answer.
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        line.status = Some(response.status().as_u16());
        response
    }
    .instrument(span)
    .await
}

/// The client's own id if it is short and visible ASCII, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .map(HeaderValue::as_bytes)
        .filter(|id| (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic))
        .and_then(|id| std::str::from_utf8(id).ok())
        .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// Written when it is dropped, so also for a client that did not wait for its answer. The time is up to the head
/// of the answer; a streamed file goes on after it.
struct AccessLine {
    started: Instant,
    status: Option<u16>,
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let milliseconds = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(status) = self.status {
            tracing::info!(status, milliseconds, "answered");
        } else {
            tracing::info!(milliseconds, "the client went away");
        }
    }
}
