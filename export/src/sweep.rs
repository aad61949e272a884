//! The worker's share of tidying up: the ledger's regular sweep, and the removal of objects and uploads that no
//! live export owns.

use std::time::Duration;

use polyglot_export::failure::chain;
use polyglot_export::ledger::{Ledger, LedgerError, in_time};
use polyglot_export::queue::Relay;
use polyglot_export::storage::Storage;
use tokio_util::sync::CancellationToken;

const PAUSE: Duration = Duration::from_secs(1);
/// After an object store that failed, removals wait this long.
const STORE_PAUSE: Duration = Duration::from_secs(10);
const BATCH: i64 = 100;

/// Sweeps every second until `stopping`.
pub(crate) async fn run(ledger: Ledger, storage: Storage, relay: Relay, stopping: CancellationToken) {
    let mut store_away_until = None;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        match in_time(ledger.sweep()).await {
            Ok(swept) => {
                if swept != polyglot_export::ledger::Swept::default() {
                    tracing::info!(
                        cancelled = swept.cancelled,
                        reissued = swept.reissued,
                        expired = swept.expired,
                        "swept"
                    );
                }
                if swept.reissued > 0 {
                    relay.wake();
                }
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "sweep failed, trying again");
                continue;
            }
        }
        if store_away_until.is_some_and(|until| tokio::time::Instant::now() < until) {
            continue;
        }
        store_away_until = match remove(&ledger, &storage).await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(error = chain(&error), "leftovers stay for now");
                Some(tokio::time::Instant::now() + STORE_PAUSE)
            }
        };
    }
}

#[derive(Debug, thiserror::Error)]
enum RemoveError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Storage(#[from] polyglot_export::storage::StorageError),
}

async fn remove(ledger: &Ledger, storage: &Storage) -> Result<(), RemoveError> {
    // One that the store refuses must not keep the others; the first refusal is told when all have had their turn.
    let mut refused = None;
    for leftover in in_time(ledger.leftovers(BATCH)).await? {
        match storage.remove_leftover(&leftover).await {
            Ok(()) => {
                in_time(ledger.upload_removed(leftover.export_id, leftover.attempt)).await?;
                tracing::info!(export_id = %leftover.export_id, attempt = leftover.attempt, "leftover upload removed");
            }
            Err(error) if error.transient => return Err(error.into()),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    for (export_id, key) in in_time(ledger.expired_objects(BATCH)).await? {
        match storage.delete_object(&key).await {
            Ok(()) => {
                in_time(ledger.object_deleted(export_id)).await?;
                tracing::info!(%export_id, "expired file deleted");
            }
            Err(error) if error.transient => return Err(error.into()),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    refused.map_or(Ok(()), |error| Err(error.into()))
}
