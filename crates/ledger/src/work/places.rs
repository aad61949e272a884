//! Places: an export that is sharded keeps a snapshot of the source open, and has one of a fixed number of places meanwhile,
//! for all workers together. It has the place while it is planned and read. One that finds no place goes back to wait, which
//! counts neither as a failure nor against its deadline.

use sqlx::PgConnection;
use uuid::Uuid;

use super::lease::{Claim, Renewal, lock_claim};
use crate::database::{Ledger, Result};

/// The result of asking for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceRequest {
    /// The export has a place until its attempt ends or every shard is committed.
    Granted,
    /// Every place is taken.
    Denied,
    CancelRequested,
}

/// Waits for others that ask for a place, until the transaction ends, and returns whether one of `max` places is free. No
/// transaction waits for a row of another export after this.
pub(super) async fn has_free_place(connection: &mut PgConnection, max: u16) -> Result<bool> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('polyglot places'))").execute(&mut *connection).await?;
    let taken: i64 = sqlx::query_scalar(
        "SELECT count(*) AS taken FROM exports WHERE has_place AND state IN ('planning', 'running')",
    )
    .fetch_one(connection)
    .await?;
    Ok(taken < i64::from(max))
}

/// Gives the export's place back, if it has one, and announces an export that waits for it.
pub(super) async fn release_place(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query(
        "WITH released AS (UPDATE exports SET has_place = false WHERE id = $1 AND has_place RETURNING id)
         INSERT INTO outbox (export_id)
         SELECT id FROM exports
         WHERE state = 'pending' AND needs_place AND ready_at <= ledger_now() AND EXISTS (SELECT FROM released)
         ORDER BY created_at LIMIT 1 FOR KEY SHARE SKIP LOCKED",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

impl Ledger {
    /// Asks for one of `max` places. Call it once the export is known to be sharded and before its snapshot is kept. Safe to
    /// repeat.
    pub async fn take_place(&self, claim: &Claim, max: u16) -> Result<PlaceRequest> {
        let mut transaction = self.pool.begin().await?;
        if lock_claim(&mut transaction, claim).await? == Renewal::CancelRequested {
            return Ok(PlaceRequest::CancelRequested);
        }
        let has_place: bool = sqlx::query_scalar("SELECT has_place FROM exports WHERE id = $1")
            .bind(claim.export_id)
            .fetch_one(&mut *transaction)
            .await?;
        if !has_place && !has_free_place(&mut transaction, max).await? {
            return Ok(PlaceRequest::Denied);
        }
        sqlx::query("UPDATE exports SET needs_place = true, is_small = false, has_place = true WHERE id = $1")
            .bind(claim.export_id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(PlaceRequest::Granted)
    }
}
