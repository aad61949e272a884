//! Renewing a claim's lease.

use std::time::Duration;

use super::lease::{COORDINATOR, Claim, JobKind, Renewal, lock_claim, seconds};
use crate::database::{Ledger, LedgerError, Result};

impl Ledger {
    /// Extends the lease. A claim that reads a whole export also stores how many rows and bytes are written.
    pub async fn renew(&self, claim: &Claim, lease: Duration, rows: i64, bytes: i64) -> Result<Renewal> {
        if claim.shard != COORDINATOR {
            return self.renew_shard(claim, lease).await;
        }
        let mut transaction = self.pool.begin().await?;
        let renewal = lock_claim(&mut transaction, claim).await?;
        sqlx::query(
            "UPDATE shards SET leased_until = ledger_now() + make_interval(secs => $3) WHERE export_id = $1 AND number = $2",
        )
        .bind(claim.export_id)
        .bind(claim.shard)
        .bind(seconds(lease))
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "UPDATE exports SET rows = CASE WHEN $5 THEN $2 ELSE rows END, bytes = CASE WHEN $5 THEN $3 ELSE bytes END,
                 token_due_at = ledger_now() + make_interval(secs => $4), ready_at = ledger_now() + make_interval(secs => $4)
             WHERE id = $1",
        )
        .bind(claim.export_id)
        .bind(rows)
        .bind(bytes)
        .bind(seconds(lease))
        .bind(matches!(claim.work, JobKind::Start { .. }))
        .execute(&mut *transaction)
        .await?;
        self.commit_change(transaction, claim.export_id).await?;
        Ok(renewal)
    }

    /// Takes no lock on the export's row, for which many workers would wait.
    async fn renew_shard(&self, claim: &Claim, lease: Duration) -> Result<Renewal> {
        let cancel_requested = sqlx::query_scalar(
            "UPDATE shards s SET leased_until = ledger_now() + make_interval(secs => $5)
             FROM exports e
             WHERE s.export_id = $1 AND s.number = $2 AND s.fence = $3 AND s.state = 'leased'
               AND e.id = s.export_id AND e.attempt = $4 AND e.state = 'running'
             RETURNING e.cancel_requested",
        )
        .bind(claim.export_id)
        .bind(claim.shard)
        .bind(claim.fence)
        .bind(claim.attempt)
        .bind(seconds(lease))
        .fetch_optional(&self.pool)
        .await?
        .ok_or(LedgerError::LeaseLost)?;
        Ok(Renewal::of(cancel_requested))
    }
}
