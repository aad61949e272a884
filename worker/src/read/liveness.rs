//! The liveness probe of a session that sends no rows. A long sort sends none either, so silence alone proves nothing.
//! But a server that cannot be reached, or that does not know the session, will never answer. The probe uses the
//! connection for control, which all probes of the process and its other short checks take turns with.

use std::sync::atomic::Ordering;
use std::time::Duration;

use polyglot_core::failure::{Failure, FailureKind, chain};
use polyglot_source::session::{self, Backend};
use polyglot_source::{ConnectionLimit, DatabaseUrl};
use tokio::time::{sleep, timeout};

use super::source_failure::LOST;
use crate::progress::Progress;

/// Time without a row before a probe, and between probes.
const SILENCE: Duration = Duration::from_secs(10);
/// Timeout of one probe.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Number of failed probes in a row after which the session counts as lost. One probe may fail for reasons of its own:
/// no connection is free, or a failover is under way.
const ATTEMPTS: u32 = 3;

/// The session to probe.
#[derive(Debug, Clone)]
pub(crate) struct LivenessProbe<'a> {
    url: &'a DatabaseUrl,
    limit: &'a ConnectionLimit,
    /// The session's process in the server; `None` until the transaction has begun, because a pooler may assign another
    /// one.
    pub backend: Option<Backend>,
}

impl<'a> LivenessProbe<'a> {
    pub(crate) fn new(url: &'a DatabaseUrl, limit: &'a ConnectionLimit) -> Self {
        Self { url, limit, backend: None }
    }

    /// Runs `work`, which waits for the source, until it is done or the session is lost.
    pub(crate) async fn run_while_alive<T>(
        &self,
        progress: &Progress,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            lost = self.lost(progress) => Err(lost),
        }
    }

    /// Probes until the session is lost, and returns the failure.
    async fn lost(&self, progress: &Progress) -> Failure {
        let (mut rows, mut failed) = (progress.rows.load(Ordering::Relaxed), 0);
        loop {
            sleep(SILENCE).await;
            // Waiting for the turn is no failure of the probe. Those who are before it take some seconds at most.
            let permit = self.limit.acquire_control().await;
            let before = std::mem::replace(&mut rows, progress.rows.load(Ordering::Relaxed));
            if rows != before {
                failed = 0;
                continue;
            }
            let lives = session::session_lives(permit, self.url, self.backend.as_ref());
            let problem = match timeout(TIMEOUT, Box::pin(lives)).await {
                Ok(Ok(true)) => {
                    failed = 0;
                    continue;
                }
                Ok(Ok(false)) => "the server does not know the session any more".to_owned(),
                Ok(Err(error)) => chain(&error),
                Err(_) => format!("no answer within {} s", TIMEOUT.as_secs()),
            };
            failed += 1;
            tracing::warn!(problem, failed, "the source sends no rows and its liveness probe failed");
            if failed == ATTEMPTS {
                return Failure::new(FailureKind::SourceUnavailable, LOST, problem);
            }
        }
    }
}
