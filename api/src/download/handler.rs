//! The request: which delivery, how long to wait, and the answer for each state of the export.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use polyglot_core::request::Layout;
use polyglot_core::status::Status;
use polyglot_ledger::{AuditAction, AuditEvent, Export};

use super::wait::{MAX_CONTINUATIONS, WaitPreference};
use super::{proxy, redirect, wait};
use crate::audit;
use crate::client_limits::{Client, hold_until_sent};
use crate::config::{Delivery, MAX_WAIT};
use crate::exports::document::{ExportDocument, retry_after};
use crate::exports::id::ExportId;
use crate::exports::inspect::find;
use crate::identity::Caller;
use crate::limited_use::LimitedUse;
use crate::problem::{RouteError, listed, quoted};
use crate::query::Parameters;
use crate::state::AppState;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Download the file.
///
/// Waits for an export that is under way. When that takes longer than one answer may, it redirects to itself to wait on, up to
/// 48 times, and then answers 503; a client that sends `Prefer: respond-async` or a `wait` gets 202 with the state instead.
/// HEAD answers alike.
#[utoipa::path(
    get, path = "/exports/{id}/download", operation_id = "download_export", tag = "exports",
    params(("id" = Uuid, Path, description = "As POST /exports answers it."),
        ("delivery" = Option<Delivery>, Query, description = "Who sends the file; as DOWNLOAD_MODE says unless told."),
        ("wait" = Option<u64>, Query, minimum = 0, maximum = 120,
            description = "Seconds to wait for the export, and then to answer 202 if it is not finished."),
        ("waits" = Option<u64>, Query, minimum = 0, maximum = 48,
            description = "How many times the request was redirected to wait on. The service sets it; leave it out."),
        ("Prefer" = Option<String>, Header, example = "respond-async, wait=10",
            description = "`respond-async`: answer 202 if the export is not finished in time. `wait=` seconds, at most 120: the \
                           same, and the time (RFC 7240)."),
        ("Range" = Option<String>, Header, example = "bytes=0-1023", description = "Of a file that the api sends: one range of bytes."),
        ("If-Range" = Option<String>, Header, description = "The ETag of the file that the range continues."),
        ("If-None-Match" = Option<String>, Header, description = "Of a file that the api sends: ETags of the copies that the \
            client has, or `*`."),
        ("Accept-Encoding" = Option<String>, Header, example = "identity", description = "Of a file that the api sends: one that is \
            compressed with gzip is unpacked for a client that does not take it, and one with zstd is sent as a file of its own."),
    ),
    responses(
        (status = 302, description = "The file is at a URL that works for PRESIGN_TTL_SECONDS.",
            headers(("Location" = String, description = "As good as a password while it lives."))),
        (status = 200, description = "The file.", content(
            (Vec<u8> = "text/csv"), (Vec<u8> = "application/json"), (Vec<u8> = "application/x-ndjson"),
            (Vec<u8> = "application/xml"), (Vec<u8> = "application/octet-stream"),
            (Vec<u8> = "application/gzip"), (Vec<u8> = "application/zstd")), headers(
            ("Content-Disposition" = String, description = "`attachment` with the name of the file."),
            ("Content-Encoding" = Option<String>, description = "`gzip` or `zstd`, of a file that is compressed."),
            ("ETag" = Option<String>, description = "For If-Range and If-None-Match."),
            ("Vary" = Option<String>, description = "`Accept-Encoding`, of a file that is compressed."),
            ("Accept-Ranges" = Option<String>, description = "`bytes`, unless it is unpacked on its way."))),
        (status = 304, description = "The client has the file already.",
            headers(("ETag" = Option<String>, description = "Of the file."))),
        (status = 206, description = "The range of the file.", content(
            (Vec<u8> = "text/csv"), (Vec<u8> = "application/json"), (Vec<u8> = "application/x-ndjson"),
            (Vec<u8> = "application/xml"), (Vec<u8> = "application/octet-stream"),
            (Vec<u8> = "application/gzip"), (Vec<u8> = "application/zstd")),
            headers(("Content-Range" = String, description = "Which bytes these are."))),
        (status = 202, description = "It is not finished, to a client that asked for this answer: with `wait`, or with \
            `respond-async` or `wait` in `Prefer`.", body = ExportDocument,
            headers(("Retry-After" = u32, description = "Seconds after which to ask again."))),
        (status = 307, description = "It is not finished: the same again, to wait on.",
            headers(("Location" = String, description = "This resource, with a counter in the query."))),
    ),
)]
pub(crate) async fn download(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    ExportId(id): ExportId,
    client: Client,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, RouteError> {
    let parameters = Parameters::read(&uri, &["delivery", "wait", "waits"])?;
    let delivery = match parameters.get("delivery") {
        Some(name) => read_delivery(name)?,
        None => app.download.delivery,
    };
    let asked = parameters.number("wait", 0..=MAX_WAIT.as_secs())?.map(Duration::from_secs);
    let continuations = parameters.number("waits", 0..=MAX_CONTINUATIONS)?.unwrap_or(0);
    let preference = WaitPreference::of(&headers);
    let wait = asked.or(preference.wait).unwrap_or(app.download.wait);
    let mut export = find(&app, &caller, id).await?;
    if export.status.is_active() && !wait.is_zero() {
        let _permit = app.client_limits.acquire(LimitedUse::WaitingDownload, client)?;
        export = wait::until_ended(&app, &caller, id, wait).await?;
    }
    let mut response = match export.status {
        Status::Pending | Status::Planning | Status::Running | Status::Finishing => {
            if asked.is_some() || preference.takes_accepted() {
                accepted(&export)
            } else if wait.is_zero() || continuations == MAX_CONTINUATIONS {
                return Err(RouteError::FileNotReady { status: export.status, retry_after: retry_after(&export) });
            } else {
                wait_on(parameters.get("delivery"), continuations + 1)
            }
        }
        Status::Failed => {
            return Err(RouteError::ExportFailed { code: export.error_code, message: export.error });
        }
        Status::Cancelled | Status::Expired => return Err(RouteError::ExportGone(export.status)),
        Status::Completed if export.layout == Layout::Files => return Err(RouteError::SeveralFiles(id)),
        Status::Completed => {
            let event = audit::of_export(AuditAction::Download, &caller, &export);
            audit::record(&app, AuditEvent { detail: Some(delivery.name()), ..event }).await?;
            hand_out(&app, &export, delivery, client, &method, &headers).await?
        }
    };
    if let Some(applied) = preference.applied(asked.is_none()) {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

/// The file, or the way to it.
async fn hand_out(
    app: &AppState,
    export: &Export,
    delivery: Delivery,
    client: Client,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, RouteError> {
    match delivery {
        Delivery::Redirect => redirect::answer(app, export, method).await,
        Delivery::Proxy => {
            let permit = app.client_limits.acquire(LimitedUse::ProxiedDownload, client)?;
            Ok(hold_until_sent(proxy::answer(app, export, method, headers).await?, permit))
        }
    }
}

fn read_delivery(name: &str) -> Result<Delivery, RouteError> {
    Delivery::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, delivery)| delivery).ok_or_else(|| {
        let known = listed(Delivery::ALL.map(|(known, _)| known));
        RouteError::invalid("delivery", format!("unknown delivery {}; there is {known}", quoted(name)))
    })
}

/// 202 with the state. Only a client that asked for it gets this: others would take any 2xx for the file.
fn accepted(export: &Export) -> Response {
    let retry_after = HeaderValue::from(retry_after(export));
    (StatusCode::ACCEPTED, [(header::RETRY_AFTER, retry_after)], Json(ExportDocument::now(export))).into_response()
}

/// 307 to the same resource. The reference is relative, so it holds behind a reverse proxy that puts a path in front; of the
/// query only known values are repeated.
fn wait_on(delivery: Option<&str>, continuations: u64) -> Response {
    let delivery = delivery.map(|name| format!("delivery={name}&")).unwrap_or_default();
    let location = HeaderValue::try_from(format!("download?{delivery}waits={continuations}"))
        .expect("the name of a delivery and a number are ASCII");
    let headers = [(header::LOCATION, location), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::TEMPORARY_REDIRECT, headers).into_response()
}
