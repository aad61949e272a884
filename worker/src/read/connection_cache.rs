//! A cache of connections to the source, which one export leaves for the next. A new connection is a new process of the
//! server, which has to read the catalog and plan every query again: for a small export that is most of the work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polyglot_core::failure::Failure;
use tokio::time::{Instant, sleep, timeout};

use super::transaction::Connected;

/// Time that an idle connection is kept: long enough for exports that follow one another, and short enough that an idle
/// worker soon holds none.
const IDLE_TIME: Duration = Duration::from_secs(2);
/// Maximum age of a connection, so that changes of the role's settings and of the host's address take effect soon.
const MAX_AGE: Duration = Duration::from_mins(1);
/// Timeout of preparing a cached connection. A slower one is closed and replaced.
const RENEW_TIMEOUT: Duration = Duration::from_secs(1);

/// A cache of at most `max_size` idle connections.
#[derive(Clone)]
pub(crate) struct ConnectionCache {
    max_size: usize,
    waiting: Arc<Mutex<Vec<(Instant, Connected)>>>,
}

impl ConnectionCache {
    pub(crate) fn new(max_size: usize) -> Self {
        Self { max_size, waiting: Arc::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Vec<(Instant, Connected)>) -> T) -> T {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the number of idle connections.
    pub(crate) fn waiting(&self) -> usize {
        self.with(|waiting| waiting.len())
    }

    /// Returns a cached connection that answers, or a new one; `name` is the session's name in `pg_stat_activity`.
    pub(crate) async fn connect(&self, url: &str, name: &str) -> Result<Connected, Failure> {
        while let Some((_, mut connected)) = self.with(Vec::pop) {
            if let Ok(Ok(())) = timeout(RENEW_TIMEOUT, connected.renew(name)).await {
                return Ok(connected);
            }
        }
        Connected::to(url, name).await
    }

    /// Keeps a connection for a short time, unless it is old.
    pub(crate) fn keep(&self, connected: Connected) {
        if connected.since.elapsed() > MAX_AGE {
            return;
        }
        let until = Instant::now() + IDLE_TIME;
        let is_kept = self.with(|waiting| {
            let has_room = waiting.len() < self.max_size;
            if has_room {
                waiting.push((until, connected));
            }
            has_room
        });
        if is_kept {
            let cache = self.clone();
            tokio::spawn(async move {
                sleep(IDLE_TIME).await;
                cache.with(|waiting| waiting.retain(|(until, _)| *until > Instant::now()));
            });
        }
    }
}
