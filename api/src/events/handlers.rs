//! `GET /exports/{id}/events` and `GET /events`: the requests, and the response as Server-Sent Events. The events of a
//! stream are written in `stream`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use polyglot_core::failure::chain;
use polyglot_ledger::{StreamSlot, with_timeout};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;
use utoipa::ToSchema;

use super::stream::{ClientDisconnected, Sender, StreamInterrupted, stream_all, stream_one};
use crate::client_limits::{Client, hold_until_sent};
use crate::exports::id::ExportId;
use crate::exports::inspect::find;
use crate::identity::Caller;
use crate::limited_use::LimitedUse;
use crate::problem::{RouteError, quoted};
use crate::state::AppState;
use crate::tenant_limits::HeldStream;
use crate::timeout;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tells proxies not to buffer the answer.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Interval of comments on a stream without events; shorter than the idle timeouts of common proxies.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Interval at which it is asked whether the client's credentials are still good.
const CREDENTIALS_INTERVAL: Duration = Duration::from_secs(20);

/// Events that are buffered for a slow client. Later updates wait in its subscription.
const BUFFERED_EVENTS: usize = 16;

/// An event, as a client takes it off the stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the description of the API; axum's own type is what is sent")]
pub(crate) struct StreamEvent {
    /// `state` or `export`
    event: String,
    /// The number of a change of state, of the newest one that the stream has told.
    #[schema(pattern = "^[0-9]+$")]
    id: String,
    /// JSON: of `state` `{"exportId","status","attempt","at"}`, of `export` the document of the export.
    data: String,
    /// Milliseconds after which to come back when the stream has ended.
    #[schema(required = false, value_type = u32)]
    retry: Option<u32>,
}

/// Follow an export.
///
/// Server-Sent Events until it has ended: `state` for every state that it comes to, with
/// `{"exportId","status","attempt","at"}`, and `export` with its document, as `GET /exports/{id}` answers it, each time that
/// there is something new. Ids grow; a client that comes back with the last one hears the states that it has missed.
#[utoipa::path(
    get, path = "/exports/{id}/events", operation_id = "follow_export", tag = "exports",
    params(("id" = Uuid, Path, description = "As POST /exports answers it."), ("Last-Event-ID" = Option<i64>, Header, minimum = 0, description = "The id of the last event that arrived.")),
    responses(
        (status = 200, description = "A stream.", content_type = "text/event-stream", body = StreamEvent),
        (status = 204, description = "It has ended, and the client knows. An EventSource asks no more."),
    ),
)]
pub(crate) async fn follow_export(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    ExportId(id): ExportId,
    client: Client,
    headers: HeaderMap,
) -> Result<Response, RouteError> {
    let last = last_event(&headers)?;
    let permit = app.client_limits.acquire(LimitedUse::EventStream, client)?;
    let held = app.tenant_gate.open_stream(&caller.tenant, &app.ledger, &app.lifecycle.tasks).await?;
    // Subscribed before the export is read, so that no change falls in between.
    let subscription = app.feed.subscribe();
    let export = find(&app, &caller, id).await?;
    if let Some(last) = last
        && !export.status.is_active()
        && timeout::ledger(app.ledger.changes_of(id, last)).await?.is_empty()
    {
        // The client has every event. 204 is the answer that keeps an EventSource from reconnecting.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let slot = held.as_ref().map(HeldStream::slot);
    let response = respond(&app, caller, slot, move |app, caller, events| async move {
        stream_one(&app, &caller, subscription, id, last.unwrap_or(0), &events).await
    });
    Ok(hold_until_sent(response, (permit, held)))
}

/// Follow all exports.
///
/// As of one, without an end: first the document of each export that is active, then what is new of any. Ids grow for each
/// export, and of different ones a smaller id may come later. A client that comes back may hear of a change twice; its id tells.
#[utoipa::path(
    get, path = "/events", operation_id = "follow_all_exports", tag = "exports",
    params(("Last-Event-ID" = Option<i64>, Header, minimum = 0, description = "The id of the last event that arrived.")),
    responses((status = 200, description = "A stream.", content_type = "text/event-stream", body = StreamEvent)),
)]
pub(crate) async fn follow_all_exports(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    client: Client,
    headers: HeaderMap,
) -> Result<Response, RouteError> {
    let last = last_event(&headers)?;
    let permit = app.client_limits.acquire(LimitedUse::EventStream, client)?;
    let held = app.tenant_gate.open_stream(&caller.tenant, &app.ledger, &app.lifecycle.tasks).await?;
    let subscription = app.feed.subscribe();
    // A ledger that is not available is a 503, not an empty stream.
    timeout::ledger(app.ledger.ping()).await?;
    let slot = held.as_ref().map(HeldStream::slot);
    let response = respond(&app, caller, slot, move |app, caller, events| async move {
        stream_all(&app, &caller, subscription, last, &events).await
    });
    Ok(hold_until_sent(response, (permit, held)))
}

fn last_event(headers: &HeaderMap) -> Result<Option<i64>, RouteError> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|id| *id >= 0);
    let problem =
        || format!("expected the id of an event, but it is {}", quoted(&String::from_utf8_lossy(value.as_bytes())));
    id.map(Some).ok_or_else(|| RouteError::invalid("Last-Event-ID", problem()))
}

/// Responds with the events that `write` sends, until it ends, the client disconnects, its credentials are not good any more, or
/// the process stops.
fn respond<F>(
    app: &Arc<AppState>,
    caller: Caller,
    slot: Option<StreamSlot>,
    write: impl FnOnce(Arc<AppState>, Caller, Sender) -> F,
) -> Response
where
    F: Future<Output = Result<Result<(), ClientDisconnected>, StreamInterrupted>> + Send + 'static,
{
    let (events, received) = mpsc::channel(BUFFERED_EVENTS);
    let writing = write(Arc::clone(app), caller.clone(), events.clone());
    let refused = until_refused(Arc::clone(app), caller, slot);
    let stopping = app.lifecycle.stopping.clone();
    app.lifecycle.tasks.spawn(
        async move {
            tokio::select! {
                ended = writing => match ended {
                    Ok(Ok(()) | Err(ClientDisconnected)) => {}
                    Err(error) => tracing::warn!(error = chain(&error), "event stream interrupted, the client has to reconnect"),
                },
                () = events.closed() => {}
                () = refused => tracing::info!("event stream ended, its client's credentials are not valid any more"),
                () = stopping.cancelled() => {}
            }
        }
        .in_current_span(),
    );
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE_INTERVAL);
    let mut response = Sse::new(ReceiverStream::new(received)).keep_alive(keep_alive).into_response();
    response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// Waits until the caller's credentials have been revoked or have expired, and keeps the stream's slot meanwhile.
async fn until_refused(app: Arc<AppState>, caller: Caller, slot: Option<StreamSlot>) {
    loop {
        tokio::time::sleep(CREDENTIALS_INTERVAL).await;
        if let Some(slot) = slot
            && let Err(error) = with_timeout(app.ledger.renew_stream(slot)).await
        {
            tracing::warn!(error = chain(&error), "the slot of an event stream could not be renewed");
        }
        if !app.authenticator.is_still_valid(&caller).await {
            return;
        }
    }
}
