//! The requests of this process that wait for an export to end. The feed wakes them; each then reads its export itself.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

/// The exports that are waited for. A sender has as many receivers as requests wait for its export.
#[derive(Default)]
pub(super) struct EndWaits(Mutex<HashMap<Uuid, watch::Sender<()>>>);

/// A request's wait for an export to end.
pub(crate) struct EndWait<'a> {
    waits: &'a EndWaits,
    export_id: Uuid,
    woken: watch::Receiver<()>,
}

impl EndWaits {
    pub(super) fn add(&self, export_id: Uuid) -> EndWait<'_> {
        let woken = self.exports().entry(export_id).or_insert_with(|| watch::Sender::new(())).subscribe();
        EndWait { waits: self, export_id, woken }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.exports().is_empty()
    }

    pub(super) fn contains(&self, export_id: Uuid) -> bool {
        self.exports().contains_key(&export_id)
    }

    pub(super) fn ids(&self) -> Vec<Uuid> {
        self.exports().keys().copied().collect()
    }

    /// Wakes the requests that wait for these exports.
    pub(super) fn wake(&self, ended: &[Uuid]) {
        let exports = self.exports();
        for woken in ended.iter().filter_map(|export_id| exports.get(export_id)) {
            woken.send_replace(());
        }
    }

    fn exports(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Sender<()>>> {
        // A panic while the lock is held leaves the map intact.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EndWait<'_> {
    /// Waits until the feed has found that the export has ended, since the wait began or since the last call.
    pub(crate) async fn ended(&mut self) {
        // The sender is in the map for as long as this receiver lives.
        self.woken.changed().await.expect("the map drops no sender that has a receiver");
    }
}

impl Drop for EndWait<'_> {
    fn drop(&mut self) {
        let mut exports = self.waits.exports();
        // One of the receivers is this one.
        if exports.get(&self.export_id).is_some_and(|woken| woken.receiver_count() <= 1) {
            exports.remove(&self.export_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn all_who_wait_for_an_export_are_woken_and_nobody_else() {
        let (waits, export, other) = (EndWaits::default(), Uuid::from_u128(1), Uuid::from_u128(2));
        let (mut first, mut second, mut third) = (waits.add(export), waits.add(export), waits.add(other));
        assert!(first.ended().now_or_never().is_none(), "woken before anything has ended");
        waits.wake(&[export, Uuid::from_u128(3)]);
        assert!(first.ended().now_or_never().is_some() && second.ended().now_or_never().is_some());
        assert!(third.ended().now_or_never().is_none());
        assert!(first.ended().now_or_never().is_none(), "woken twice by one end");
        drop(first);
        assert!(waits.contains(export), "another request waits for it");
        drop(second);
        assert_eq!(waits.ids(), [other]);
        drop(third);
        assert!(waits.is_empty());
    }
}
