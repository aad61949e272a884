//! The task that holds one snapshot open: an idle transaction that has exported it, and a row in the ledger that says
//! so.

use std::time::Duration;

use chrono::{DateTime, Utc};
use polyglot_core::failure::chain;
use polyglot_ledger::{Attempt, Ledger, SnapshotHolder, with_timeout};
use polyglot_source::SnapshotPermit;
use tokio::time::{sleep, timeout};

use super::snapshot_name::SnapshotName;
use crate::read::{AttemptKey, Source};

/// Interval at which a holder renews its row and learns whether the snapshot is still wanted.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
/// Lease of a holder's row. Others do not count on a holder whose lease has ended.
pub(super) const HOLDER_LEASE: Duration = Duration::from_secs(3);
/// Timeout of a ping on a holder's connection, which has no other traffic. It is long, because a network that is silent
/// for a while has lost nothing, and a snapshot that is given up costs every shard that was read.
const PING_TIMEOUT: Duration = Duration::from_mins(1);

pub(super) fn attempt_key(attempt: &Attempt) -> AttemptKey {
    (attempt.export_id, attempt.attempt)
}

/// The task that holds one snapshot.
pub(super) struct HolderTask {
    pub key: AttemptKey,
    /// The transaction that has exported the snapshot.
    pub transaction: Source,
    /// Released when the transaction has ended.
    pub permit: SnapshotPermit,
    pub snapshot: SnapshotName,
    pub ledger: Ledger,
    /// This process, as the ledger knows it.
    pub owner: String,
    /// The end of the snapshot's maximum age.
    pub until: Option<DateTime<Utc>>,
}

impl HolderTask {
    /// Holds the snapshot until no worker needs it any more, it is too old, or its connection is lost.
    pub(super) async fn run(&mut self) {
        let (export_id, attempt) = self.key;
        let snapshot = self.snapshot.to_string();
        loop {
            sleep(HEARTBEAT).await;
            match timeout(PING_TIMEOUT, self.transaction.ping()).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => {
                    tracing::warn!(detail = failure.detail, "the connection that holds the snapshot was lost");
                    break;
                }
                Err(_) => {
                    tracing::warn!("the connection that holds the snapshot gives no answer");
                    break;
                }
            }
            if self.until.is_some_and(|until| until < Utc::now()) {
                tracing::warn!("the snapshot has reached its maximum age and is released");
                break;
            }
            let holder = SnapshotHolder { owner: &self.owner, snapshot: &snapshot, lease: HOLDER_LEASE };
            match with_timeout(self.ledger.hold_snapshot(export_id, attempt, holder)).await {
                Ok(true) => {}
                Ok(false) => return,
                // The snapshot may still be wanted.
                Err(error) => tracing::debug!(error = chain(&error), "snapshot holder not renewed, trying again"),
            }
        }
        release(&self.ledger, self.key, &self.owner).await;
    }
}

/// Removes the holder's row, so that other processes do not try to import the snapshot from here. If that fails, the
/// row's lease ends.
pub(super) async fn release(ledger: &Ledger, (export_id, attempt): AttemptKey, owner: &str) {
    if let Err(error) = with_timeout(ledger.release_snapshot(export_id, attempt, owner)).await {
        tracing::debug!(%export_id, error = chain(&error), "the ledger still names this snapshot holder");
    }
}
