//! Reading exports back: one, a page of the list.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{QueryBuilder, Row};
use uuid::Uuid;

use crate::database::{Ledger, LedgerError, Result};
use polyglot_core::manifest::Manifest;
use polyglot_core::request::ExportRequest;
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_core::status::Status;

/// An export as the ledger knows it.
#[derive(Debug, Clone)]
pub struct Export {
    pub id: Uuid,
    pub request: ExportRequest,
    pub status: Status,
    pub attempt: i32,
    pub rows_estimate: Option<i64>,
    pub rows: i64,
    pub bytes: i64,
    /// Of the finished object, while it exists.
    pub object_key: Option<String>,
    pub error_code: Option<String>,
    /// Words for the user.
    pub error: Option<String>,
    pub cancel_requested: bool,
    pub shards: i32,
    pub shards_done: i32,
    /// Why one worker reads it all; `None` also before a worker has decided.
    pub uncut: Option<SingleStreamReason>,
    pub peak_memory_bytes: Option<i64>,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// Which exports a list shows: newest first, `before` (exclusive) for the next page.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListFilter {
    pub status: Option<Status>,
    pub before: Option<Uuid>,
    pub limit: i64,
}

/// Of an export whose shards are being read or put together, what is committed is counted from them.
const COLUMNS: &str = "SELECT e.id, e.request, e.state, e.attempt, e.rows_estimate, e.object_key,
    e.error_code, e.error, e.cancel_requested, e.peak_memory_bytes, e.created_at, e.started_at, e.finished_at,
    e.expires_at, e.shards, e.uncut, coalesce(live.rows, e.rows) AS rows, coalesce(live.bytes, e.bytes) AS bytes,
    coalesce(live.shards_done, e.shards_done) AS shards_done
    FROM exports e LEFT JOIN LATERAL (
        SELECT sum(s.rows)::bigint AS rows, sum(s.bytes)::bigint AS bytes, count(*)::integer AS shards_done
        FROM shards s WHERE s.export_id = e.id AND s.state = 'committed'
    ) AS live ON e.plan IS NOT NULL AND e.state IN ('running', 'finishing')
    WHERE true";

fn read_export(row: &PgRow) -> Result<Export> {
    let id: Uuid = row.try_get("id")?;
    let unreadable = |problem: String| LedgerError::Unreadable { id, problem };
    let state: String = row.try_get("state")?;
    let request: serde_json::Value = row.try_get("request")?;
    let uncut: Option<String> = row.try_get("uncut")?;
    Ok(Export {
        id,
        request: serde_json::from_value(request).map_err(|error| unreadable(format!("request: {error}")))?,
        status: crate::database::status(id, &state)?,
        attempt: row.try_get("attempt")?,
        rows_estimate: row.try_get("rows_estimate")?,
        rows: row.try_get("rows")?,
        bytes: row.try_get("bytes")?,
        object_key: row.try_get("object_key")?,
        error_code: row.try_get("error_code")?,
        error: row.try_get("error")?,
        cancel_requested: row.try_get("cancel_requested")?,
        shards: row.try_get("shards")?,
        shards_done: row.try_get("shards_done")?,
        // A newer version may have reasons that this one does not know.
        uncut: uncut.as_deref().and_then(SingleStreamReason::from_code),
        peak_memory_bytes: row.try_get("peak_memory_bytes")?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
        expires_at: row.try_get("expires_at")?,
    })
}

impl Ledger {
    pub async fn find(&self, id: Uuid) -> Result<Option<Export>> {
        let row = QueryBuilder::<sqlx::Postgres>::new(COLUMNS)
            .push(" AND e.id = ")
            .push_bind(id)
            .build()
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(read_export).transpose()
    }

    /// Those of the exports that there are, in no order. One that this version cannot read is left out, so that it does not
    /// hide the others.
    pub async fn find_all(&self, ids: &[Uuid]) -> Result<Vec<Export>> {
        let mut query = QueryBuilder::<sqlx::Postgres>::new(COLUMNS);
        query.push(" AND e.id = ANY(").push_bind(ids).push(")");
        let mut exports = Vec::with_capacity(ids.len());
        for row in query.build().fetch_all(&self.pool).await? {
            match read_export(&row) {
                Err(error @ LedgerError::Unreadable { .. }) => {
                    tracing::debug!(error = polyglot_core::failure::chain(&error), "an export is left out");
                }
                export => exports.push(export?),
            }
        }
        Ok(exports)
    }

    /// The newest exports that have not ended.
    pub async fn active(&self, limit: i64) -> Result<Vec<Uuid>> {
        let query = sqlx::query(
            "SELECT id FROM exports WHERE state IN ('pending', 'planning', 'running', 'finishing')
             ORDER BY id DESC LIMIT $1",
        );
        query.bind(limit).fetch_all(&self.pool).await?.iter().map(|row| Ok(row.try_get("id")?)).collect()
    }

    /// The state alone; `None` for an export that is unknown.
    pub async fn status(&self, id: Uuid) -> Result<Option<Status>> {
        let row = sqlx::query("SELECT state FROM exports WHERE id = $1").bind(id).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(None) };
        let state: String = row.try_get("state")?;
        crate::database::status(id, &state).map(Some)
    }

    /// What the export's file holds, as the worker wrote it down; `None` for an export that is unknown or has not
    /// completed.
    pub async fn manifest(&self, id: Uuid) -> Result<Option<Manifest>> {
        let row = sqlx::query("SELECT manifest FROM exports WHERE id = $1 AND manifest IS NOT NULL")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let manifest: serde_json::Value = row.try_get("manifest")?;
        serde_json::from_value(manifest)
            .map(Some)
            .map_err(|error| LedgerError::Unreadable { id, problem: format!("manifest: {error}") })
    }

    pub async fn list(&self, filter: ListFilter) -> Result<Vec<Export>> {
        let mut query = QueryBuilder::<sqlx::Postgres>::new(COLUMNS);
        if let Some(status) = filter.status {
            query.push(" AND e.state = ").push_bind(status.name());
        }
        if let Some(before) = filter.before {
            query.push(" AND e.id < ").push_bind(before);
        }
        query.push(" ORDER BY e.id DESC LIMIT ").push_bind(filter.limit);
        query.build().fetch_all(&self.pool).await?.iter().map(read_export).collect()
    }
}
