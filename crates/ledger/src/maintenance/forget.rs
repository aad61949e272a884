//! Forgetting exports that ended long ago, so that the ledger does not grow for ever.

use std::time::Duration;

use uuid::Uuid;

use crate::database::{Ledger, Result};

/// Hours after which a bucket of requests that nobody has taken from is taken to be full again, and an event stream that nobody has renewed to have
/// ended.
const UNUSED_HOURS: i32 = 24;

impl Ledger {
    /// Deletes what is kept of tenants only while they make requests, so that it does not grow with every tenant there ever was.
    pub async fn forget_tenants(&self) -> Result<u64> {
        let mut deleted = 0;
        for statement in [
            "DELETE FROM request_buckets WHERE filled_at < ledger_now() - make_interval(hours => $1)",
            "DELETE FROM open_streams WHERE alive_until < ledger_now() - make_interval(hours => $1)",
        ] {
            deleted += sqlx::query(statement).bind(UNUSED_HOURS).execute(&self.pool).await?.rows_affected();
        }
        Ok(deleted)
    }

    /// Deletes up to `limit` exports that ended more than `age` ago, oldest first, with all that belongs to them: idempotency
    /// keys, state changes, messages. An export with a file ends when the file does. One is kept for as long as anything that it
    /// stored may be in the object store: its row is what that is found by. Returns how many were deleted.
    pub async fn forget(&self, age: Duration, limit: i64) -> Result<u64> {
        let mut transaction = self.pool.begin().await?;
        let ended: Vec<Uuid> = sqlx::query_scalar(
            "SELECT id FROM exports
             WHERE state IN ('expired', 'failed', 'cancelled') AND object_key IS NULL
               AND greatest(finished_at, expires_at) < ledger_now() - make_interval(secs => $1)
               AND NOT EXISTS (SELECT FROM uploads WHERE uploads.export_id = exports.id)
             ORDER BY greatest(finished_at, expires_at) LIMIT $2 FOR UPDATE SKIP LOCKED",
        )
        .bind(age.as_secs_f64())
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await?;
        if ended.is_empty() {
            return Ok(0);
        }
        // Uploads are looked for again under the lock, which keeps a worker that was frozen since from recording another one.
        let forgotten = sqlx::query(
            "DELETE FROM exports
             WHERE id = ANY($1) AND NOT EXISTS (SELECT FROM uploads WHERE uploads.export_id = exports.id)",
        )
        .bind(&ended)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        transaction.commit().await?;
        Ok(forgotten)
    }
}
