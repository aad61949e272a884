//! The event streams that are open, of tenants that have a limit of them. A stream has a slot that is renewed while it is open;
//! the slots of an api that was lost end by themselves.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::database::{Ledger, LedgerError, Result};
use polyglot_core::tenant_limits::{LimitReached, TenantLimit};

/// Time after which a slot that was not renewed is free.
const LIFETIME: Duration = Duration::from_mins(1);

/// Time after which a stream that was refused may be tried again. When one of the others ends is not known.
const RETRY: Duration = Duration::from_secs(5);

/// The slot of an open stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSlot(Uuid);

impl Ledger {
    /// Takes one of the tenant's `max` slots. It is to be renewed twice a minute or more often.
    ///
    /// # Errors
    /// [`LimitReached`](LedgerError::LimitReached) if all of them are taken.
    pub async fn open_stream(&self, tenant: &str, max: u32) -> Result<StreamSlot> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('polyglot streams ' || $1, 0))")
            .bind(tenant)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("DELETE FROM open_streams WHERE tenant = $1 AND alive_until < ledger_now()")
            .bind(tenant)
            .execute(&mut *transaction)
            .await?;
        let used = count_streams(&mut transaction, tenant).await?;
        if used >= u64::from(max) {
            let reached = LimitReached { limit: TenantLimit::Streams, max: max.into(), used, retry_after: RETRY };
            return Err(LedgerError::LimitReached(reached));
        }
        let id = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO open_streams (id, tenant, alive_until) VALUES ($1, $2, ledger_now() + make_interval(secs => $3))",
        )
        .bind(id)
        .bind(tenant)
        .bind(LIFETIME.as_secs_f64())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(StreamSlot(id))
    }

    /// Keeps the slot for a minute from now. A slot that has ended stays ended: the stream goes on and does not count.
    pub async fn renew_stream(&self, slot: StreamSlot) -> Result<()> {
        sqlx::query("UPDATE open_streams SET alive_until = ledger_now() + make_interval(secs => $2) WHERE id = $1")
            .bind(slot.0)
            .bind(LIFETIME.as_secs_f64())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Gives the slot back. Safe to repeat.
    pub async fn close_stream(&self, slot: StreamSlot) -> Result<()> {
        sqlx::query("DELETE FROM open_streams WHERE id = $1").bind(slot.0).execute(&self.pool).await?;
        Ok(())
    }
}

/// Number of the tenant's slots that are taken.
pub(super) async fn count_streams(connection: &mut PgConnection, tenant: &str) -> Result<u64> {
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) AS open FROM open_streams WHERE tenant = $1 AND alive_until >= ledger_now()",
    )
    .bind(tenant)
    .fetch_one(connection)
    .await?;
    Ok(open.unsigned_abs())
}
