//! Tidying up, in every process that runs: the ledger's regular look at what time has changed, and the removal of
//! objects, uploads and source sessions that no live attempt owns. Of several processes one sweeps at a time, and each
//! leftover is one's alone.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::Leftover;
use crate::Swept;
use crate::database::{Ledger, LedgerError};
use crate::in_time;
use crate::queue::Relay;
use polyglot_core::failure::chain;
use polyglot_runtime::telemetry::SWEPT;
use polyglot_source::session;
use polyglot_storage::{Storage, StorageError};

const PAUSE: Duration = Duration::from_secs(1);
/// After an object store that failed, removals wait this long.
const STORE_PAUSE: Duration = Duration::from_secs(10);
/// How long the source database may take to end sessions.
const SOURCE_PATIENCE: Duration = Duration::from_secs(5);
const BATCH: i64 = 100;

/// What tidying up needs.
pub struct Sweeper {
    pub ledger: Ledger,
    pub storage: Storage,
    pub source_database_url: String,
    pub relay: Relay,
}

#[derive(Debug, thiserror::Error)]
enum RemoveError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Sweeper {
    /// Sweeps every second until `stopping`.
    pub async fn run(self, stopping: CancellationToken) {
        let mut store_away_until = None;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            match in_time(self.ledger.sweep()).await {
                Ok(Some(swept)) => self.tell(swept),
                // Another process is at it.
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "sweep failed, trying again");
                    continue;
                }
            }
            if store_away_until.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            store_away_until = match self.remove().await {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "leftovers stay for now");
                    Some(Instant::now() + STORE_PAUSE)
                }
            };
        }
    }

    fn tell(&self, swept: Swept) {
        let Swept { cancelled, overdue, reissued, expired } = swept;
        for (kind, count) in
            [("cancelled", cancelled), ("overdue", overdue), ("reissued", reissued), ("expired", expired)]
        {
            metrics::counter!(SWEPT, "kind" => kind).increment(count);
        }
        if swept != Swept::default() {
            tracing::info!(
                cancelled = swept.cancelled,
                overdue = swept.overdue,
                reissued = swept.reissued,
                expired = swept.expired,
                "swept"
            );
        }
        if swept.reissued > 0 {
            self.relay.wake();
        }
    }

    async fn remove(&self) -> Result<(), RemoveError> {
        // One that the store refuses must not keep the others; the first refusal is told when all have had their turn.
        let mut refused = None;
        let leftovers = in_time(self.ledger.leftovers(BATCH)).await?;
        let sessions_ended = leftovers.is_empty() || self.end_sessions(&leftovers).await;
        for leftover in leftovers {
            match self.storage.remove_orphaned(&leftover.object).await {
                Ok(()) if sessions_ended => {
                    in_time(self.ledger.looked(&leftover)).await?;
                    metrics::counter!(SWEPT, "kind" => "leftover").increment(1);
                    tracing::info!(
                        export_id = %leftover.export_id, attempt = leftover.attempt, look = leftover.looks + 1,
                        "nothing is left of the attempt"
                    );
                }
                // The look does not count: with the row the ledger would forget the session.
                Ok(()) => {}
                Err(error) if error.transient => return Err(error.into()),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        for (export_id, key) in in_time(self.ledger.expired_objects(BATCH)).await? {
            match self.storage.delete_result(&key).await {
                Ok(()) => {
                    in_time(self.ledger.object_deleted(export_id)).await?;
                    metrics::counter!(SWEPT, "kind" => "file").increment(1);
                    tracing::info!(%export_id, "expired file deleted");
                }
                Err(error) if error.transient => return Err(error.into()),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Ends the sessions in which those attempts read; the answer is whether there are none any more. A process that died
    /// has none; one that is frozen has.
    async fn end_sessions(&self, leftovers: &[Leftover]) -> bool {
        let names: Vec<_> = leftovers.iter().map(|it| session::session_name(it.export_id, it.attempt)).collect();
        match timeout(SOURCE_PATIENCE, session::end_sessions(&self.source_database_url, &names)).await {
            Ok(Ok(0)) => true,
            Ok(Ok(ended)) => {
                tracing::info!(ended, "source sessions of lost attempts ended");
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "source sessions of lost attempts may be left, trying again");
                false
            }
            Err(_) => {
                tracing::warn!("source sessions of lost attempts may be left: the source gave no answer, trying again");
                false
            }
        }
    }
}
