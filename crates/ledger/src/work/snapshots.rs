//! Who holds the snapshot of an attempt open. A row says that a process was alive a moment ago; whether its snapshot can be
//! imported is for the source to say.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::claim::Claim;
use super::claim::seconds;
use super::shards::Keeper;
use crate::database::{Ledger, LedgerError, Result};
use polyglot_core::request::ExportRequest;

/// An attempt whose snapshot is kept: what there is to know for joining it.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub export_id: Uuid,
    pub attempt: i32,
    pub request: ExportRequest,
    pub snapshot_until: Option<DateTime<Utc>>,
    /// Of the request that asked for the export.
    pub request_id: Option<String>,
}

impl From<&Claim> for Attempt {
    fn from(claim: &Claim) -> Self {
        let Claim { export_id, attempt, snapshot_until, .. } = *claim;
        let (request, request_id) = (claim.request.clone(), claim.origin.request_id.clone());
        Self { export_id, attempt, request, snapshot_until, request_id }
    }
}

/// Inserts or renews.
pub(super) async fn keep(connection: &mut PgConnection, id: Uuid, attempt: i32, keeper: Keeper<'_>) -> Result<()> {
    sqlx::query(
        "INSERT INTO keepers (export_id, attempt, owner, snapshot, alive_until)
         VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))
         ON CONFLICT (export_id, attempt, owner) DO UPDATE
         SET snapshot = excluded.snapshot, alive_until = excluded.alive_until",
    )
    .bind(id)
    .bind(attempt)
    .bind(keeper.owner)
    .bind(keeper.snapshot)
    .bind(seconds(keeper.lease))
    .execute(connection)
    .await?;
    Ok(())
}

impl Ledger {
    /// Says that the process holds the snapshot. The answer is whether that is still wanted: not when every shard is
    /// committed, or the attempt is over.
    pub async fn keep(&self, export_id: Uuid, attempt: i32, keeper: Keeper<'_>) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        // Shared, so that no attempt ends between the look and the row.
        let wanted = sqlx::query(
            "SELECT FROM exports WHERE id = $1 AND attempt = $2 AND state IN ('planning', 'running') FOR SHARE",
        )
        .bind(export_id)
        .bind(attempt)
        .fetch_optional(&mut *transaction)
        .await?
        .is_some();
        if wanted {
            keep(&mut transaction, export_id, attempt, keeper).await?;
            transaction.commit().await?;
        }
        Ok(wanted)
    }

    /// Attempts whose shards are being read and that fewer than `wanted` processes keep, none of them `owner`.
    pub async fn badly_kept(&self, owner: &str, wanted: i64, limit: i64) -> Result<Vec<Attempt>> {
        let rows = sqlx::query(
            "SELECT e.id, e.attempt, e.request, e.snapshot_until, e.request_id FROM exports e
             WHERE e.state = 'running' AND e.plan IS NOT NULL AND NOT e.cancel_requested
               AND NOT EXISTS (SELECT FROM keepers k
                               WHERE k.export_id = e.id AND k.attempt = e.attempt AND k.owner = $1)
               AND (SELECT count(*) FROM keepers k
                    WHERE k.export_id = e.id AND k.attempt = e.attempt AND k.alive_until > now()) < $2
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

    /// The process does not hold the snapshot any more.
    pub async fn keep_no_longer(&self, export_id: Uuid, attempt: i32, owner: &str) -> Result<()> {
        sqlx::query("DELETE FROM keepers WHERE export_id = $1 AND attempt = $2 AND owner = $3")
            .bind(export_id)
            .bind(attempt)
            .bind(owner)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The names of the attempt's snapshot, those first whose process was heard of last.
    pub async fn snapshots(&self, export_id: Uuid, attempt: i32) -> Result<Vec<String>> {
        let rows =
            sqlx::query("SELECT snapshot FROM keepers WHERE export_id = $1 AND attempt = $2 ORDER BY alive_until DESC")
                .bind(export_id)
                .bind(attempt)
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(|row| Ok(row.try_get("snapshot")?)).collect()
    }
}
