//! What is new in the ledger, read once for all the streams of this process: it listens for word of changes, looks by
//! itself now and then for those that no word came of, and passes documents on. Nobody asks the ledger while nobody
//! follows.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use polyglot_core::failure::chain;
use polyglot_core::status::Status;
use polyglot_ledger::{Change, Export, Ledger, LedgerError, Listener, in_time};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::exports::ExportDocument;

/// Between two looks at the exports that word came of: a bar moves smoothly, and a hundred shards a second are four
/// documents.
const GATHER: Duration = Duration::from_millis(250);

/// How often the ledger is looked at without word.
const LOOK: Duration = Duration::from_secs(2);

/// How long the connection that listens is kept for the next client.
const LINGER: Duration = Duration::from_secs(30);

/// After the ledger did not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// Streams of one process; each costs a few kilobytes.
const MOST_STREAMS: usize = 1000;

/// How many updates a slow client may be behind before its stream reads the ledger anew.
const BACKLOG: usize = 256;

/// The most active exports that a look considers, newest first.
pub(super) const MOST_ACTIVE: i64 = 200;

/// The most changes that a look, or a client that comes back, is told of.
pub(super) const MOST_CHANGES: i64 = 1000;

/// How far back is looked for changes that became visible late, and how far behind its last event a client that comes back
/// is told of them again.
pub(super) const OVERLAP: i64 = 1000;

/// How many exports are remembered. Beyond that all are forgotten, and documents may repeat.
const MOST_SEEN: usize = 10_000;

/// An export as it is now, and the states that led there.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) export_id: Uuid,
    pub(crate) status: Status,
    /// JSON, as `GET /exports/{id}` answers it.
    pub(crate) document: String,
    /// Behind those of the update before.
    pub(crate) changes: Vec<Change>,
    /// The number of the newest change, or of an earlier one where that is not known.
    pub(crate) change: i64,
}

impl Update {
    pub(super) fn new(export: &Export, changes: Vec<Change>, before: i64) -> Self {
        Self {
            export_id: export.id,
            status: export.status,
            document: serde_json::to_string(&ExportDocument::now(export)).expect("a struct of strings serializes"),
            change: changes.last().map_or(before, |change| change.id),
            changes,
        }
    }
}

/// What a stream gets.
#[derive(Debug, Clone)]
pub(crate) enum News {
    Update(Arc<Update>),
    /// Something may have been missed: everything is to be read anew.
    Anew,
}

/// Where streams get their updates; one for a process.
pub(crate) struct Feed {
    updates: broadcast::Sender<News>,
    wanted: Notify,
    streams: Arc<Semaphore>,
}

/// A stream's place in the feed.
pub(crate) struct Subscription {
    pub(crate) updates: broadcast::Receiver<News>,
    _place: OwnedSemaphorePermit,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            updates: broadcast::Sender::new(BACKLOG),
            wanted: Notify::new(),
            streams: Arc::new(Semaphore::new(MOST_STREAMS)),
        }
    }
}

impl Feed {
    /// Everything new from now on; `None` when there are too many streams already.
    pub(crate) fn subscribe(&self) -> Option<Subscription> {
        let place = Arc::clone(&self.streams).try_acquire_owned().ok()?;
        let updates = self.updates.subscribe();
        self.wanted.notify_one();
        Some(Subscription { updates, _place: place })
    }

    /// Feeds the streams until `stopping`.
    pub(crate) async fn run(self: Arc<Self>, ledger: Ledger, stopping: CancellationToken) {
        stopping
            .run_until_cancelled(async {
                loop {
                    while self.updates.receiver_count() == 0 {
                        self.wanted.notified().await;
                    }
                    // The driver's futures are large.
                    if let Err(error) = Box::pin(self.follow(&ledger)).await {
                        tracing::warn!(error = chain(&error), "the ledger cannot be followed, trying again");
                        sleep(AGAIN).await;
                    }
                }
            })
            .await;
    }

    /// Passes on what is new, until nobody has wanted it for a while.
    async fn follow(&self, ledger: &Ledger) -> Result<(), LedgerError> {
        let mut listener = in_time(ledger.listen()).await?;
        let mut seen = Seen::from(in_time(ledger.last_change()).await?);
        // Streams that were there before may have read the ledger before that, or have waited while it was away.
        let _ = self.updates.send(News::Anew);
        let mut word: BTreeSet<Uuid> = BTreeSet::new();
        let mut look_at = Instant::now();
        let mut wanted_at = Instant::now();
        loop {
            gather(&mut listener, &mut word, look_at).await?;
            if Instant::now() >= look_at {
                word.extend(in_time(seen.look(ledger)).await?);
                look_at = Instant::now() + LOOK;
            }
            let ids: Vec<Uuid> = std::mem::take(&mut word).into_iter().collect();
            for update in in_time(seen.read(ledger, &ids)).await? {
                // Nobody may be there to take it.
                let _ = self.updates.send(News::Update(Arc::new(update)));
            }
            if self.updates.receiver_count() > 0 {
                wanted_at = Instant::now();
            } else if wanted_at.elapsed() > LINGER {
                return Ok(());
            }
        }
    }
}

/// Collects word until it is time to look, or for a moment behind the first.
async fn gather(listener: &mut Listener, word: &mut BTreeSet<Uuid>, look_at: Instant) -> Result<(), LedgerError> {
    let mut until = look_at;
    while let Ok(heard) = timeout_at(until, listener.next()).await {
        match heard? {
            Some(exports) => word.extend(exports),
            None => return Ok(()),
        }
        until = until.min(Instant::now() + GATHER);
    }
    Ok(())
}

/// What the streams have been told.
struct Seen {
    exports: HashMap<Uuid, Told>,
    /// Changes up to this one have been looked at.
    change: i64,
    /// Those of an export that is met for the first time are news behind this one.
    start: i64,
}

struct Told {
    change: i64,
    mark: Mark,
}

/// What makes a document a new one.
type Mark = (Status, i32, i64, i64, i32, i32);

fn mark(export: &Export) -> Mark {
    (export.status, export.attempt, export.rows, export.bytes, export.shards, export.shards_done)
}

impl Seen {
    fn from(change: i64) -> Self {
        Self { exports: HashMap::new(), change, start: change }
    }

    /// Exports that may have something new.
    async fn look(&mut self, ledger: &Ledger) -> Result<Vec<Uuid>, LedgerError> {
        if self.exports.len() > MOST_SEEN {
            self.exports.clear();
            self.start = self.change;
        }
        let mut ids = ledger.active(MOST_ACTIVE).await?;
        // A number may become visible behind a greater one.
        let changes = ledger.changes_after((self.change - OVERLAP).max(0), MOST_CHANGES).await?;
        self.change = changes.last().map_or(self.change, |change| change.id).max(self.change);
        let untold = |change: &Change| match self.exports.get(&change.export_id) {
            Some(told) => told.change < change.id,
            None => change.id > self.start,
        };
        ids.extend(changes.iter().filter(|change| untold(change)).map(|change| change.export_id));
        Ok(ids)
    }

    /// What is new of these exports, in the order of their newest changes.
    async fn read(&mut self, ledger: &Ledger, ids: &[Uuid]) -> Result<Vec<Update>, LedgerError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        // Documents first: a state that comes in between is in the history, and its document comes again.
        let exports = ledger.find_all(ids).await?;
        let changed: Vec<Uuid> = exports.iter().filter(|export| !self.has_told_state(export)).map(|it| it.id).collect();
        let mut histories: HashMap<Uuid, Vec<Change>> = HashMap::new();
        for change in ledger.changes_of_all(&changed).await? {
            histories.entry(change.export_id).or_default().push(change);
        }
        let mut updates = Vec::new();
        for export in exports {
            let told = self.exports.get(&export.id);
            let mark = mark(&export);
            if told.is_some_and(|told| told.mark == mark) {
                continue;
            }
            let before = told.map_or(0, |told| told.change);
            let changes = histories.remove(&export.id).unwrap_or_default();
            let newest = changes.last().map_or(before, |change| change.id);
            // Of an export that is met for the first time the states from before the first stream are no news.
            let behind = if told.is_some() { before } else { self.start };
            let news = changes.into_iter().filter(|change| change.id > behind).collect();
            updates.push(Update::new(&export, news, newest));
            self.exports.insert(export.id, Told { change: newest, mark });
        }
        updates.sort_by_key(|update| update.change);
        Ok(updates)
    }

    fn has_told_state(&self, export: &Export) -> bool {
        let told = self.exports.get(&export.id);
        told.is_some_and(|told| (told.mark.0, told.mark.1) == (export.status, export.attempt))
    }
}
