//! The sweep of the ledger: it republishes lost messages, ends cancelled and overdue exports that nobody holds, and expires
//! files. One process sweeps at a time. It is cheap when there is nothing to do.

use uuid::Uuid;

use crate::client::KEY_RETENTION;
use crate::database::{Ledger, Result};
use crate::work::{deadline_failure, end_export, snapshot_age_failure};
use polyglot_core::status::Status;

/// The numbers of rows that a sweep changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub cancelled: u64,
    pub overdue: u64,
    pub reissued: u64,
    pub expired: u64,
}

impl Ledger {
    /// Does the sweep; `None` if another process is doing it.
    pub async fn sweep(&self) -> Result<Option<Swept>> {
        let mut transaction = self.pool.begin().await?;
        let ours: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtext('polyglot sweep')) AS ours")
            .fetch_one(&mut *transaction)
            .await?;
        if !ours {
            return Ok(None);
        }
        let (mut cancelled, mut overdue) = (0, 0);
        // An export with a live lease is ended by its worker, or by a later sweep.
        let ending: Vec<(Uuid, bool, bool)> = sqlx::query_as(
            "SELECT e.id, e.cancel_requested, coalesce(e.deadline_at < ledger_now(), false) AS overdue FROM exports e
             WHERE e.state IN ('pending', 'planning', 'running', 'finishing')
               AND (e.cancel_requested OR e.deadline_at < ledger_now()
                    OR (e.state IN ('planning', 'running') AND e.snapshot_until < ledger_now()))
               AND NOT EXISTS (SELECT FROM shards s
                               WHERE s.export_id = e.id AND s.state = 'leased' AND s.leased_until >= ledger_now())
             LIMIT 1000 FOR UPDATE SKIP LOCKED",
        )
        .fetch_all(&mut *transaction)
        .await?;
        for (id, cancel_requested, is_overdue) in ending {
            if cancel_requested {
                end_export(&mut transaction, id, Status::Cancelled, None).await?;
                cancelled += 1;
            } else {
                let failure = if is_overdue { deadline_failure() } else { snapshot_age_failure() };
                end_export(&mut transaction, id, Status::Failed, Some(&failure)).await?;
                overdue += 1;
            }
        }
        // token_due_at follows the lease while a worker holds the export, so this covers dead workers, lost messages and the
        // pause after a failure alike. A frozen worker may have received the message, so work that was begun is announced
        // again soon. The message of an export that nobody has begun may just be far back in the queue, and more messages
        // would only make the queue longer. One that waits for a place is announced when a place is given back.
        let reissued = sqlx::query(
            "WITH due AS (
                 SELECT id FROM exports
                 WHERE state IN ('pending', 'planning', 'running', 'finishing') AND token_due_at < ledger_now()
                   AND NOT EXISTS (SELECT FROM outbox WHERE outbox.export_id = exports.id)
                 ORDER BY token_due_at LIMIT 1000 FOR UPDATE SKIP LOCKED),
             marked AS (
                 UPDATE exports e
                 SET token_due_at = ledger_now() + CASE WHEN e.attempt = 0 OR e.state = 'pending' AND e.needs_place
                                                     THEN interval '10 minutes' ELSE interval '10 seconds' END
                 FROM due WHERE e.id = due.id)
             INSERT INTO outbox (export_id) SELECT id FROM due",
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        // In batches: after a long outage so many may be due that one statement would pass its time limit each time.
        let expired = sqlx::query(
            "UPDATE exports SET state = 'expired' WHERE id IN (
                 SELECT id FROM exports WHERE state = 'completed' AND expires_at < ledger_now()
                 LIMIT 1000 FOR UPDATE SKIP LOCKED)",
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        sqlx::query(
            "DELETE FROM idempotency_keys WHERE (tenant, key) IN (
                 SELECT tenant, key FROM idempotency_keys
                 WHERE created_at < ledger_now() - make_interval(secs => $1) LIMIT 1000 FOR UPDATE SKIP LOCKED)",
        )
        .bind(KEY_RETENTION.as_secs_f64())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Some(Swept { cancelled, overdue, reissued, expired }))
    }
}
