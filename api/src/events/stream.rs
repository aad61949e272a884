//! The events of one stream: the state of the ledger when it begins, then the updates of the feed. A stream that has fallen
//! behind the feed reads the ledger again.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use polyglot_ledger::{Change, LedgerError, TenantView, with_timeout};
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::feed::{FeedEvent, MAX_ACTIVE};
use super::update::Update;
use crate::identity::Caller;
use crate::state::AppState;
use crate::timestamp::timestamp;

/// Time after which a client should reconnect when its stream has ended.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// The newest changes that are sent to a client that reconnects. One that was away for longer has to read the list anyway.
const MAX_MISSED: i64 = 1000;

/// How many ids before its last event the changes are sent again to a client that reconnects: a transaction may have committed
/// after one with greater ids.
const CHANGE_OVERLAP: i64 = 1000;

/// Changes, and exports, that a stream reads at a time. A client that does not read holds as many in memory, and there may be a
/// thousand of them.
const CHANGE_PAGE: i64 = 200;
const DOCUMENT_PAGE: usize = 50;

pub(super) type Sender = mpsc::Sender<Result<Event, Infallible>>;

/// The client has closed its connection.
pub(super) struct ClientDisconnected;

/// The stream ends before its export does, because the ledger cannot be read. The client reconnects.
#[derive(Debug, thiserror::Error)]
#[error("the ledger cannot be read")]
pub(super) struct StreamInterrupted(#[from] LedgerError);

/// Sends everything about one export after change `last`, until the export has ended.
pub(super) async fn stream_one(
    app: &AppState,
    caller: &Caller,
    mut subscription: Receiver<FeedEvent>,
    id: Uuid,
    mut last: i64,
    events: &Sender,
) -> Result<Result<(), ClientDisconnected>, StreamInterrupted> {
    let view = caller.view(&app.ledger);
    loop {
        // From the ledger at first, and again when the client was too slow for the feed or the feed has started over.
        // The document is read first: an end must not be sent without its state.
        let Some(export) = with_timeout(view.find(id)).await? else { return Ok(Ok(())) };
        let changes = with_timeout(app.ledger.changes_of(id, last)).await?;
        let mut update = Arc::new(Update::new(&export, changes, last));
        loop {
            let after = last;
            last = last.max(update.change);
            let sent = send(&update, after, last, events).await;
            if sent.is_err() || !update.status.is_active() {
                return Ok(sent);
            }
            update = match next(&mut subscription, |update| update.export_id == id).await {
                Ok(FeedEvent::Update(update)) => update,
                Ok(FeedEvent::Resync) | Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return Ok(Ok(())),
            };
        }
    }
}

/// Sends everything about all exports: first the changes after `last`, with the documents of their exports, and the documents of
/// those that are active, then the updates of the feed, without an end.
pub(super) async fn stream_all(
    app: &AppState,
    caller: &Caller,
    mut subscription: Receiver<FeedEvent>,
    last: Option<i64>,
    events: &Sender,
) -> Result<Result<(), ClientDisconnected>, StreamInterrupted> {
    let view = caller.view(&app.ledger);
    let newest = with_timeout(app.ledger.last_change()).await?;
    // Every change up to `settled` was sent. A new client gets none from before it has connected.
    let mut settled = match last {
        Some(last) => (last - CHANGE_OVERLAP).max(with_timeout(view.newest_changes(MAX_MISSED)).await?),
        None => newest,
    };
    // The id of the newest event.
    let mut sent = last.unwrap_or(newest);
    let mut known = last;
    loop {
        // Again when the client was too slow for the feed or the feed has started over. What the feed sends meanwhile may come
        // twice, and nothing is left out.
        let caught_up = catch_up(view, settled, known.take(), &mut sent, events).await?;
        if caught_up.is_err() {
            return Ok(caught_up);
        }
        loop {
            match next(&mut subscription, |update| {
                // Another's brings the position forward, too.
                settled = settled.max(update.settled);
                update.is_for(caller)
            })
            .await
            {
                Ok(FeedEvent::Update(update)) => {
                    sent = sent.max(update.change);
                    settled = settled.max(update.settled);
                    if send(&update, 0, sent, events).await.is_err() {
                        return Ok(Err(ClientDisconnected));
                    }
                }
                Ok(FeedEvent::Resync) | Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return Ok(Ok(())),
            }
        }
    }
}

/// Sends all changes after `settled` but the one that is `known`, in order, each page of them with the documents of its exports,
/// and then the documents of active exports. `sent` is the id of the newest event, before and after.
async fn catch_up(
    view: TenantView<'_>,
    settled: i64,
    known: Option<i64>,
    sent: &mut i64,
    events: &Sender,
) -> Result<Result<(), ClientDisconnected>, StreamInterrupted> {
    let mut after = settled;
    loop {
        let changes = with_timeout(view.changes_after(after, CHANGE_PAGE)).await?;
        let Some(last) = changes.last() else { break };
        after = last.id;
        let is_last_page = i64::try_from(changes.len()).is_ok_and(|read| read < CHANGE_PAGE);
        for change in changes.iter().filter(|change| Some(change.id) != known) {
            if events.send(Ok(state_event(change))).await.is_err() {
                return Ok(Err(ClientDisconnected));
            }
        }
        *sent = after.max(*sent);
        let ids: BTreeSet<Uuid> = changes.into_iter().map(|change| change.export_id).collect();
        let documents = send_documents(view, ids.into_iter().collect(), *sent, events).await?;
        if documents.is_err() {
            return Ok(documents);
        }
        if is_last_page {
            break;
        }
    }
    let active = with_timeout(view.active(MAX_ACTIVE)).await?;
    if active.is_empty() {
        // Something has to be sent, with the time after which to reconnect.
        let nothing = Event::default().retry(RECONNECT_AFTER).comment("nothing yet");
        return Ok(events.send(Ok(nothing)).await.map_err(|_| ClientDisconnected));
    }
    send_documents(view, active, *sent, events).await
}

/// Sends the documents of these exports, a page at a time, with `id` as their id.
async fn send_documents(
    view: TenantView<'_>,
    exports: Vec<Uuid>,
    id: i64,
    events: &Sender,
) -> Result<Result<(), ClientDisconnected>, StreamInterrupted> {
    for page in exports.chunks(DOCUMENT_PAGE) {
        for export in with_timeout(view.find_all(page)).await? {
            if send(&Update::new(&export, Vec::new(), id), id, id, events).await.is_err() {
                return Ok(Err(ClientDisconnected));
            }
        }
    }
    Ok(Ok(()))
}

/// Waits for the next feed event, without the updates that are not `wanted`.
async fn next(
    subscription: &mut Receiver<FeedEvent>,
    mut wanted: impl FnMut(&Update) -> bool,
) -> Result<FeedEvent, RecvError> {
    loop {
        match subscription.recv().await? {
            FeedEvent::Update(update) if !wanted(&update) => {}
            event => return Ok(event),
        }
    }
}

/// Sends the state events after change `after`, and the document with `newest`, the newest change on this stream, as its id.
async fn send(update: &Update, after: i64, newest: i64, events: &Sender) -> Result<(), ClientDisconnected> {
    for change in update.changes.iter().filter(|change| change.id > after) {
        events.send(Ok(state_event(change))).await.map_err(|_| ClientDisconnected)?;
    }
    let event = Event::default().event("export").id(newest.to_string()).retry(RECONNECT_AFTER).data(&update.document);
    events.send(Ok(event)).await.map_err(|_| ClientDisconnected)
}

fn state_event(change: &Change) -> Event {
    let data = json!({
        "exportId": change.export_id, "status": change.status.name(), "attempt": change.attempt,
        "at": timestamp(change.at),
    });
    Event::default().event("state").id(change.id.to_string()).data(data.to_string())
}
