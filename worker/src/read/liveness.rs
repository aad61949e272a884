//! A look from outside at a session that is silent: a long sort is silent too, so silence alone proves nothing, but a
//! server that cannot be reached any more, or that does not know the session, will never answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use polyglot_core::failure::{Failure, FailureKind, chain};
use polyglot_source::session::{self, Backend};
use tokio::time::{sleep, timeout};

use super::source_failure::LOST;
use crate::progress::Progress;

/// Without a row for so long a look is taken, and again after as long.
const SILENCE: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);
/// One look may fail for reasons of its own: no connection is free, a failover is under way.
const ATTEMPTS: u32 = 3;

/// What to look for.
#[derive(Debug, Clone)]
pub(crate) struct LivenessProbe<'a> {
    url: &'a str,
    /// `None` until the transaction has begun: a pooler may give it another one.
    pub backend: Option<Backend>,
}

impl<'a> LivenessProbe<'a> {
    pub(crate) fn new(url: &'a str) -> Self {
        Self { url, backend: None }
    }

    /// Does `work`, which waits for the source, for as long as the source is there.
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

    /// Ends when the session is lost.
    async fn lost(&self, progress: &Progress) -> Failure {
        let (mut rows, mut failed) = (progress.rows.load(Ordering::Relaxed), 0);
        loop {
            sleep(SILENCE).await;
            let before = std::mem::replace(&mut rows, progress.rows.load(Ordering::Relaxed));
            if rows != before {
                failed = 0;
                continue;
            }
            let problem = match timeout(TIMEOUT, session::session_lives(self.url, self.backend.as_ref())).await {
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
