//! Connections to the source that an export is done with, kept for the next one. A new connection is a new process of the
//! server, which reads the catalog and plans every query anew: for a small export that is most of its work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polyglot_core::failure::Failure;
use tokio::time::{Instant, sleep, timeout};

use super::transaction::Connected;

/// Long enough for exports that follow one another, and short enough that a worker without work holds nothing.
const KEPT: Duration = Duration::from_secs(2);
/// So that the settings of the role, and where a name leads to, are those of a moment ago.
const OLDEST: Duration = Duration::from_mins(1);
/// What answers no faster is not worth it.
const PATIENCE: Duration = Duration::from_secs(1);

/// At most so many as were asked for, between two exports.
#[derive(Clone)]
pub(crate) struct ConnectionCache {
    most: usize,
    waiting: Arc<Mutex<Vec<(Instant, Connected)>>>,
}

impl ConnectionCache {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, waiting: Arc::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Vec<(Instant, Connected)>) -> T) -> T {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many there are.
    pub(crate) fn waiting(&self) -> usize {
        self.with(|waiting| waiting.len())
    }

    /// One that is there and answers, or a new one; `name` is the session's in `pg_stat_activity`.
    pub(crate) async fn connect(&self, url: &str, name: &str) -> Result<Connected, Failure> {
        while let Some((_, mut connected)) = self.with(Vec::pop) {
            if let Ok(Ok(())) = timeout(PATIENCE, connected.renew(name)).await {
                return Ok(connected);
            }
        }
        Connected::to(url, name).await
    }

    /// Keeps it for a moment, unless it is old.
    pub(crate) fn keep(&self, connected: Connected) {
        if connected.since.elapsed() > OLDEST {
            return;
        }
        let until = Instant::now() + KEPT;
        let kept = self.with(|waiting| {
            let has_room = waiting.len() < self.most;
            if has_room {
                waiting.push((until, connected));
            }
            has_room
        });
        if kept {
            let idle = self.clone();
            tokio::spawn(async move {
                sleep(KEPT).await;
                idle.with(|waiting| waiting.retain(|(until, _)| *until > Instant::now()));
            });
        }
    }
}
