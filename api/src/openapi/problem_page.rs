//! `/docs/errors/{name}`: what a problem type means and what to do about it. The answers with a problem link to it.

use axum::extract::Path;
use axum::http::header;
use axum::response::IntoResponse;

use crate::problem::{RouteError, help};

pub(crate) async fn section(Path(name): Path<String>) -> Result<impl IntoResponse, RouteError> {
    let text = help(&name).ok_or(RouteError::NoSuchRoute)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")], text))
}
