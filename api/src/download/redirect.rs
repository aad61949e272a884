//! Delivery by the object store: a redirect to a presigned URL.

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use polyglot_ledger::Export;

use super::presigned::Signer;
use super::stored_file;
use crate::problem::RouteError;
use crate::state::AppState;

/// Answers 302 to the file. The object is looked up first: a client that is redirected to a missing object gets an error
/// of the object store, which it cannot act on.
pub(super) async fn answer(app: &AppState, export: &Export, method: &Method) -> Result<Response, RouteError> {
    stored_file::head(app, export).await?;
    let headers = stored_file::object_headers(app, export).await?;
    let url = Signer::new(app).url(method, stored_file::key(export)?, &headers).await?;
    let location = HeaderValue::try_from(url).map_err(|error| RouteError::Internal(Box::new(error)))?;
    let headers = [(header::LOCATION, location), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::FOUND, headers).into_response())
}
