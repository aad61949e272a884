//! Numbers of exports and messages in the ledger, counted for `metrics` and cached, so that frequent scrapes cost the
//! ledger little.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polyglot_core::failure::chain;
use polyglot_ledger::{BacklogStats, FinishedCounts, Ledger, with_timeout};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

/// Age up to which the backlog is answered from the cache.
const MAX_AGE: Duration = Duration::from_secs(5);

/// Time limit of counting the backlog.
const BACKLOG_TIMEOUT: Duration = Duration::from_millis(2500);

/// Time after which a count of finished exports that has not reported may be repeated. Its own timeout is shorter.
const COUNT_TIMEOUT: Duration = Duration::from_secs(20);

/// Time that the scrape which has the finished exports counted waits for the count. If it takes longer, the next scrape has it.
const COUNT_WAIT: Duration = Duration::from_secs(1);

/// Pause between two counts of finished exports, in multiples of the time that the last one took. The count reads an index
/// that has every export ever made; with this pause it takes at most one percent of the time.
const PAUSE_FACTOR: u32 = 100;

/// The cached numbers.
pub(crate) struct LedgerStats {
    ledger: Ledger,
    tasks: TaskTracker,
    /// The lock is held while the ledger is read, so that concurrent scrapes share one result.
    backlog: tokio::sync::Mutex<Option<(Instant, Option<BacklogStats>)>>,
    finished: Mutex<FinishedCache>,
}

#[derive(Default)]
struct FinishedCache {
    counts: Option<FinishedCounts>,
    /// Earliest time of the next count; `None`: at once.
    next_count_at: Option<Instant>,
}

impl LedgerStats {
    /// `tasks` runs the counts that outlive the scrape that has started them.
    pub(crate) fn new(ledger: Ledger, tasks: TaskTracker) -> Arc<Self> {
        let (backlog, finished) = (tokio::sync::Mutex::default(), Mutex::default());
        Arc::new(Self { ledger, tasks, backlog, finished })
    }

    /// Exports and messages that wait or are under way; `None` while the ledger is not available.
    pub(crate) async fn backlog(&self) -> Option<BacklogStats> {
        let mut cached = self.backlog.lock().await;
        if let Some((at, backlog)) = &*cached
            && at.elapsed() < MAX_AGE
        {
            return backlog.clone();
        }
        let backlog = match timeout(BACKLOG_TIMEOUT, Box::pin(self.ledger.backlog_stats())).await {
            Ok(Ok(backlog)) => Some(backlog),
            // The readiness probe of the same scrape logs that the ledger is not available.
            Ok(Err(error)) => {
                tracing::debug!(error = chain(&error), "the backlog cannot be counted");
                None
            }
            Err(_) => None,
        };
        *cached = Some((Instant::now(), backlog.clone()));
        backlog
    }

    /// Finished exports by status, as last counted. A count that is due runs in the background, and is waited for a moment: after a
    /// pause without scrapes the last one may be old.
    pub(crate) async fn finished(self: &Arc<Self>) -> Option<FinishedCounts> {
        let count = {
            let mut cached = self.finished_cache();
            if cached.next_count_at.is_some_and(|at| Instant::now() < at) {
                return cached.counts.clone();
            }
            // Until the count sets a later time.
            cached.next_count_at = Some(Instant::now() + COUNT_TIMEOUT);
            self.tasks.spawn(Arc::clone(self).count_finished())
        };
        timeout(COUNT_WAIT, count).await.ok();
        self.finished_cache().counts.clone()
    }

    async fn count_finished(self: Arc<Self>) {
        let started = Instant::now();
        let counted = with_timeout(self.ledger.finished_counts()).await;
        // A count that fails has cost as much as one that does not.
        let next_count_at = Some(Instant::now() + (started.elapsed() * PAUSE_FACTOR).max(MAX_AGE));
        let mut cached = self.finished_cache();
        match counted {
            Ok(counts) => *cached = FinishedCache { counts: Some(counts), next_count_at },
            Err(error) => {
                cached.next_count_at = next_count_at;
                tracing::warn!(error = chain(&error), "finished exports cannot be counted");
            }
        }
    }

    fn finished_cache(&self) -> std::sync::MutexGuard<'_, FinishedCache> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
