//! The events of one stream: the state of the ledger when it begins, then the updates of the feed. A stream that has fallen
//! behind the feed reads the ledger again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use polyglot_ledger::{Change, Export, LedgerError, with_timeout};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::feed::{CHANGE_OVERLAP, FeedEvent, MAX_ACTIVE, MAX_CHANGES, Subscription, Update};
use crate::state::AppState;
use crate::timestamp::timestamp;

/// Time after which a client should reconnect when its stream has ended.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

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
    mut subscription: Subscription,
    id: Uuid,
    mut last: i64,
    events: &Sender,
) -> Result<Result<(), ClientDisconnected>, StreamInterrupted> {
    loop {
        // From the ledger at first, and again when the client was too slow for the feed or the feed has started over.
        // The document is read first: an end must not be sent without its state.
        let Some(export) = with_timeout(app.ledger.find(id)).await? else { return Ok(Ok(())) };
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

/// Sends everything about all exports: first those that are active and the changes after `last`, then the updates of the
/// feed, without an end.
pub(super) async fn stream_all(
    app: &AppState,
    mut subscription: Subscription,
    mut last: Option<i64>,
    events: &Sender,
) -> Result<Result<(), ClientDisconnected>, StreamInterrupted> {
    let mut first_change = last.map(|last| (last - CHANGE_OVERLAP).max(0));
    loop {
        let newest = with_timeout(app.ledger.last_change()).await?;
        // A new client gets no changes from before it connected, however often its stream reads the ledger again.
        let after = (last.unwrap_or(newest) - CHANGE_OVERLAP).max(*first_change.get_or_insert(newest));
        let mut missed: Vec<Change> = with_timeout(app.ledger.changes_after(after, MAX_CHANGES)).await?;
        missed.retain(|change| Some(change.id) != last);
        let mut ids = with_timeout(app.ledger.active(MAX_ACTIVE)).await?;
        ids.extend(missed.iter().map(|change| change.export_id));
        ids.sort_unstable();
        ids.dedup();
        for change in &missed {
            if events.send(Ok(state_event(change))).await.is_err() {
                return Ok(Err(ClientDisconnected));
            }
        }
        let exports: Vec<Export> = with_timeout(app.ledger.find_all(&ids)).await?;
        let mut sent = newest.max(last.unwrap_or(0));
        if exports.is_empty()
            && events.send(Ok(Event::default().retry(RECONNECT_AFTER).comment("nothing yet"))).await.is_err()
        {
            return Ok(Err(ClientDisconnected));
        }
        for export in &exports {
            if send(&Update::new(export, Vec::new(), sent), sent, sent, events).await.is_err() {
                return Ok(Err(ClientDisconnected));
            }
        }
        loop {
            match next(&mut subscription, |_| true).await {
                Ok(FeedEvent::Update(update)) => {
                    sent = sent.max(update.change);
                    if send(&update, 0, sent, events).await.is_err() {
                        return Ok(Err(ClientDisconnected));
                    }
                }
                Ok(FeedEvent::Resync) | Err(RecvError::Lagged(_)) => break last = Some(sent),
                Err(RecvError::Closed) => return Ok(Ok(())),
            }
        }
    }
}

/// Waits for the next feed event, without the updates that are not `wanted`.
async fn next(subscription: &mut Subscription, wanted: impl Fn(&Update) -> bool) -> Result<FeedEvent, RecvError> {
    loop {
        match subscription.events.recv().await? {
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
