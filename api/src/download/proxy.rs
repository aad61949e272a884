//! Delivery by the api: the object's bytes pass through chunk by chunk, as fast as the client reads them.

use std::io;
use std::ops::RangeInclusive;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use polyglot_core::failure::chain;
use polyglot_ledger::Export;
use polyglot_storage::ByteStream;
use tracing::Span;

use super::range::{self, Part};
use super::stored_file::{self, lost_or_failed};
use crate::problem::RouteError;
use crate::state::AppState;
use crate::timeout;

/// Answers 200 with the file, 206 with a part of it, or the head of a 200.
pub(super) async fn answer(
    app: &AppState,
    export: &Export,
    method: &Method,
    request: &HeaderMap,
) -> Result<Response, RouteError> {
    if method == Method::HEAD {
        // Ranges are defined for GET alone.
        let head = stored_file::head(app, export).await?;
        let headers = file_headers(export, head.bytes, head.etag.as_deref())?;
        return Ok((headers, Body::empty()).into_response());
    }
    match part(app, export, request).await? {
        Part::Whole => get(app, export, None).await,
        Part::Bytes { first, last } => get(app, export, Some(first..=last)).await,
        Part::Outside => Err(RouteError::RangeOutside { size: size(export) }),
    }
}

/// The part to send. The file's ETag is looked up only if the client has one to compare with.
async fn part(app: &AppState, export: &Export, request: &HeaderMap) -> Result<Part, RouteError> {
    let part = range::requested(request, size(export));
    match request.get(header::IF_RANGE) {
        Some(if_range) if part != Part::Whole => {
            let head = stored_file::head(app, export).await?;
            Ok(if range::is_current(if_range, head.etag.as_deref()) { part } else { Part::Whole })
        }
        _ => Ok(part),
    }
}

async fn get(app: &AppState, export: &Export, wanted: Option<RangeInclusive<u64>>) -> Result<Response, RouteError> {
    let call = app.storage.get(stored_file::key(export)?, wanted.clone());
    let object = timeout::store_result(call).await?.map_err(|error| lost_or_failed(error, export))?;
    let mut headers = file_headers(export, object.info.bytes, object.info.etag.as_deref())?;
    // A store that does not do ranges sends everything, and then so do we.
    let status = match object.content_range.and_then(|range| HeaderValue::try_from(range).ok()) {
        Some(range) if wanted.is_some() => {
            headers.insert(header::CONTENT_RANGE, range);
            StatusCode::PARTIAL_CONTENT
        }
        _ => StatusCode::OK,
    };
    Ok((status, headers, pass_through(object.body, export)).into_response())
}

fn file_headers(export: &Export, length: Option<u64>, etag: Option<&str>) -> Result<HeaderMap, RouteError> {
    let mut headers = stored_file::http_headers(export)?;
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if let Some(etag) = etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
        headers.insert(header::ETAG, etag);
    }
    Ok(headers)
}

/// Streams the bytes. If the object store fails, the connection ends before `Content-Length`, so that the client does not
/// take a short file for a complete one.
fn pass_through(body: ByteStream, export: &Export) -> Body {
    let (id, span) = (export.id, Span::current());
    let logged = body.inspect_err(move |error| {
        span.in_scope(|| tracing::warn!(error = chain(error), export_id = %id, "the object store broke off a file"));
    });
    Body::from_stream(logged.map_err(io::Error::other))
}

fn size(export: &Export) -> u64 {
    u64::try_from(export.bytes).unwrap_or(0)
}
