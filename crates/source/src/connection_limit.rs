//! The limit on the connections that one process has on the source. Every connection holds a permit of it for its whole life
//! ([`SourceConnection`](crate::SourceConnection) owns both), so what is queued or dies cannot add a connection.
//!
//! The limit has three parts, so that nothing that waits for a permit is what its holder waits for:
//!
//! - One connection is for control: liveness probes, ending sessions, measurements. Each takes seconds at most, and they take
//!   turns. Without it, sessions that are lost but hold every other permit could neither be found out nor ended.
//! - At most `max - readers - 1` connections hold a snapshot, which may take hours.
//! - So at least `readers` connections are left for reading. A slot of a worker needs no more than one at a time, and idle
//!   connections are given up to whoever reads, so a slot never waits for another one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The connections that are for control.
const CONTROL: usize = 1;

/// The limit of one process; clones share it.
#[derive(Debug, Clone)]
pub struct ConnectionLimit {
    max: usize,
    /// Connections that read or hold a snapshot, and idle ones.
    general: Arc<Semaphore>,
    /// Of these, the ones that may hold a snapshot.
    snapshots: Arc<Semaphore>,
    control: Arc<Semaphore>,
}

/// The right to one connection, until it is dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    _permit: OwnedSemaphorePermit,
    limit: ConnectionLimit,
    is_control: bool,
}

/// The right to hold a snapshot with a connection that has a [`ConnectionPermit`], until it is dropped.
#[derive(Debug)]
pub struct SnapshotPermit {
    _permit: OwnedSemaphorePermit,
}

impl ConnectionLimit {
    /// A limit of `max` connections, of which `readers` can always be had for reading. The others, but for the one for control,
    /// may hold snapshots. A `max` below `readers + 1` counts as that.
    #[must_use]
    pub fn new(max: usize, readers: usize) -> Self {
        let snapshots = max.saturating_sub(readers + CONTROL);
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            max: readers + snapshots + CONTROL,
            general: semaphore(readers + snapshots),
            snapshots: semaphore(snapshots),
            control: semaphore(CONTROL),
        }
    }

    /// The largest number of connections.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// The connections at the moment: opening, open and closing ones.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.max - self.general.available_permits() - self.control.available_permits()
    }

    /// A permit for reading or for holding a snapshot, if one is free and nobody else waits for it.
    #[must_use]
    pub fn try_acquire(&self) -> Option<ConnectionPermit> {
        Arc::clone(&self.general).try_acquire_owned().ok().map(|permit| self.permit(permit, false))
    }

    /// Waits for such a permit; who waits longest gets the next one.
    pub async fn acquire(&self) -> ConnectionPermit {
        self.permit(acquire(&self.general).await, false)
    }

    /// Waits for the permit of the connection for control. Those who have it give it back within seconds.
    pub async fn acquire_control(&self) -> ConnectionPermit {
        self.permit(acquire(&self.control).await, true)
    }

    /// The right to hold a snapshot, if it is free and nobody else waits for it.
    #[must_use]
    pub fn try_acquire_snapshot(&self) -> Option<SnapshotPermit> {
        Arc::clone(&self.snapshots).try_acquire_owned().ok().map(|permit| SnapshotPermit { _permit: permit })
    }

    /// Waits for the right to hold a snapshot. It may take as long as an export, so wait with a timeout.
    pub async fn acquire_snapshot(&self) -> SnapshotPermit {
        SnapshotPermit { _permit: acquire(&self.snapshots).await }
    }

    fn permit(&self, permit: OwnedSemaphorePermit, is_control: bool) -> ConnectionPermit {
        ConnectionPermit { _permit: permit, limit: self.clone(), is_control }
    }
}

impl ConnectionPermit {
    pub(crate) fn limit(&self) -> &ConnectionLimit {
        &self.limit
    }

    /// Whether the permit is that of the connection for control.
    pub(crate) fn is_control(&self) -> bool {
        self.is_control
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(semaphore).acquire_owned().await.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Long enough for a permit that is free, and short enough to wait for in a test.
    const SOON: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn no_more_permits_are_given_out_than_the_limit_has() {
        let limit = ConnectionLimit::new(7, 2);
        let mut permits: Vec<_> = std::iter::from_fn(|| limit.try_acquire()).collect();
        assert_eq!((limit.max(), permits.len(), limit.in_use()), (7, 6, 6));
        permits.push(limit.acquire_control().await);
        assert_eq!(limit.in_use(), 7);
        assert!(timeout(SOON, limit.acquire()).await.is_err());
        assert!(timeout(SOON, limit.acquire_control()).await.is_err());
        permits.remove(0);
        drop(limit.acquire().await);
        assert_eq!(limit.in_use(), 6);
        permits.clear();
        assert_eq!(limit.in_use(), 0);
    }

    #[tokio::test]
    async fn snapshots_leave_the_readers_connections() {
        let limit = ConnectionLimit::new(7, 2);
        let held: Vec<_> = std::iter::from_fn(|| Some((limit.try_acquire_snapshot()?, limit.try_acquire()?))).collect();
        assert_eq!(held.len(), 4);
        assert!(timeout(SOON, limit.acquire_snapshot()).await.is_err());
        // Two slots read, and their sessions can be probed.
        let readers = (limit.try_acquire().unwrap(), limit.try_acquire().unwrap());
        drop(limit.acquire_control().await);
        drop((held, readers));
        assert!(limit.try_acquire_snapshot().is_some());
    }

    #[tokio::test]
    async fn who_waits_longest_gets_the_next_permit() {
        let limit = ConnectionLimit::new(2, 1);
        let held = limit.try_acquire().unwrap();
        let waiting = tokio::spawn({
            let limit = limit.clone();
            async move { limit.acquire().await }
        });
        // On this test's single thread the task is in the queue of the semaphore once it has been polled.
        tokio::task::yield_now().await;
        drop(held);
        assert!(limit.try_acquire().is_none(), "a permit went past one who waits");
        drop(waiting.await.unwrap());
        assert!(limit.try_acquire().is_some());
    }

    #[test]
    fn a_limit_below_what_readers_need_is_raised_to_it() {
        let limit = ConnectionLimit::new(1, 3);
        assert_eq!(limit.max(), 4);
        assert!(limit.try_acquire_snapshot().is_none());
    }
}
