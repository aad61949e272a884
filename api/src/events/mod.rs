//! `GET /exports/{id}/events` and `GET /events`: Server-Sent Events with every state of an export and its document each
//! time that it has something new. Where the news come from is `feed`.

mod feed;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chrono::SecondsFormat;
use polyglot_core::failure::chain;
use polyglot_ledger::{Change, Export, in_time};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::exports::{ExportId, find};
use crate::patience;
use crate::problem::{RouteError, quoted};
use crate::server::App;

pub(crate) use feed::Feed;
use feed::{MOST_ACTIVE, MOST_CHANGES, News, OVERLAP, Subscription, Update};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Proxies that would collect an answer before they pass it on are told not to.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Below the shortest time after which a proxy cuts a silent connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// When a client should come back after its connection was cut.
const RECONNECT: Duration = Duration::from_secs(1);

/// Events that wait for a slow client; what comes behind them waits in the feed.
const PENDING: usize = 16;

type Sender = mpsc::Sender<Result<Event, Infallible>>;

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

/// The client is not there any more.
struct Gone;

/// Why a stream ends before its export does. The client comes back.
#[derive(Debug, thiserror::Error)]
#[error("a stream of events is cut")]
struct Cut(#[from] polyglot_ledger::LedgerError);

/// Follows an export.
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
pub(crate) async fn of_one(
    State(app): State<Arc<App>>,
    ExportId(id): ExportId,
    headers: HeaderMap,
) -> Result<Response, RouteError> {
    let last = last_event(&headers)?;
    // Before the first look, so that nothing falls in between.
    let subscription = app.feed.subscribe().ok_or(RouteError::TooManyStreams)?;
    let export = find(&app, id).await?;
    if let Some(last) = last
        && !export.status.is_active()
        && patience::ledger(app.ledger.changes_of(id, last)).await?.is_empty()
    {
        // It has heard everything; of all answers this one keeps an EventSource from asking again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(stream(
        &app,
        move |app, events| async move { follow_one(&app, subscription, id, last.unwrap_or(0), &events).await },
    ))
}

/// Follows all exports.
///
/// As of one, without an end: first the document of each export that is active, then what is new of any. Ids grow for each
/// export, and of different ones a smaller id may come later. A client that comes back may hear of a change twice; its id tells.
#[utoipa::path(
    get, path = "/events", operation_id = "follow_all_exports", tag = "exports",
    params(("Last-Event-ID" = Option<i64>, Header, minimum = 0, description = "The id of the last event that arrived.")),
    responses((status = 200, description = "A stream.", content_type = "text/event-stream", body = StreamEvent)),
)]
pub(crate) async fn of_all(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, RouteError> {
    let last = last_event(&headers)?;
    let subscription = app.feed.subscribe().ok_or(RouteError::TooManyStreams)?;
    // So that a ledger that is away is a 503 and no empty stream.
    patience::ledger(app.ledger.ping()).await?;
    Ok(stream(&app, move |app, events| async move { follow_all(&app, subscription, last, &events).await }))
}

fn last_event(headers: &HeaderMap) -> Result<Option<i64>, RouteError> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|id| *id >= 0);
    let problem =
        || format!("expected the id of an event, but it is {}", quoted(&String::from_utf8_lossy(value.as_bytes())));
    id.map(Some).ok_or_else(|| RouteError::invalid("Last-Event-ID", problem()))
}

/// An answer that goes on as long as `follow` does, the client is there, and the process runs.
fn stream<F>(app: &Arc<App>, follow: impl FnOnce(Arc<App>, Sender) -> F) -> Response
where
    F: Future<Output = Result<Result<(), Gone>, Cut>> + Send + 'static,
{
    let (events, received) = mpsc::channel(PENDING);
    let following = follow(Arc::clone(app), events.clone());
    let stopping = app.lifecycle.stopping.clone();
    app.lifecycle.tasks.spawn(
        async move {
            tokio::select! {
                followed = following => match followed {
                    Ok(Ok(()) | Err(Gone)) => {}
                    Err(cut) => tracing::warn!(error = chain(&cut), "a client has to come back for more"),
                },
                () = events.closed() => {}
                () = stopping.cancelled() => {}
            }
        }
        .in_current_span(),
    );
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(ReceiverStream::new(received)).keep_alive(keep_alive).into_response();
    response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// Everything of one export behind change `last`, until it has ended.
async fn follow_one(
    app: &App,
    mut subscription: Subscription,
    id: Uuid,
    mut last: i64,
    events: &Sender,
) -> Result<Result<(), Gone>, Cut> {
    loop {
        // Through the ledger at first, and again when the client was too slow for the feed, or the feed began anew.
        // The document first: the end is not to be told without its state.
        let Some(export) = in_time(app.ledger.find(id)).await? else { return Ok(Ok(())) };
        let changes = in_time(app.ledger.changes_of(id, last)).await?;
        let mut update = Arc::new(Update::new(&export, changes, last));
        loop {
            let behind = last;
            last = last.max(update.change);
            let sent = send(&update, behind, last, events).await;
            if sent.is_err() || !update.status.is_active() {
                return Ok(sent);
            }
            update = match next(&mut subscription, |update| update.export_id == id).await {
                Ok(News::Update(update)) => update,
                Ok(News::Anew) | Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return Ok(Ok(())),
            };
        }
    }
}

/// Everything of all exports: those that are active first, and what has changed behind change `last`.
async fn follow_all(
    app: &App,
    mut subscription: Subscription,
    mut last: Option<i64>,
    events: &Sender,
) -> Result<Result<(), Gone>, Cut> {
    let mut floor = last.map(|last| (last - OVERLAP).max(0));
    loop {
        let newest = in_time(app.ledger.last_change()).await?;
        // What was before a client came for the first time is no news to it, however often it is read anew.
        let behind = (last.unwrap_or(newest) - OVERLAP).max(*floor.get_or_insert(newest));
        let mut missed: Vec<Change> = in_time(app.ledger.changes_after(behind, MOST_CHANGES)).await?;
        missed.retain(|change| Some(change.id) != last);
        let mut ids = in_time(app.ledger.active(MOST_ACTIVE)).await?;
        ids.extend(missed.iter().map(|change| change.export_id));
        ids.sort_unstable();
        ids.dedup();
        for change in &missed {
            if events.send(Ok(state(change))).await.is_err() {
                return Ok(Err(Gone));
            }
        }
        let exports: Vec<Export> = in_time(app.ledger.find_all(&ids)).await?;
        let mut told = newest.max(last.unwrap_or(0));
        if exports.is_empty()
            && events.send(Ok(Event::default().retry(RECONNECT).comment("nothing yet"))).await.is_err()
        {
            return Ok(Err(Gone));
        }
        for export in &exports {
            if send(&Update::new(export, Vec::new(), told), told, told, events).await.is_err() {
                return Ok(Err(Gone));
            }
        }
        loop {
            match next(&mut subscription, |_| true).await {
                Ok(News::Update(update)) => {
                    told = told.max(update.change);
                    if send(&update, 0, told, events).await.is_err() {
                        return Ok(Err(Gone));
                    }
                }
                Ok(News::Anew) | Err(RecvError::Lagged(_)) => break last = Some(told),
                Err(RecvError::Closed) => return Ok(Ok(())),
            }
        }
    }
}

async fn next(subscription: &mut Subscription, wanted: impl Fn(&Update) -> bool) -> Result<News, RecvError> {
    loop {
        match subscription.updates.recv().await? {
            News::Update(update) if !wanted(&update) => {}
            news => return Ok(news),
        }
    }
}

/// The states behind change `behind`, and the document under the number of the newest change that the stream has told.
async fn send(update: &Update, behind: i64, newest: i64, events: &Sender) -> Result<(), Gone> {
    for change in update.changes.iter().filter(|change| change.id > behind) {
        events.send(Ok(state(change))).await.map_err(|_| Gone)?;
    }
    let event = Event::default().event("export").id(newest.to_string()).retry(RECONNECT).data(&update.document);
    events.send(Ok(event)).await.map_err(|_| Gone)
}

fn state(change: &Change) -> Event {
    let data = json!({
        "exportId": change.export_id, "status": change.status.name(), "attempt": change.attempt,
        "at": change.at.to_rfc3339_opts(SecondsFormat::Millis, true),
    });
    Event::default().event("state").id(change.id.to_string()).data(data.to_string())
}
