//! Waiting for a server that is away, the object store or the source. Such a wait costs no attempt: it is ended by the server's
//! return, by the deadline of the export, by its cancellation or by the end of the process, whichever is first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use polyglot_core::failure::{Failure, chain};
use polyglot_runtime::retry::with_jitter;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A server that an export needs from its beginning to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Source,
    Store,
}

/// How many pieces of work of this process wait for each server. A server is away for all of them alike.
static WAITING: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Source => "the source database",
            Self::Store => "the object store",
        }
    }

    fn waiting(self) -> &'static AtomicUsize {
        &WAITING[self as usize]
    }
}

/// Adds to the failure of an export whose time is up which server it was waiting for.
pub(crate) fn explain(mut failure: Failure) -> Failure {
    for server in [Server::Source, Server::Store] {
        if server.waiting().load(Ordering::Relaxed) > 0 {
            failure.message.push_str(&format!(" It was waiting for {}, which is not available.", server.name()));
        }
    }
    failure
}

/// The outage of one server, as one piece of work meets it.
pub(crate) struct Outage {
    server: Server,
    began: Option<Instant>,
    pause: Duration,
}

impl Outage {
    /// No outage so far.
    pub(crate) fn of(server: Server) -> Self {
        Self { server, began: None, pause: FIRST_PAUSE }
    }

    /// Waits before the next call to the server.
    pub(crate) async fn pause(&mut self, error: &(dyn std::error::Error + Send + Sync + 'static)) {
        if self.began.is_none() {
            self.began = Some(Instant::now());
            self.server.waiting().fetch_add(1, Ordering::Relaxed);
            tracing::warn!(error = chain(error), "{} is not available, waiting for it", self.server.name());
        }
        tokio::time::sleep(with_jitter(self.pause)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Notes that the server has answered.
    pub(crate) fn end(self) {
        if let Some(began) = self.began {
            tracing::info!(seconds = began.elapsed().as_secs(), "{} is available again", self.server.name());
        }
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        if self.began.is_some() {
            self.server.waiting().fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pauses_grow_and_the_wait_is_known_meanwhile() {
        let late = || explain(polyglot_ledger::deadline_failure()).message;
        let mut outage = Outage::of(Server::Source);
        assert!(!late().contains("source"), "{}", late());
        let began = Instant::now();
        outage.pause(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused)).await;
        assert!(began.elapsed() >= FIRST_PAUSE, "{:?}", began.elapsed());
        assert_eq!(outage.pause, FIRST_PAUSE * 2);
        assert!(late().contains("the source database"), "{}", late());
        outage.end();
        assert!(!late().contains("source"), "{}", late());
    }
}
