//! `GET /exports`: the list of exports, newest first, in pages.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::IntoResponse;
use polyglot_core::status::Status;
use polyglot_ledger::ListFilter;
use serde::Serialize;
use utoipa::ToSchema;

use super::cursor;
use super::document::ExportDocument;
use crate::identity::Caller;
use crate::problem::{RouteError, listed, quoted};
use crate::query::Parameters;
use crate::state::AppState;
use crate::timeout;

const DEFAULT_LIMIT: u64 = 50;
const MAX_LIMIT: u64 = 200;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    exports: Vec<ExportDocument>,
    /// For the next page; null on the last one.
    next_cursor: Option<String>,
}

/// List exports.
///
/// Newest first, a page at a time.
#[utoipa::path(
    get, path = "/exports", operation_id = "list_exports", tag = "exports",
    params(
        ("status" = Option<Status>, Query, description = "Only those in this state."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "Exports on a page; 50 unless told."),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before."),
    ),
    responses((status = 200, description = "A page of them.", body = Page,
        headers(("Link" = Option<String>, description = "`rel=\"next\"`, unless this is the last page.")))),
)]
pub(crate) async fn list(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    uri: Uri,
) -> Result<impl IntoResponse, RouteError> {
    let parameters = Parameters::read(&uri, &["status", "limit", "cursor"])?;
    let status = parameters.get("status").map(read_status).transpose()?;
    let limit = parameters.number("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let before = match parameters.get("cursor") {
        Some(text) => Some(
            cursor::decode(text)
                .ok_or_else(|| RouteError::invalid("cursor", "expected a cursor of an earlier page"))?,
        ),
        None => None,
    };
    // One export more than the page holds tells whether there is another page.
    let fetched = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let view = caller.view(&app.ledger);
    let mut exports = timeout::ledger(view.list(ListFilter { status, before, limit: fetched })).await?;
    let page_size = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = exports.len() > page_size;
    exports.truncate(page_size);
    let next_cursor = exports.last().filter(|_| more).map(|export| cursor::encode(export.id));

    let mut headers = HeaderMap::new();
    if let Some(cursor) = &next_cursor {
        let status = status.map(|status| format!("status={status}&")).unwrap_or_default();
        let link = format!("</exports?{status}limit={limit}&cursor={cursor}>; rel=\"next\"");
        headers.insert(header::LINK, HeaderValue::try_from(link).expect("names, digits and base64 are visible ASCII"));
    }
    Ok((headers, Json(Page { exports: exports.iter().map(ExportDocument::now).collect(), next_cursor })))
}

fn read_status(name: &str) -> Result<Status, RouteError> {
    Status::from_name(name).ok_or_else(|| {
        RouteError::invalid("status", format!("unknown status {}; there is {}", quoted(name), listed(Status::ALL)))
    })
}
