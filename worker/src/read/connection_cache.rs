//! The connections to the source that nobody uses at the moment: those that one export leaves for the next, and
//! transactions under an export's snapshot that wait for its next shard. A new connection is a new process of the
//! server, which has to read the catalog and plan every query again: for a small export that is most of the work.
//!
//! All connections for reading come from here, within the process's limit. Where no further one may be opened, an idle
//! one is given to whoever reads, so that what is kept in case it is of use never keeps anybody waiting.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polyglot_core::failure::Failure;
use polyglot_source::session::is_outage;
use polyglot_source::{ConnectionLimit, DatabaseUrl};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::source_failure::failed;
use super::transaction::{Connected, Source};
use crate::outage::{Outage, Server};

/// Time that an idle connection is kept: long enough for exports that follow one another, and short enough that an idle
/// worker soon holds none.
const IDLE_TIME: Duration = Duration::from_secs(2);
/// Maximum age of a connection, so that changes of the role's settings and of the host's address take effect soon.
const MAX_AGE: Duration = Duration::from_mins(1);
/// Timeout of preparing an idle connection. A slower one is closed and replaced.
const RENEW_TIMEOUT: Duration = Duration::from_secs(1);

/// An export and its attempt.
pub(crate) type AttemptKey = (Uuid, i32);

/// The idle connections of the process; clones share them.
#[derive(Clone)]
pub(crate) struct ConnectionCache {
    limit: ConnectionLimit,
    /// Maximum number of idle connections without a transaction.
    max_size: usize,
    idle: Arc<Mutex<Idle>>,
    /// Notified when a connection becomes idle.
    became_idle: Arc<Notify>,
}

#[derive(Default)]
struct Idle {
    /// Connections without a transaction, with the time until which each is kept.
    connections: Vec<(Instant, Connected)>,
    /// Transactions under the snapshot of an attempt.
    readers: Vec<(AttemptKey, Source)>,
}

impl ConnectionCache {
    /// A cache of at most `max_size` idle connections without a transaction, within `limit`.
    pub(crate) fn new(limit: ConnectionLimit, max_size: usize) -> Self {
        Self { limit, max_size, idle: Arc::default(), became_idle: Arc::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Idle) -> T) -> T {
        change(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the number of idle connections, with a transaction or without.
    pub(crate) fn idle(&self) -> usize {
        self.with(|idle| idle.connections.len() + idle.readers.len())
    }

    /// Returns a connection: an idle one that answers, a new one, or one that the last shard of another export has
    /// left. Waits while there is none, and while the server is away. `name` is the session's name in `pg_stat_activity`.
    pub(crate) async fn connect(&self, url: impl Into<DatabaseUrl>, name: &str) -> Result<Connected, Failure> {
        let url = url.into();
        let mut outage = Outage::of(Server::Source);
        loop {
            match self.connect_once(&url, name).await {
                Err(error) if is_outage(&error) => outage.pause(&error).await,
                answered => {
                    outage.end();
                    return answered.map_err(failed);
                }
            }
        }
    }

    async fn connect_once(&self, url: &DatabaseUrl, name: &str) -> Result<Connected, sqlx::Error> {
        loop {
            // Before the look, so that a connection that becomes idle right after it is not missed.
            let became_idle = self.became_idle.notified();
            if let Some(connected) = self.open_if_free(url, name).await {
                return connected;
            }
            if let Some((_, reader)) = self.with(|idle| idle.readers.pop()) {
                if !reader.is_reusable {
                    // Its permit is free as soon as the server has ended the session.
                    reader.close();
                } else if let Some(connected) = renew(reader, name).await {
                    return Ok(connected);
                } else {
                    continue;
                }
            }
            tokio::select! {
                permit = self.limit.acquire() => return Connected::to(permit, url, name).await,
                () = became_idle => {}
            }
        }
    }

    /// Returns an idle connection that answers, or a new one; `None` if no further connection may be opened.
    pub(crate) async fn connect_if_free(
        &self,
        url: impl Into<DatabaseUrl>,
        name: &str,
    ) -> Option<Result<Connected, Failure>> {
        Some(self.open_if_free(&url.into(), name).await?.map_err(failed))
    }

    async fn open_if_free(&self, url: &DatabaseUrl, name: &str) -> Option<Result<Connected, sqlx::Error>> {
        while let Some((_, mut connected)) = self.with(|idle| idle.connections.pop()) {
            if let Ok(Ok(())) = timeout(RENEW_TIMEOUT, connected.renew(name)).await {
                return Some(Ok(connected));
            }
        }
        let permit = self.limit.try_acquire()?;
        Some(Connected::to(permit, url, name).await)
    }

    /// Keeps a connection for a short time, unless it is old, there are enough, or foreign code may have run in it.
    pub(crate) fn keep(&self, connected: Connected) {
        if connected.since.elapsed() > MAX_AGE || !connected.is_reusable {
            return connected.close();
        }
        let until = Instant::now() + IDLE_TIME;
        let superfluous = self.with(|idle| {
            if idle.connections.len() >= self.max_size {
                return Some(connected);
            }
            idle.connections.push((until, connected));
            None
        });
        if let Some(connected) = superfluous {
            return connected.close();
        }
        self.became_idle.notify_waiters();
        let cache = self.clone();
        tokio::spawn(async move {
            sleep(IDLE_TIME).await;
            let now = Instant::now();
            let expired: Vec<_> =
                cache.with(|idle| idle.connections.extract_if(.., |(until, _)| *until <= now).collect());
            for (_, connected) in expired {
                connected.close();
            }
        });
    }

    /// Returns a transaction that reads under the snapshot of the attempt, if one is idle.
    pub(crate) fn take_reader(&self, attempt: AttemptKey) -> Option<Source> {
        self.with(|idle| {
            let at = idle.readers.iter().position(|(of, _)| *of == attempt)?;
            Some(idle.readers.swap_remove(at).1)
        })
    }

    /// Keeps a transaction for the attempt's next shard, until [`Self::close_readers`]. It is closed at once if `closed`
    /// is cancelled, which has to happen before that call.
    pub(crate) fn keep_reader(&self, attempt: AttemptKey, reader: Source, closed: &CancellationToken) {
        let late = self.with(|idle| {
            if closed.is_cancelled() {
                return Some(reader);
            }
            idle.readers.push((attempt, reader));
            None
        });
        match late {
            Some(reader) => reader.close(),
            None => self.became_idle.notify_waiters(),
        }
    }

    /// Closes the transactions that wait for a shard of the attempt.
    pub(crate) fn close_readers(&self, attempt: AttemptKey) {
        let readers: Vec<_> = self.with(|idle| idle.readers.extract_if(.., |(of, _)| *of == attempt).collect());
        for (_, reader) in readers {
            reader.close();
        }
    }
}

/// The connection of an idle reader, out of its transaction and under another name; `None` if that took too long.
async fn renew(reader: Source, name: &str) -> Option<Connected> {
    let preparing = async {
        let mut connected = reader.commit().await?;
        connected.renew(name).await?;
        Ok::<_, Failure>(connected)
    };
    timeout(RENEW_TIMEOUT, preparing).await.ok()?.ok()
}
