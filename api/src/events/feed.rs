//! The feed: reads what is new in the ledger, once for all event streams and waiting downloads of this process. It listens for
//! notifications of changes, polls for changes whose notification was lost, broadcasts updates to streams, and wakes requests
//! whose export has ended. It leaves the ledger alone while nobody follows or waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use polyglot_core::failure::chain;
use polyglot_ledger::{Ledger, LedgerError, with_timeout};
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::cursor::FeedCursor;
use super::end_waits::{EndWait, EndWaits};
use super::update::Update;

/// Time over which notifications are collected before the exports are read: short enough that a progress bar moves
/// smoothly, and a hundred finished shards a second are four documents.
const COLLECT_INTERVAL: Duration = Duration::from_millis(250);

/// Time over which notifications are collected before it is asked whether an export that is waited for has ended.
const END_INTERVAL: Duration = Duration::from_millis(25);

/// Interval between two reads of the ledger without a notification.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Time that the listening connection is kept open while nobody follows or waits.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a call to the ledger that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Updates that a slow stream may be behind before it has to read the ledger again.
const BROADCAST_CAPACITY: usize = 256;

/// Active exports that one poll reads, newest first.
pub(super) const MAX_ACTIVE: i64 = 200;

/// Changes that are read at a time.
const CHANGE_PAGE: i64 = 1000;

/// Exports whose documents are read at a time, which bounds the memory that a read takes. Fewer than a subscriber may be behind,
/// so that one that keeps up misses none of them.
const DOCUMENT_PAGE: usize = 100;

/// Exports that are waited for and looked up at a time.
const ENDS_PAGE: usize = 1000;

/// What subscribers receive.
#[derive(Debug, Clone)]
pub(crate) enum FeedEvent {
    Update(Arc<Update>),
    /// Updates may have been missed: the subscriber has to read the ledger again.
    Resync,
}

/// Broadcasts updates to the event streams of this process, and wakes its requests that wait for the end of an export.
pub(crate) struct Feed {
    events: broadcast::Sender<FeedEvent>,
    end_waits: EndWaits,
    /// Somebody follows or waits from now on.
    subscribed: Notify,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            events: broadcast::Sender::new(BROADCAST_CAPACITY),
            end_waits: EndWaits::default(),
            subscribed: Notify::new(),
        }
    }
}

impl Feed {
    /// Subscribes to the updates from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<FeedEvent> {
        let events = self.events.subscribe();
        self.subscribed.notify_one();
        events
    }

    /// Begins to wait for an export to end. What ends before this is called is not noticed.
    pub(crate) fn wait_for_end(&self, export_id: Uuid) -> EndWait<'_> {
        let wait = self.end_waits.add(export_id);
        self.subscribed.notify_one();
        wait
    }

    fn has_streams(&self) -> bool {
        self.events.receiver_count() > 0
    }

    fn is_in_use(&self) -> bool {
        self.has_streams() || !self.end_waits.is_empty()
    }

    /// Feeds streams and waiting requests until `stopping`.
    pub(crate) async fn run(self: Arc<Self>, ledger: Ledger, stopping: CancellationToken) {
        stopping
            .run_until_cancelled(async {
                loop {
                    while !self.is_in_use() {
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

    /// Broadcasts updates and wakes waiting requests, until nobody has followed or waited for a while.
    async fn follow(&self, ledger: &Ledger) -> Result<(), LedgerError> {
        let mut listener = with_timeout(ledger.listen()).await?;
        // `None` while there is no stream: then documents and changes are not read.
        let mut cursor: Option<FeedCursor> = None;
        let mut due = Due::at_once();
        let (mut last_used, mut last_streamed) = (Instant::now(), Instant::now());
        let mut changed: BTreeSet<Uuid> = BTreeSet::new();
        let mut perhaps_ended: BTreeSet<Uuid> = BTreeSet::new();
        loop {
            tokio::select! {
                biased;
                notified = timeout_at(due.next(), listener.next()) => if let Ok(notification) = notified {
                    if let Some(exports) = notification? {
                        due.documents_within(COLLECT_INTERVAL);
                        let waited_for = exports.iter().filter(|export_id| self.end_waits.contains(**export_id));
                        let known = perhaps_ended.len();
                        perhaps_ended.extend(waited_for);
                        if perhaps_ended.len() > known {
                            due.ends_within(END_INTERVAL);
                        }
                        if cursor.is_some() {
                            changed.extend(exports);
                        }
                    } else {
                        // The connection was made again, and notifications may be lost.
                        due = Due::at_once();
                    }
                },
                // The first stream after a while waits neither for a notification nor for a poll.
                () = self.subscribed.notified(), if cursor.is_none() => if self.has_streams() {
                    due = Due::at_once();
                },
            }
            let now = Instant::now();
            if self.is_in_use() {
                last_used = now;
            } else if last_used.elapsed() > IDLE_TIMEOUT {
                return Ok(());
            }
            if self.has_streams() {
                last_streamed = now;
            } else if last_streamed.elapsed() > IDLE_TIMEOUT {
                cursor = None;
                changed.clear();
            }
            let polls = due.take_poll(now);
            let (asks_for_ends, reads_documents) = (due.take_ends(now), due.take_documents(now));
            if polls {
                perhaps_ended.extend(self.end_waits.ids());
            }
            if polls || asks_for_ends {
                self.wake_ended(ledger, std::mem::take(&mut perhaps_ended)).await?;
            }
            if cursor.is_none() && self.has_streams() {
                cursor = Some(FeedCursor::after(with_timeout(ledger.last_change()).await?));
                // The subscribers may have read the ledger before that, or have waited while it was not available.
                let _ = self.events.send(FeedEvent::Resync);
            }
            if let Some(cursor) = &mut cursor {
                if polls {
                    changed.extend(with_timeout(ledger.active(MAX_ACTIVE)).await?);
                }
                if polls || reads_documents {
                    let ids: Vec<Uuid> = std::mem::take(&mut changed).into_iter().collect();
                    self.broadcast(ledger, cursor, &ids).await?;
                }
                if polls {
                    self.broadcast_changes(ledger, cursor).await?;
                }
            }
        }
    }

    /// Broadcasts every change that was not, in order and a page at a time, however many there are.
    async fn broadcast_changes(&self, ledger: &Ledger, cursor: &mut FeedCursor) -> Result<(), LedgerError> {
        let mut after = cursor.settled();
        loop {
            let changes = with_timeout(ledger.changes_after(after, CHANGE_PAGE)).await?;
            let news = cursor.with_news(&changes);
            self.broadcast(ledger, cursor, &news).await?;
            cursor.advance(&changes);
            match changes.last() {
                Some(last) if i64::try_from(changes.len()).is_ok_and(|read| read == CHANGE_PAGE) => after = last.id,
                _ => break,
            }
        }
        cursor.end_poll();
        Ok(())
    }

    /// Reads these exports, a page at a time, and broadcasts what is new of them.
    async fn broadcast(&self, ledger: &Ledger, cursor: &mut FeedCursor, ids: &[Uuid]) -> Result<(), LedgerError> {
        for page in ids.chunks(DOCUMENT_PAGE) {
            for update in cursor.updates(ledger, page).await? {
                // An error means that there is no subscriber at the moment.
                let _ = self.events.send(FeedEvent::Update(Arc::new(update)));
            }
        }
        Ok(())
    }

    /// Wakes the requests that wait for those of the exports that have ended.
    async fn wake_ended(&self, ledger: &Ledger, exports: BTreeSet<Uuid>) -> Result<(), LedgerError> {
        let ids: Vec<Uuid> = exports.into_iter().collect();
        for page in ids.chunks(ENDS_PAGE) {
            self.end_waits.wake(&with_timeout(ledger.ended(page)).await?);
        }
        Ok(())
    }
}

/// When the feed reads what next. What is not due by a notification is read by the poll.
struct Due {
    poll: Instant,
    documents: Option<Instant>,
    ends: Option<Instant>,
}

impl Due {
    fn at_once() -> Self {
        Self { poll: Instant::now(), documents: None, ends: None }
    }

    fn next(&self) -> Instant {
        [self.documents, self.ends].into_iter().flatten().fold(self.poll, Instant::min)
    }

    fn documents_within(&mut self, interval: Duration) {
        self.documents.get_or_insert_with(|| Instant::now() + interval);
    }

    fn ends_within(&mut self, interval: Duration) {
        self.ends.get_or_insert_with(|| Instant::now() + interval);
    }

    fn take_poll(&mut self, now: Instant) -> bool {
        let is_due = self.poll <= now;
        if is_due {
            *self = Self { poll: now + POLL_INTERVAL, documents: None, ends: None };
        }
        is_due
    }

    fn take_documents(&mut self, now: Instant) -> bool {
        self.documents.take_if(|at| *at <= now).is_some()
    }

    fn take_ends(&mut self, now: Instant) -> bool {
        self.ends.take_if(|at| *at <= now).is_some()
    }
}
