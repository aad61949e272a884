//! The file of a completed export in the object store: its response headers, its key, and its lookup.

use axum::http::{HeaderMap, HeaderValue, header};
use polyglot_core::format_options::FileEncoding;
use polyglot_core::request::ObjectHeaders;
use polyglot_formats::{Format, UnknownFormat};
use polyglot_ledger::Export;
use polyglot_storage::{ChecksumMode, ObjectInfo, StorageError};

use crate::problem::RouteError;
use crate::state::AppState;
use crate::timeout;

/// How the file of a completed export is to be handed out. It follows from the request alone, so that both deliveries
/// say the same, whatever the store has kept of the headers that the worker gave it.
pub(super) async fn object_headers(app: &AppState, export: &Export) -> Result<ObjectHeaders, RouteError> {
    let encoding = match export.compression {
        Some(_) => timeout::ledger(app.ledger.file_encoding(export.id)).await?.unwrap_or_default(),
        None => FileEncoding::default(),
    };
    Ok(headers_with(export, encoding)?)
}

/// The headers of the file when it is encoded in this way.
pub(super) fn headers_with(export: &Export, encoding: FileEncoding) -> Result<ObjectHeaders, UnknownFormat> {
    Ok(format(export)?.file_headers(export.id, export.compression, encoding))
}

/// The headers of the file `name`, one of those that a result consists of.
pub(super) fn headers_of(export: &Export, name: &str) -> Result<ObjectHeaders, UnknownFormat> {
    Ok(format(export)?.object_headers(export.compression, export.layout, name))
}

fn format(export: &Export) -> Result<Format, UnknownFormat> {
    Format::named(&export.format)
}

/// These headers as the api itself sends them.
pub(super) fn http_headers(headers: ObjectHeaders) -> HeaderMap {
    let ObjectHeaders { content_type, content_encoding, content_disposition } = headers;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let disposition = HeaderValue::try_from(content_disposition).expect("a UUID and a format are ASCII");
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    if let Some(encoding) = content_encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    headers
}

/// The key of a completed export's object.
pub(super) fn key(export: &Export) -> Result<&str, RouteError> {
    export.object_key.as_deref().ok_or(RouteError::FileMissing { id: export.id })
}

/// What the store knows of the object; a completed export without one is a `FileMissing`.
pub(super) async fn head(app: &AppState, export: &Export) -> Result<ObjectInfo, RouteError> {
    let call = app.storage.head(key(export)?, ChecksumMode::Omitted);
    timeout::store_result(call).await?.map_err(|error| lost_or_failed(error, export))
}

/// Tells a lost file from a store that does not work.
pub(super) fn lost_or_failed(error: StorageError, export: &Export) -> RouteError {
    if error.is_not_found() { RouteError::FileMissing { id: export.id } } else { error.into() }
}
