//! The statements with which work is let go of: a shard, an attempt, an export. The caller holds the lock on the export's row.

use sqlx::PgConnection;
use uuid::Uuid;

use super::lease::Claim;
use super::places::release_place;
use crate::database::Result;
use polyglot_core::failure::Failure;
use polyglot_core::status::Status;

/// Ends every lease on the export.
pub(super) async fn free_shards(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query("UPDATE shards SET state = 'free', lease_owner = NULL, leased_until = NULL WHERE export_id = $1 AND state = 'leased'")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends the claim's lease.
pub(super) async fn free_claim(connection: &mut PgConnection, claim: &Claim) -> Result<()> {
    sqlx::query(
        "UPDATE shards SET state = 'free', lease_owner = NULL, leased_until = NULL WHERE export_id = $1 AND number = $2",
    )
    .bind(claim.export_id)
    .bind(claim.shard)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends the attempt; the next claim begins another one. The caller sets when that may be. The place for the snapshot goes to
/// whoever waits for one, and while this export waits for another its deadline stands still, if it has one.
pub(super) async fn start_over(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    free_shards(connection, id).await?;
    sqlx::query(
        "UPDATE exports SET state = 'pending',
             deadline_left = CASE WHEN NOT needs_place THEN NULL WHEN deadline_at IS NULL THEN deadline_left
                                  ELSE greatest(deadline_at - ledger_now(), interval '0') END,
             deadline_at = CASE WHEN needs_place THEN NULL ELSE deadline_at END
         WHERE id = $1",
    )
    .bind(id)
    .execute(&mut *connection)
    .await?;
    release_place(connection, id).await
}

/// Ends an export without a file.
pub(crate) async fn end_export(
    connection: &mut PgConnection,
    id: Uuid,
    status: Status,
    failure: Option<&Failure>,
) -> Result<()> {
    // The progress that was reached.
    sqlx::query(
        "UPDATE exports e SET rows = live.rows, bytes = live.bytes, shards_done = live.shards_done
         FROM (SELECT coalesce(sum(rows), 0) AS rows, coalesce(sum(bytes), 0) AS bytes, count(*) AS shards_done
               FROM shards WHERE export_id = $1 AND state = 'committed') AS live
         WHERE id = $1 AND plan IS NOT NULL",
    )
    .bind(id)
    .execute(&mut *connection)
    .await?;
    delete_shards(connection, id).await?;
    sqlx::query(
        "UPDATE exports SET state = $2, error_code = $3, error = $4, error_detail = $5, finished_at = ledger_now(),
             token_due_at = NULL
         WHERE id = $1",
    )
    .bind(id)
    .bind(status.name())
    .bind(failure.map(|failure| failure.kind.code()))
    .bind(failure.map(|failure| failure.message.as_str()))
    .bind(failure.map(|failure| failure.detail.as_str()))
    .execute(&mut *connection)
    .await?;
    release_place(connection, id).await
}

/// Deletes the rows of the shards and of the snapshot's holders. Their totals are in the export and its manifest by now; a
/// worker that still holds one finds no row.
pub(crate) async fn delete_shards(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query("DELETE FROM shards WHERE export_id = $1").bind(id).execute(&mut *connection).await?;
    delete_holders(connection, id).await
}

/// Deletes the rows of the processes that hold the export's snapshot.
pub(super) async fn delete_holders(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query("DELETE FROM keepers WHERE export_id = $1").bind(id).execute(connection).await?;
    Ok(())
}
