//! The request: which delivery, how long to wait, and the answer for each state of the export.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use polyglot_core::request::Layout;
use polyglot_core::status::Status;
use polyglot_ledger::Export;

use super::{proxy, redirect, wait};
use crate::client_limits::{Client, hold_until_sent};
use crate::config::Delivery;
use crate::exports::document::{ExportDocument, retry_after};
use crate::exports::id::ExportId;
use crate::exports::inspect::find;
use crate::limited_use::LimitedUse;
use crate::problem::{RouteError, listed, quoted};
use crate::query::Parameters;
use crate::state::AppState;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Fetches the file.
///
/// Waits for an export that is under way, and answers 202 with its state when that takes too long. HEAD answers alike.
#[utoipa::path(
    get, path = "/exports/{id}/download", operation_id = "download_export", tag = "exports",
    params(("id" = Uuid, Path, description = "As POST /exports answers it."),
        ("delivery" = Option<Delivery>, Query, description = "Who sends the file; as DOWNLOAD_MODE says unless told."),
        ("Prefer" = Option<String>, Header, example = "wait=10", description = "`wait=` seconds, at most 120 (RFC 7240)."),
        ("Range" = Option<String>, Header, example = "bytes=0-1023", description = "Of a file that the api sends: one range of bytes."),
        ("If-Range" = Option<String>, Header, description = "The ETag of the file that the range continues."),
    ),
    responses(
        (status = 302, description = "The file is at a URL that works for PRESIGN_TTL_SECONDS.",
            headers(("Location" = String, description = "As good as a password while it lives."))),
        (status = 200, description = "The file.", content(
            (Vec<u8> = "text/csv"), (Vec<u8> = "application/json"), (Vec<u8> = "application/x-ndjson"),
            (Vec<u8> = "application/xml"), (Vec<u8> = "application/octet-stream")), headers(
            ("Content-Disposition" = String, description = "`attachment` with the name of the file."),
            ("Content-Encoding" = Option<String>, description = "`gzip` or `zstd`, of a file that is compressed."),
            ("ETag" = Option<String>, description = "For If-Range."),
            ("Accept-Ranges" = Option<String>, description = "`bytes`"))),
        (status = 206, description = "The range of the file.", content(
            (Vec<u8> = "text/csv"), (Vec<u8> = "application/json"), (Vec<u8> = "application/x-ndjson"),
            (Vec<u8> = "application/xml"), (Vec<u8> = "application/octet-stream")),
            headers(("Content-Range" = String, description = "Which bytes these are."))),
        (status = 202, description = "It is not finished.", body = ExportDocument,
            headers(("Retry-After" = u32, description = "Seconds after which to ask again."))),
    ),
)]
pub(crate) async fn download(
    State(app): State<Arc<AppState>>,
    ExportId(id): ExportId,
    client: Client,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, RouteError> {
    let delivery = match Parameters::read(&uri, &["delivery"])?.get("delivery") {
        Some(name) => read_delivery(name)?,
        None => app.download.delivery,
    };
    let preferred = wait::preferred(&headers);
    let wait = preferred.unwrap_or(app.download.wait);
    let mut export = find(&app, id).await?;
    if export.status.is_active() && !wait.is_zero() {
        let _permit = app.client_limits.acquire(LimitedUse::WaitingDownload, client)?;
        export = wait::until_ended(&app, id, wait).await?;
    }
    let mut response = match export.status {
        Status::Pending | Status::Planning | Status::Running | Status::Finishing => not_finished(&export),
        Status::Failed => {
            return Err(RouteError::ExportFailed { code: export.error_code, message: export.error });
        }
        Status::Cancelled | Status::Expired => return Err(RouteError::ExportGone(export.status)),
        Status::Completed if export.layout == Layout::Files => return Err(RouteError::SeveralFiles(id)),
        Status::Completed => match delivery {
            Delivery::Redirect => redirect::answer(&app, &export, &method).await?,
            Delivery::Proxy => {
                let permit = app.client_limits.acquire(LimitedUse::ProxiedDownload, client)?;
                hold_until_sent(proxy::answer(&app, &export, &method, &headers).await?, permit)
            }
        },
    };
    if let Some(wait) = preferred {
        let applied = HeaderValue::try_from(format!("wait={}", wait.as_secs())).expect("digits are a header value");
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

fn read_delivery(name: &str) -> Result<Delivery, RouteError> {
    Delivery::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, delivery)| delivery).ok_or_else(|| {
        let known = listed(Delivery::ALL.map(|(known, _)| known));
        RouteError::invalid("delivery", format!("unknown delivery {}; there is {known}", quoted(name)))
    })
}

fn not_finished(export: &Export) -> Response {
    let retry_after = HeaderValue::from(retry_after(export));
    (StatusCode::ACCEPTED, [(header::RETRY_AFTER, retry_after)], Json(ExportDocument::now(export))).into_response()
}
