//! The shards of an export: the planner writes them in one transaction, workers commit them one by one, and the worker that
//! finishes the export reads them back.

use serde_json::Value;
use sqlx::Row;
use uuid::Uuid;

use super::end::{free_claim, start_over};
use super::lease::{Claim, Renewal, lock_claim};
use super::places::release_place;
use super::snapshots::{SnapshotHolder, hold_snapshot};
use crate::database::{Ledger, LedgerError, Result};
use crate::outbox;

/// The shards into which the planner of an attempt divides it.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Data that every shard and the finish need.
    pub plan: Value,
    /// The range of each shard, in the order of the rows.
    pub bounds: Vec<Value>,
    pub rows_estimate: Option<i64>,
    /// Shards that may be worked on at a time.
    pub parallelism: u16,
}

/// A stored shard.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredShard {
    pub number: i32,
    pub rows: i64,
    pub bytes: i64,
    pub crc32: u32,
    /// Before compression.
    pub uncompressed_bytes: i64,
    /// Before gzip.
    pub uncompressed_crc32: Option<u32>,
    pub etag: Option<String>,
    /// Parquet's description of the shard's row groups.
    pub row_groups: Option<Vec<u8>>,
    /// Values that were replaced, as the worker describes them.
    pub replaced: Option<Value>,
}

/// The result of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// Other shards are still to be done.
    More,
    /// It was the last one.
    All,
    /// Nothing was changed: a client has asked to cancel the export.
    CancelRequested,
}

impl Ledger {
    /// Stores the plan, the shards, the first holder of the snapshot and a message for the first shard, and ends the claim.
    pub async fn planned(&self, claim: &Claim, planned: &Planned, holder: SnapshotHolder<'_>) -> Result<Renewal> {
        let mut transaction = self.pool.begin().await?;
        if lock_claim(&mut transaction, claim).await? == Renewal::CancelRequested {
            return Ok(Renewal::CancelRequested);
        }
        let shards = i32::try_from(planned.bounds.len()).unwrap_or(i32::MAX);
        sqlx::query(
            "INSERT INTO shards (export_id, number, bounds)
             SELECT $1, number, bounds FROM unnest($2::jsonb[]) WITH ORDINALITY AS shard(bounds, number)",
        )
        .bind(claim.export_id)
        .bind(&planned.bounds)
        .execute(&mut *transaction)
        .await?;
        free_claim(&mut transaction, claim).await?;
        sqlx::query(
            "UPDATE exports SET state = 'running', plan = $2, shards = $3, rows_estimate = $4, parallelism = $5,
                 ready_at = ledger_now()
             WHERE id = $1",
        )
        .bind(claim.export_id)
        .bind(&planned.plan)
        .bind(shards)
        .bind(planned.rows_estimate)
        .bind(i32::from(planned.parallelism))
        .execute(&mut *transaction)
        .await?;
        hold_snapshot(&mut transaction, claim.export_id, claim.attempt, holder).await?;
        outbox::announce(&mut transaction, claim.export_id).await?;
        self.commit_change(transaction, claim.export_id).await?;
        Ok(Renewal::Held)
    }

    /// Commits a stored shard. Enqueues the message for the next one if the parallelism limit kept the claim from doing so.
    pub async fn commit(&self, claim: &Claim, stored: &StoredShard, peak_memory: Option<i64>) -> Result<Committed> {
        let mut transaction = self.pool.begin().await?;
        if lock_claim(&mut transaction, claim).await? == Renewal::CancelRequested {
            return Ok(Committed::CancelRequested);
        }
        sqlx::query(
            "UPDATE shards SET state = 'committed', lease_owner = NULL, leased_until = NULL, rows = $3, bytes = $4,
                 crc32 = $5, raw_bytes = $6, raw_crc32 = $7, etag = $8, row_groups = $9, replaced = $10
             WHERE export_id = $1 AND number = $2",
        )
        .bind(claim.export_id)
        .bind(claim.shard)
        .bind(stored.rows)
        .bind(stored.bytes)
        .bind(i64::from(stored.crc32))
        .bind(stored.uncompressed_bytes)
        .bind(stored.uncompressed_crc32.map(i64::from))
        .bind(&stored.etag)
        .bind(&stored.row_groups)
        .bind(&stored.replaced)
        .execute(&mut *transaction)
        .await?;
        let (all, at_limit): (bool, bool) = sqlx::query_as(
            "SELECT NOT EXISTS (SELECT FROM shards s
                                WHERE s.export_id = e.id AND s.number > e.committed_to AND s.state = 'free')
                AND NOT EXISTS (SELECT FROM shards s
                                WHERE s.export_id = e.id AND s.number > e.committed_to AND s.state = 'leased') AS every,
                (SELECT count(*) FROM shards s
                 WHERE s.export_id = e.id AND s.number > e.committed_to AND s.state = 'leased'
                     AND s.leased_until >= ledger_now()) + 1 >= e.parallelism AS were_most
             FROM exports e WHERE e.id = $1",
        )
        .bind(claim.export_id)
        .fetch_one(&mut *transaction)
        .await?;
        // Written only when a value changes (see migration 10). A success resets the count of failures.
        sqlx::query(
            "UPDATE exports SET failures = 0, peak_memory_bytes = greatest(peak_memory_bytes, $2),
                 ready_at = greatest(ledger_now(), paused_until), state = CASE WHEN $3 THEN 'finishing' ELSE state END
             WHERE id = $1 AND ($3 OR failures > 0 OR ready_at > ledger_now() OR coalesce(peak_memory_bytes, 0) < $2)",
        )
        .bind(claim.export_id)
        .bind(peak_memory)
        .bind(all)
        .execute(&mut *transaction)
        .await?;
        if all {
            release_place(&mut transaction, claim.export_id).await?;
        }
        if all || at_limit {
            outbox::announce(&mut transaction, claim.export_id).await?;
        }
        self.commit_change(transaction, claim.export_id).await?;
        Ok(if all { Committed::All } else { Committed::More })
    }

    /// Plans the export again with larger shards, because one was smaller than the object store takes.
    pub async fn too_small(&self, claim: &Claim) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        lock_claim(&mut transaction, claim).await?;
        start_over(&mut transaction, claim.export_id).await?;
        sqlx::query(
            "UPDATE exports SET coarser = coarser + 1, ready_at = ledger_now(), token_due_at = ledger_now() + interval '10 minutes'
             WHERE id = $1",
        )
        .bind(claim.export_id)
        .execute(&mut *transaction)
        .await?;
        outbox::announce(&mut transaction, claim.export_id).await?;
        self.commit_change(transaction, claim.export_id).await?;
        Ok(())
    }

    /// The rows and bytes of the committed shards.
    pub async fn committed_totals(&self, export_id: Uuid) -> Result<(i64, i64)> {
        let totals = sqlx::query_as(
            "SELECT coalesce(sum(rows), 0)::int8, coalesce(sum(bytes), 0)::int8 FROM shards
             WHERE export_id = $1 AND number > 0 AND state = 'committed'",
        );
        Ok(totals.bind(export_id).fetch_one(&self.pool).await?)
    }

    /// Committed shards after number `after`, in order.
    pub async fn stored_shards(&self, export_id: Uuid, after: i32, limit: i64) -> Result<Vec<StoredShard>> {
        let rows = sqlx::query(
            "SELECT number, rows, bytes, crc32, raw_bytes, raw_crc32, etag, row_groups, replaced FROM shards
             WHERE export_id = $1 AND number > $2 AND state = 'committed' ORDER BY number LIMIT $3",
        )
        .bind(export_id)
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        let crc = |value: i64| {
            let problem = "a checksum out of range".to_owned();
            u32::try_from(value).map_err(|_| LedgerError::Unreadable { id: export_id, problem })
        };
        rows.iter()
            .map(|row| {
                Ok(StoredShard {
                    number: row.try_get("number")?,
                    rows: row.try_get("rows")?,
                    bytes: row.try_get("bytes")?,
                    crc32: crc(row.try_get("crc32")?)?,
                    uncompressed_bytes: row.try_get("raw_bytes")?,
                    uncompressed_crc32: row.try_get::<Option<i64>, _>("raw_crc32")?.map(crc).transpose()?,
                    etag: row.try_get("etag")?,
                    row_groups: row.try_get("row_groups")?,
                    replaced: row.try_get("replaced")?,
                })
            })
            .collect()
    }
}
