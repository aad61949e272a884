//! Cleanup, which every process does every second: the sweep of the ledger, forgetting old exports, and the removal of objects,
//! uploads and source sessions that no live attempt owns. One process sweeps at a time, and an orphaned upload is cleaned up by
//! one at a time.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::sweep::Swept;
use crate::database::{Ledger, LedgerError, with_timeout};
use crate::queue::Relay;
use crate::work::OrphanedUpload;
use polyglot_core::failure::chain;
use polyglot_runtime::telemetry::SWEPT;
use polyglot_source::{ConnectionLimit, DatabaseUrl, session};
use polyglot_storage::{Storage, StorageError};

const PAUSE: Duration = Duration::from_secs(1);
/// Pause of removals after the object store has failed.
const STORE_PAUSE: Duration = Duration::from_secs(10);
/// Longest wait for the source database to end sessions.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(5);
const BATCH: i64 = 100;
/// Exports that one sweep forgets at most. With their state changes they are some thousand rows, a few hundredths of a second.
const FORGET_BATCH: i64 = 200;
/// Rows of the audit that one sweep deletes at most: more than all processes together add in the second between two sweeps.
const AUDIT_BATCH: i64 = 5000;
/// Time between two looks for what is kept of tenants that make no requests any more.
const TENANTS_PAUSE: Duration = Duration::from_hours(1);

/// The periodic cleanup of one process.
pub struct Sweeper {
    pub ledger: Ledger,
    pub storage: Storage,
    pub source_database_url: DatabaseUrl,
    /// Limit of the process's connections to the source.
    pub source_connections: ConnectionLimit,
    pub relay: Relay,
    /// Time after its end for which an export is remembered; `None`: for ever.
    pub ledger_ttl: Option<Duration>,
    /// Time for which the audit is kept; `None`: for ever.
    pub audit_ttl: Option<Duration>,
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
        let (mut store_away_until, mut tenants_at) = (None, Instant::now());
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            match with_timeout(self.ledger.sweep()).await {
                Ok(Some(swept)) => self.report(swept),
                // Another process is sweeping.
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "sweep failed, trying again");
                    continue;
                }
            }
            self.forget().await;
            self.forget_audit().await;
            if Instant::now() >= tenants_at {
                tenants_at = Instant::now() + TENANTS_PAUSE;
                if let Err(error) = with_timeout(self.ledger.forget_tenants()).await {
                    tracing::warn!(
                        error = chain(&error),
                        "limits of unused tenants could not be deleted, trying again in an hour"
                    );
                }
            }
            if store_away_until.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            store_away_until = match self.clean_up().await {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "cleanup of orphaned uploads failed, trying again");
                    Some(Instant::now() + STORE_PAUSE)
                }
            };
        }
    }

    fn report(&self, swept: Swept) {
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

    async fn forget(&self) {
        let Some(age) = self.ledger_ttl else { return };
        match with_timeout(self.ledger.forget(age, FORGET_BATCH)).await {
            Ok(0) => {}
            Ok(forgotten) => {
                metrics::counter!(SWEPT, "kind" => "forgotten").increment(forgotten);
                tracing::info!(forgotten, "exports that ended long ago forgotten");
            }
            Err(error) => tracing::warn!(error = chain(&error), "old exports could not be forgotten, trying again"),
        }
    }

    async fn forget_audit(&self) {
        let Some(age) = self.audit_ttl else { return };
        if let Err(error) = with_timeout(self.ledger.forget_audit(age, AUDIT_BATCH)).await {
            tracing::warn!(error = chain(&error), "old rows of the audit could not be deleted, trying again");
        }
    }

    async fn clean_up(&self) -> Result<(), RemoveError> {
        // An object that the store refuses to delete must not block the others; the first refusal is returned at the end.
        let mut refused = None;
        let uploads = with_timeout(self.ledger.orphaned_uploads(BATCH)).await?;
        let sessions_ended = uploads.is_empty() || self.end_sessions(&uploads).await;
        for upload in uploads {
            match self.storage.remove_orphaned(&upload.object).await {
                Ok(()) if sessions_ended => {
                    with_timeout(self.ledger.mark_checked(&upload)).await?;
                    metrics::counter!(SWEPT, "kind" => "leftover").increment(1);
                    tracing::info!(
                        export_id = %upload.export_id, attempt = upload.attempt, pass = upload.cleanup_passes + 1,
                        "attempt cleaned up"
                    );
                }
                // The pass does not count: after the last one the ledger would no longer know the session.
                Ok(()) => {}
                Err(error) if error.transient => return Err(error.into()),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        for (export_id, key) in with_timeout(self.ledger.expired_objects(BATCH)).await? {
            match self.storage.delete_result(&key).await {
                Ok(()) => {
                    with_timeout(self.ledger.object_deleted(export_id)).await?;
                    metrics::counter!(SWEPT, "kind" => "file").increment(1);
                    tracing::info!(%export_id, "expired file deleted");
                }
                Err(error) if error.transient => return Err(error.into()),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Ends the source sessions of those attempts. Returns whether there are none any more. A dead process has none; a frozen one
    /// may.
    async fn end_sessions(&self, uploads: &[OrphanedUpload]) -> bool {
        let names: Vec<_> = uploads.iter().map(|it| session::session_name(it.export_id, it.attempt)).collect();
        // Waiting for the turn takes some seconds at most.
        let permit = self.source_connections.acquire_control().await;
        let ending = session::end_sessions(permit, &self.source_database_url, &names);
        match timeout(SOURCE_TIMEOUT, Box::pin(ending)).await {
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
