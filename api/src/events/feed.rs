//! The feed: reads what is new in the ledger, once for all event streams of this process. It listens for notifications of
//! changes, polls for changes whose notification was lost, and broadcasts updates. It leaves the ledger alone while nobody is
//! subscribed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use polyglot_core::failure::chain;
use polyglot_core::status::Status;
use polyglot_ledger::{Change, Export, Ledger, LedgerError, Listener, with_timeout};
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::exports::document::ExportDocument;

/// Time over which notifications are collected before the exports are read: short enough that a progress bar moves
/// smoothly, and a hundred finished shards a second are four documents.
const COLLECT_INTERVAL: Duration = Duration::from_millis(250);

/// Interval between two reads of the ledger without a notification.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Time that the listening connection is kept open without a subscriber.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a call to the ledger that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Updates that a slow stream may be behind before it has to read the ledger again.
const BROADCAST_CAPACITY: usize = 256;

/// Active exports that one poll reads, newest first.
pub(super) const MAX_ACTIVE: i64 = 200;

/// The newest changes, which one poll reads or which are sent to a client that reconnects.
pub(super) const MAX_CHANGES: i64 = 1000;

/// How many ids before the newest known change a poll reads again: a transaction may commit after one with greater ids.
pub(super) const CHANGE_OVERLAP: i64 = 1000;

/// Exports whose delivered state is remembered. Beyond that all are forgotten, and documents may repeat.
const MAX_REMEMBERED: usize = 10_000;

/// The current state of an export, and the changes that led there.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) export_id: Uuid,
    pub(crate) status: Status,
    /// JSON, as `GET /exports/{id}` answers it.
    pub(crate) document: String,
    /// Changes since the previous update.
    pub(crate) changes: Vec<Change>,
    /// The number of the newest change, or of an earlier one where that is not known.
    pub(crate) change: i64,
}

impl Update {
    /// `known_change` is the newest change that is known of the export, for an update without changes; 0 if there is none.
    pub(super) fn new(export: &Export, changes: Vec<Change>, known_change: i64) -> Self {
        Self {
            export_id: export.id,
            status: export.status,
            document: serde_json::to_string(&ExportDocument::now(export))
                .expect("ExportDocument has no map and no serializer that fails"),
            change: changes.last().map_or(known_change, |change| change.id),
            changes,
        }
    }
}

/// What subscribers receive.
#[derive(Debug, Clone)]
pub(crate) enum FeedEvent {
    Update(Arc<Update>),
    /// Updates may have been missed: the subscriber has to read the ledger again.
    Resync,
}

/// Broadcasts updates to the event streams of this process.
pub(crate) struct Feed {
    events: broadcast::Sender<FeedEvent>,
    subscribed: Notify,
}

/// A stream's receiver.
pub(crate) struct Subscription {
    pub(crate) events: broadcast::Receiver<FeedEvent>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { events: broadcast::Sender::new(BROADCAST_CAPACITY), subscribed: Notify::new() }
    }
}

impl Feed {
    /// Subscribes to the updates from now on.
    pub(crate) fn subscribe(&self) -> Subscription {
        let events = self.events.subscribe();
        self.subscribed.notify_one();
        Subscription { events }
    }

    /// Feeds the streams until `stopping`.
    pub(crate) async fn run(self: Arc<Self>, ledger: Ledger, stopping: CancellationToken) {
        stopping
            .run_until_cancelled(async {
                loop {
                    while self.events.receiver_count() == 0 {
                        self.subscribed.notified().await;
                    }
                    // The driver's futures are large.
                    if let Err(error) = Box::pin(self.follow(&ledger)).await {
                        tracing::warn!(error = chain(&error), "the event feed cannot read the ledger, trying again");
                        sleep(RETRY_PAUSE).await;
                    }
                }
            })
            .await;
    }

    /// Broadcasts updates, until nobody has been subscribed for a while.
    async fn follow(&self, ledger: &Ledger) -> Result<(), LedgerError> {
        let mut listener = with_timeout(ledger.listen()).await?;
        let mut cursor = FeedCursor::after(with_timeout(ledger.last_change()).await?);
        // Earlier subscribers may have read the ledger before that, or have waited while it was not available.
        let _ = self.events.send(FeedEvent::Resync);
        let mut changed: BTreeSet<Uuid> = BTreeSet::new();
        let mut next_poll = Instant::now();
        let mut last_subscribed = Instant::now();
        loop {
            collect_notifications(&mut listener, &mut changed, next_poll).await?;
            if Instant::now() >= next_poll {
                changed.extend(with_timeout(cursor.poll(ledger)).await?);
                next_poll = Instant::now() + POLL_INTERVAL;
            }
            let ids: Vec<Uuid> = std::mem::take(&mut changed).into_iter().collect();
            for update in with_timeout(cursor.updates(ledger, &ids)).await? {
                // An error means that there is no subscriber at the moment.
                let _ = self.events.send(FeedEvent::Update(Arc::new(update)));
            }
            if self.events.receiver_count() > 0 {
                last_subscribed = Instant::now();
            } else if last_subscribed.elapsed() > IDLE_TIMEOUT {
                return Ok(());
            }
        }
    }
}

/// Adds the exports of notifications to `changed`, until `next_poll` or for a short while after the first notification.
async fn collect_notifications(
    listener: &mut Listener,
    changed: &mut BTreeSet<Uuid>,
    next_poll: Instant,
) -> Result<(), LedgerError> {
    let mut until = next_poll;
    while let Ok(notification) = timeout_at(until, listener.next()).await {
        match notification? {
            Some(exports) => changed.extend(exports),
            None => return Ok(()),
        }
        until = until.min(Instant::now() + COLLECT_INTERVAL);
    }
    Ok(())
}

/// What the feed has read and broadcast so far.
struct FeedCursor {
    delivered: HashMap<Uuid, DeliveredState>,
    /// Changes up to this one have been read.
    change: i64,
    /// Of an export that is not in `delivered`, only changes after this one are new.
    start: i64,
}

/// The state of one export that was broadcast last.
struct DeliveredState {
    change: i64,
    fingerprint: Fingerprint,
}

/// The parts of a document of which any change makes a new update.
type Fingerprint = (Status, i32, i64, i64, i32, i32);

fn fingerprint(export: &Export) -> Fingerprint {
    (export.status, export.attempt, export.rows, export.bytes, export.shards, export.shards_done)
}

impl FeedCursor {
    fn after(change: i64) -> Self {
        Self { delivered: HashMap::new(), change, start: change }
    }

    /// Finds exports that may have an update.
    async fn poll(&mut self, ledger: &Ledger) -> Result<Vec<Uuid>, LedgerError> {
        if self.delivered.len() > MAX_REMEMBERED {
            self.delivered.clear();
            self.start = self.change;
        }
        let mut ids = ledger.active(MAX_ACTIVE).await?;
        let changes = ledger.changes_after((self.change - CHANGE_OVERLAP).max(0), MAX_CHANGES).await?;
        self.change = changes.last().map_or(self.change, |change| change.id).max(self.change);
        let is_new = |change: &&Change| {
            let delivered = self.delivered.get(&change.export_id).map_or(self.start, |delivered| delivered.change);
            change.id > delivered
        };
        ids.extend(changes.iter().filter(is_new).map(|change| change.export_id));
        Ok(ids)
    }

    /// Reads the exports `ids` and returns those that have changed, in the order of their newest changes.
    async fn updates(&mut self, ledger: &Ledger, ids: &[Uuid]) -> Result<Vec<Update>, LedgerError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        // Documents are read first: a state that comes in between is in the changes, and its document comes again.
        let exports = ledger.find_all(ids).await?;
        let changed: Vec<Uuid> =
            exports.iter().filter(|export| !self.has_delivered_status(export)).map(|export| export.id).collect();
        let mut changes_by_export: HashMap<Uuid, Vec<Change>> = HashMap::new();
        for change in ledger.changes_of_all(&changed).await? {
            changes_by_export.entry(change.export_id).or_default().push(change);
        }
        let mut updates = Vec::new();
        for export in exports {
            let delivered = self.delivered.get(&export.id);
            let fingerprint = fingerprint(&export);
            if delivered.is_some_and(|delivered| delivered.fingerprint == fingerprint) {
                continue;
            }
            let before = delivered.map(|delivered| delivered.change);
            let mut changes = changes_by_export.remove(&export.id).unwrap_or_default();
            let newest = changes.last().map_or(before.unwrap_or(0), |change| change.id);
            // An export that is read for the first time may have changes from before the first subscription.
            changes.retain(|change| change.id > before.unwrap_or(self.start));
            updates.push(Update::new(&export, changes, newest));
            self.delivered.insert(export.id, DeliveredState { change: newest, fingerprint });
        }
        updates.sort_by_key(|update| update.change);
        Ok(updates)
    }

    fn has_delivered_status(&self, export: &Export) -> bool {
        let delivered = self.delivered.get(&export.id).map(|delivered| delivered.fingerprint);
        delivered.is_some_and(|(status, attempt, ..)| (status, attempt) == (export.status, export.attempt))
    }
}
