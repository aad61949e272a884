//! The processes that hold an attempt's snapshot open. A row shows that a process was alive recently; whether its snapshot can
//! still be imported, only the source knows.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::lease::{Claim, seconds};
use crate::database::{Ledger, LedgerError, Result};
use polyglot_core::request::ExportRequest;

/// An attempt whose snapshot another process may import and hold as well.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub export_id: Uuid,
    pub attempt: i32,
    pub request: ExportRequest,
    pub snapshot_until: Option<DateTime<Utc>>,
    /// Id of the request that asked for the export.
    pub request_id: Option<String>,
}

impl From<&Claim> for Attempt {
    fn from(claim: &Claim) -> Self {
        let Claim { export_id, attempt, snapshot_until, .. } = *claim;
        let (request, request_id) = (claim.request.clone(), claim.origin.request_id.clone());
        Self { export_id, attempt, request, snapshot_until, request_id }
    }
}

/// A process that holds a snapshot, and how others import it.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotHolder<'a> {
    pub owner: &'a str,
    pub snapshot: &'a str,
    /// Time after which the process counts as lost, unless it renews.
    pub lease: Duration,
}

/// Inserts or renews the holder's row.
pub(super) async fn hold_snapshot(
    connection: &mut PgConnection,
    id: Uuid,
    attempt: i32,
    holder: SnapshotHolder<'_>,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO keepers (export_id, attempt, owner, snapshot, alive_until)
         VALUES ($1, $2, $3, $4, ledger_now() + make_interval(secs => $5))
         ON CONFLICT (export_id, attempt, owner) DO UPDATE
         SET snapshot = excluded.snapshot, alive_until = excluded.alive_until",
    )
    .bind(id)
    .bind(attempt)
    .bind(holder.owner)
    .bind(holder.snapshot)
    .bind(seconds(holder.lease))
    .execute(connection)
    .await?;
    Ok(())
}

impl Ledger {
    /// Records that the process holds the snapshot. Returns whether it is still needed: not when every shard is committed, or
    /// the attempt has ended.
    pub async fn hold_snapshot(&self, export_id: Uuid, attempt: i32, holder: SnapshotHolder<'_>) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        // A shared lock, so that the attempt cannot end between this check and the insert.
        let wanted = sqlx::query(
            "SELECT FROM exports WHERE id = $1 AND attempt = $2 AND state IN ('planning', 'running') FOR SHARE",
        )
        .bind(export_id)
        .bind(attempt)
        .fetch_optional(&mut *transaction)
        .await?
        .is_some();
        if wanted {
            hold_snapshot(&mut transaction, export_id, attempt, holder).await?;
            transaction.commit().await?;
        }
        Ok(wanted)
    }

    /// Attempts whose shards are being read and whose snapshot fewer than `wanted` processes hold, none of them `owner`.
    pub async fn attempts_to_hold(&self, owner: &str, wanted: i64, limit: i64) -> Result<Vec<Attempt>> {
        let rows = sqlx::query(
            "SELECT e.id, e.attempt, e.request, e.snapshot_until, e.request_id FROM exports e
             WHERE e.state = 'running' AND e.plan IS NOT NULL AND NOT e.cancel_requested
               AND NOT EXISTS (SELECT FROM keepers k
                               WHERE k.export_id = e.id AND k.attempt = e.attempt AND k.owner = $1)
               AND (SELECT count(*) FROM keepers k
                    WHERE k.export_id = e.id AND k.attempt = e.attempt AND k.alive_until > ledger_now()) < $2
             LIMIT $3",
        )
        .bind(owner)
        .bind(wanted)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let export_id: Uuid = row.try_get("id")?;
                let request = serde_json::from_value(row.try_get("request")?);
                let unreadable =
                    |error| LedgerError::Unreadable { id: export_id, problem: format!("request: {error}") };
                Ok(Attempt {
                    export_id,
                    attempt: row.try_get("attempt")?,
                    request: request.map_err(unreadable)?,
                    snapshot_until: row.try_get("snapshot_until")?,
                    request_id: row.try_get("request_id")?,
                })
            })
            .collect()
    }

    /// Records that the process no longer holds the snapshot.
    pub async fn release_snapshot(&self, export_id: Uuid, attempt: i32, owner: &str) -> Result<()> {
        sqlx::query("DELETE FROM keepers WHERE export_id = $1 AND attempt = $2 AND owner = $3")
            .bind(export_id)
            .bind(attempt)
            .bind(owner)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The names under which the attempt's snapshot can be imported, most recently renewed first.
    pub async fn snapshots(&self, export_id: Uuid, attempt: i32) -> Result<Vec<String>> {
        let names = sqlx::query_scalar(
            "SELECT snapshot FROM keepers WHERE export_id = $1 AND attempt = $2 ORDER BY alive_until DESC",
        )
        .bind(export_id)
        .bind(attempt)
        .fetch_all(&self.pool)
        .await?;
        Ok(names)
    }
}
