//! Delivery by the api: the object's bytes pass through, a piece at a time and as fast as the client takes them.

use std::io;

use aws_sdk_s3::primitives::ByteStream;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use polyglot_core::failure::chain;
use polyglot_ledger::Export;
use tracing::Span;

use super::range::{self, Part};
use super::stored_file::{self, Description, lost_or_failed};
use crate::patience;
use crate::problem::RouteError;
use crate::server::App;

/// 200 with the file, 206 with a part of it, or the head of a 200.
pub(super) async fn answer(
    app: &App,
    export: &Export,
    method: &Method,
    request: &HeaderMap,
) -> Result<Response, RouteError> {
    if method == Method::HEAD {
        // Ranges are defined for GET alone.
        let head = stored_file::head(app, export).await?;
        let headers = file_headers(export, head.content_length(), head.e_tag());
        return Ok((headers, Body::empty()).into_response());
    }
    match part(app, export, request).await? {
        Part::Whole => get(app, export, None).await,
        Part::Bytes { first, last } => get(app, export, Some((first, last))).await,
        Part::Outside => Err(RouteError::RangeOutside { size: size(export) }),
    }
}

/// The part to send. The store is asked for the file's tag only where the client has one to compare.
async fn part(app: &App, export: &Export, request: &HeaderMap) -> Result<Part, RouteError> {
    let part = range::requested(request, size(export));
    match request.get(header::IF_RANGE) {
        Some(if_range) if part != Part::Whole => {
            let head = stored_file::head(app, export).await?;
            Ok(if range::is_current(if_range, head.e_tag()) { part } else { Part::Whole })
        }
        _ => Ok(part),
    }
}

async fn get(app: &App, export: &Export, wanted: Option<(u64, u64)>) -> Result<Response, RouteError> {
    let call = app
        .storage
        .client
        .get_object()
        .bucket(&app.storage.bucket)
        .key(stored_file::key(export)?)
        .set_range(wanted.map(|(first, last)| format!("bytes={first}-{last}")));
    let object =
        patience::store_answer(call.send()).await?.map_err(|error| lost_or_failed("GetObject", error, export))?;
    let mut headers = file_headers(export, object.content_length(), object.e_tag());
    // A store that does not do ranges sends everything, and then so do we.
    let status = match object.content_range().and_then(|range| HeaderValue::try_from(range).ok()) {
        Some(range) if wanted.is_some() => {
            headers.insert(header::CONTENT_RANGE, range);
            StatusCode::PARTIAL_CONTENT
        }
        _ => StatusCode::OK,
    };
    Ok((status, headers, pass_through(object.body, export)).into_response())
}

fn file_headers(export: &Export, length: Option<i64>, etag: Option<&str>) -> HeaderMap {
    let mut headers = Description::of(export)?.headers();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if let Some(etag) = etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
        headers.insert(header::ETAG, etag);
    }
    headers
}

/// The bytes as they come. When the store breaks off, so do we: the client sees a connection that ended before
/// `Content-Length`, not a short file that looks whole.
fn pass_through(body: ByteStream, export: &Export) -> Body {
    let (id, span) = (export.id, Span::current());
    Body::from_stream(stream::try_unfold(body, move |mut body| {
        let span = span.clone();
        async move {
            match body.next().await {
                Some(Ok(bytes)) => Ok(Some((bytes, body))),
                Some(Err(error)) => {
                    span.in_scope(|| {
                        tracing::warn!(error = chain(&error), export_id = %id, "the object store broke off a file");
                    });
                    Err(io::Error::other(error))
                }
                None => Ok(None),
            }
        }
    }))
}

fn size(export: &Export) -> u64 {
    u64::try_from(export.bytes).unwrap_or(0)
}
