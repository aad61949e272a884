//! The regular look at what time has changed: lost messages, dead workers, cancelled exports that nobody holds,
//! files whose time is up. One process at a time, and cheap when there is nothing to do.

use sqlx::Row;

use super::claim::deadline_failure;
use super::{Ledger, Result};

/// What a sweep changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub cancelled: u64,
    pub overdue: u64,
    pub reissued: u64,
    pub expired: u64,
}

impl Ledger {
    /// Does the sweep; `None` if another process is at it.
    pub async fn sweep(&self) -> Result<Option<Swept>> {
        let mut transaction = self.pool.begin().await?;
        let ours: bool = sqlx::query("SELECT pg_try_advisory_xact_lock(hashtext('polyglot sweep')) AS ours")
            .fetch_one(&mut *transaction)
            .await?
            .try_get("ours")?;
        if !ours {
            return Ok(None);
        }
        let cancelled = sqlx::query(
            "UPDATE exports e SET state = 'cancelled', finished_at = now(), token_due_at = NULL
             WHERE e.state IN ('pending', 'planning', 'running', 'finishing') AND e.cancel_requested
               AND NOT EXISTS (SELECT FROM shards s
                               WHERE s.export_id = e.id AND s.state = 'leased' AND s.lease_until >= now())",
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        let late = deadline_failure();
        let overdue = sqlx::query(
            "UPDATE exports e SET state = 'failed', finished_at = now(), token_due_at = NULL,
                 error_code = $1, error = $2, error_detail = $3
             WHERE e.state IN ('pending', 'planning', 'running', 'finishing') AND e.deadline_at < now()
               AND NOT EXISTS (SELECT FROM shards s
                               WHERE s.export_id = e.id AND s.state = 'leased' AND s.lease_until >= now())",
        )
        .bind(late.kind.code())
        .bind(&late.message)
        .bind(&late.detail)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        // An ended export has no leases, so that nobody need look at its state to understand one.
        if cancelled + overdue > 0 {
            sqlx::query(
                "UPDATE shards s SET state = 'free', lease_owner = NULL, lease_until = NULL FROM exports e
                 WHERE s.state = 'leased' AND e.id = s.export_id AND e.state IN ('failed', 'cancelled')",
            )
            .execute(&mut *transaction)
            .await?;
        }
        // token_due_at follows the lease while a worker holds the export, so this covers dead workers, lost
        // messages and the pause after a failure alike. A message can land with a worker that is frozen: work that
        // was begun is announced again soon. What nobody has begun may just be far back in the queue, and more
        // messages would only make that longer.
        let reissued = sqlx::query(
            "WITH due AS (
                 SELECT id FROM exports
                 WHERE state IN ('pending', 'planning', 'running', 'finishing') AND token_due_at < now()
                   AND NOT EXISTS (SELECT FROM outbox WHERE outbox.export_id = exports.id)
                 ORDER BY token_due_at LIMIT 1000 FOR UPDATE SKIP LOCKED),
             marked AS (
                 UPDATE exports e
                 SET token_due_at = now() + CASE WHEN e.attempt = 0 THEN interval '10 minutes' ELSE interval '10 seconds' END
                 FROM due WHERE e.id = due.id)
             INSERT INTO outbox (export_id) SELECT id FROM due",
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        let expired =
            sqlx::query("UPDATE exports SET state = 'expired' WHERE state = 'completed' AND expires_at < now()")
                .execute(&mut *transaction)
                .await?
                .rows_affected();
        sqlx::query("DELETE FROM idempotency_keys WHERE created_at < now() - make_interval(secs => $1)")
            .bind(super::idempotency::KEPT.as_secs_f64())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Some(Swept { cancelled, overdue, reissued, expired }))
    }
}
