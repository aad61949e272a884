//! Delivery by the api: the object's bytes pass through chunk by chunk, as fast as the client reads them.

use std::io;
use std::ops::RangeInclusive;

use async_compression::tokio::bufread::GzipDecoder;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, TryStreamExt};
use polyglot_core::compression::Compression;
use polyglot_core::failure::chain;
use polyglot_core::format_options::FileEncoding;
use polyglot_core::request::ObjectHeaders;
use polyglot_ledger::Export;
use polyglot_storage::{ByteStream, ObjectInfo};
use tokio::io::BufReader;
use tokio_util::io::{ReaderStream, StreamReader};
use tracing::Span;

use super::range::{self, Part};
use super::stored_file::{self, lost_or_failed};
use super::{content_coding, etag};
use crate::problem::RouteError;
use crate::security_headers;
use crate::state::AppState;
use crate::timeout;

/// Bytes of a gzip file that are read at a time, and of what is unpacked that are sent at a time.
const PACKED_BUFFER: usize = 16 << 10;
const UNPACKED_BUFFER: usize = 64 << 10;

/// The form in which the file is sent.
struct Representation {
    headers: ObjectHeaders,
    /// A gzip file is unpacked for a client that does not take it.
    unpacks: bool,
    /// Whether the form depends on what the client takes.
    varies: bool,
}

impl Representation {
    /// The file with its content coding if the client takes that. Otherwise gzip is unpacked, which needs some kilobytes for a
    /// download; a zstd file is sent as the file that it is, for unpacking it may need megabytes.
    async fn of(app: &AppState, export: &Export, request: &HeaderMap) -> Result<Self, RouteError> {
        let headers = stored_file::object_headers(app, export).await?;
        let Some(coding) = headers.content_encoding else { return Ok(Self { headers, unpacks: false, varies: false }) };
        if content_coding::accepts(request, coding) {
            return Ok(Self { headers, unpacks: false, varies: true });
        }
        if export.compression == Some(Compression::Gzip) {
            let headers = ObjectHeaders { content_encoding: None, ..headers };
            return Ok(Self { headers, unpacks: true, varies: true });
        }
        Ok(Self { headers: stored_file::headers_with(export, FileEncoding::File)?, unpacks: false, varies: true })
    }

    fn etag(&self, stored: Option<&str>) -> Option<String> {
        stored.map(|etag| if self.unpacks { etag::unpacked(etag) } else { etag.to_owned() })
    }

    /// The headers of the file; `stored` is what the store says about the object.
    fn headers(self, stored: &ObjectInfo) -> HeaderMap {
        let etag = self.etag(stored.etag.as_deref());
        let Self { headers, unpacks, varies } = self;
        let mut headers = stored_file::http_headers(headers);
        headers.insert(header::CONTENT_SECURITY_POLICY, security_headers::FILE);
        // The size of what is unpacked is known at its end, and a range of it would be unpacked from its beginning.
        if !unpacks {
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            if let Some(length) = stored.bytes {
                headers.insert(header::CONTENT_LENGTH, length.into());
            }
        }
        if varies {
            headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        if let Some(etag) = etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
            headers.insert(header::ETAG, etag);
        }
        headers
    }
}

/// Answers 200 with the file, 206 with a part of it, 304 if the client has it already, or the head of a 200.
pub(super) async fn answer(
    app: &AppState,
    export: &Export,
    method: &Method,
    request: &HeaderMap,
) -> Result<Response, RouteError> {
    let file = Representation::of(app, export, request).await?;
    // The store is asked for the file's ETag only if the client has one to compare with.
    let is_conditional = [header::IF_NONE_MATCH, header::IF_RANGE].iter().any(|name| request.contains_key(name));
    let head =
        if method == Method::HEAD || is_conditional { Some(stored_file::head(app, export).await?) } else { None };
    let etag = head.as_ref().and_then(|head| file.etag(head.etag.as_deref()));
    if let Some(head) = &head {
        if etag::is_known(request, etag.as_deref()) {
            return Ok(not_modified(file.headers(head)));
        }
        // Ranges are defined for GET alone.
        if method == Method::HEAD {
            return Ok((file.headers(head), Body::empty()).into_response());
        }
    }
    let part = if file.unpacks { Part::Whole } else { part(export, request, etag.as_deref()) };
    match part {
        Part::Whole => get(app, export, file, None).await,
        Part::Bytes { first, last } => get(app, export, file, Some(first..=last)).await,
        Part::Outside => Err(RouteError::RangeOutside { size: size(export) }),
    }
}

/// The part to send.
fn part(export: &Export, request: &HeaderMap, etag: Option<&str>) -> Part {
    match request.get(header::IF_RANGE) {
        Some(if_range) if !range::is_current(if_range, etag) => Part::Whole,
        _ => range::requested(request, size(export)),
    }
}

/// 304 with the headers that a cache needs.
fn not_modified(mut headers: HeaderMap) -> Response {
    for name in [
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::CONTENT_DISPOSITION,
        header::ACCEPT_RANGES,
    ] {
        headers.remove(name);
    }
    (StatusCode::NOT_MODIFIED, headers).into_response()
}

async fn get(
    app: &AppState,
    export: &Export,
    file: Representation,
    wanted: Option<RangeInclusive<u64>>,
) -> Result<Response, RouteError> {
    let call = app.storage.get(stored_file::key(export)?, wanted.clone());
    let object = timeout::store_result(call).await?.map_err(|error| lost_or_failed(error, export))?;
    let unpacks = file.unpacks;
    let mut headers = file.headers(&object.info);
    // A store that does not do ranges sends everything, and then so do we.
    let status = match object.content_range.and_then(|range| HeaderValue::try_from(range).ok()) {
        Some(range) if wanted.is_some() => {
            headers.insert(header::CONTENT_RANGE, range);
            StatusCode::PARTIAL_CONTENT
        }
        _ => StatusCode::OK,
    };
    let body = if unpacks { unpack(object.body, export) } else { pass_through(object.body, export) };
    Ok((status, headers, body).into_response())
}

/// Streams the bytes. If the object store fails, the connection ends before `Content-Length`, so that the client does not
/// take a short file for a complete one.
fn pass_through(body: ByteStream, export: &Export) -> Body {
    Body::from_stream(logged(body, export))
}

/// Streams the unpacked bytes of a gzip file. If it fails, the last chunk never comes.
fn unpack(body: ByteStream, export: &Export) -> Body {
    let packed = BufReader::with_capacity(PACKED_BUFFER, StreamReader::new(logged(body, export)));
    Body::from_stream(ReaderStream::with_capacity(GzipDecoder::new(packed), UNPACKED_BUFFER))
}

fn logged(body: ByteStream, export: &Export) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let (id, span) = (export.id, Span::current());
    let logged = body.inspect_err(move |error| {
        span.in_scope(|| tracing::warn!(error = chain(error), export_id = %id, "the object store broke off a file"));
    });
    logged.map_err(io::Error::other)
}

fn size(export: &Export) -> u64 {
    u64::try_from(export.bytes).unwrap_or(0)
}
