//! How far the feed has read and broadcast: the position in the changes of all exports, and the state of each export that was
//! broadcast last.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use polyglot_core::status::Status;
use polyglot_ledger::{Change, Export, Ledger, LedgerError, with_timeout};
use tokio::time::Instant;
use uuid::Uuid;

use super::update::Update;

/// Time after which no transaction can still commit changes: calls to the ledger are given up after 15 seconds, and their
/// statements end after 10.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(30);

/// Exports whose broadcast state is remembered. Of more, those that nothing can be missing of are forgotten, and their documents
/// may repeat.
const MAX_REMEMBERED: usize = 10_000;

/// The position in the changes of all exports. Their numbers have no gaps but those of transactions that have not committed yet,
/// or were rolled back, so a change may appear after others with greater numbers.
#[derive(Debug)]
pub(super) struct ChangePosition {
    /// Every change up to this number has been read, or will never be there.
    settled: i64,
    /// The greatest number that was read.
    newest: i64,
    /// Values of `newest`, each with the time at which it was reached; the first is the latest one that is old enough.
    history: VecDeque<(Instant, i64)>,
}

impl ChangePosition {
    fn after(change: i64, now: Instant) -> Self {
        Self { settled: change, newest: change, history: VecDeque::from([(now, change)]) }
    }

    /// Records that these changes, which are the next ones in order, have been read.
    fn read(&mut self, numbers: impl Iterator<Item = i64>) {
        for number in numbers {
            if number == self.settled + 1 {
                self.settled = number;
            }
            self.newest = self.newest.max(number);
        }
    }

    /// Settles what was missing for so long that it was rolled back.
    fn settle(&mut self, now: Instant) {
        let is_old = |(at, _): &(Instant, i64)| now.duration_since(*at) >= LONGEST_TRANSACTION;
        while self.history.get(1).is_some_and(is_old) {
            self.history.pop_front();
        }
        if let Some((_, number)) = self.history.front().filter(|entry| is_old(entry)) {
            self.settled = self.settled.max(*number);
        }
        if self.history.back().is_none_or(|(_, number)| *number < self.newest) {
            self.history.push_back((now, self.newest));
        }
    }
}

/// What the feed has read and broadcast so far.
pub(super) struct FeedCursor {
    position: ChangePosition,
    delivered: HashMap<Uuid, DeliveredState>,
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
    pub(super) fn after(change: i64) -> Self {
        let position = ChangePosition::after(change, Instant::now());
        Self { position, delivered: HashMap::new(), start: change }
    }

    /// The number after which a poll has to read.
    pub(super) fn settled(&self) -> i64 {
        self.position.settled
    }

    /// The exports that have a change among these that was not broadcast.
    pub(super) fn with_news(&self, changes: &[Change]) -> Vec<Uuid> {
        let is_new = |change: &&Change| {
            let delivered = self.delivered.get(&change.export_id).map_or(self.start, |delivered| delivered.change);
            change.id > delivered
        };
        let mut ids: Vec<Uuid> = changes.iter().filter(is_new).map(|change| change.export_id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Records that the changes, which are the next ones in order, have been broadcast.
    pub(super) fn advance(&mut self, changes: &[Change]) {
        self.position.read(changes.iter().map(|change| change.id));
    }

    /// Ends a poll that has read all changes.
    pub(super) fn end_poll(&mut self) {
        self.position.settle(Instant::now());
        if self.delivered.len() > MAX_REMEMBERED {
            let settled = self.position.settled;
            self.delivered.retain(|_, delivered| delivered.change > settled);
            self.start = self.start.max(settled);
        }
    }

    /// Reads the exports `ids` and returns those that have changed, in the order of their newest changes.
    pub(super) async fn updates(&mut self, ledger: &Ledger, ids: &[Uuid]) -> Result<Vec<Update>, LedgerError> {
        // Documents are read first: a state that comes in between is in the changes, and its document comes again.
        let exports = with_timeout(ledger.find_all(ids)).await?;
        let changed: Vec<Uuid> =
            exports.iter().filter(|export| !self.has_delivered_status(export)).map(|export| export.id).collect();
        let mut changes_by_export: HashMap<Uuid, Vec<Change>> = HashMap::new();
        for change in with_timeout(ledger.changes_of_all(&changed)).await? {
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
            updates.push(Update { settled: self.settled(), ..Update::new(&export, changes, newest) });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_commit_late_are_read_again_for_as_long_as_they_may_come() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut position = ChangePosition::after(10, start);
        position.read([11, 12].into_iter());
        position.settle(at(2));
        assert_eq!(position.settled, 12);
        // 13 and 16 have not committed. What is behind them is read again each time.
        for seconds in [4, 6] {
            position.read([14, 15, 17].into_iter());
            position.settle(at(seconds));
            assert_eq!(position.settled, 12);
        }
        position.read([13, 14, 15, 17, 18].into_iter());
        position.settle(at(8));
        assert_eq!((position.settled, position.newest), (15, 18));
        position.read([17, 18].into_iter());
        position.settle(at(33));
        assert_eq!(position.settled, 15, "16 may still come");
        // 16 was missing when 17 was read, longer ago than any transaction lasts.
        position.read([17, 18, 20].into_iter());
        position.settle(at(34));
        assert_eq!(position.settled, 17);
        position.read([18, 20].into_iter());
        assert_eq!((position.settled, position.newest), (18, 20));
        assert!(position.history.len() <= 4, "{position:?}");
    }
}
