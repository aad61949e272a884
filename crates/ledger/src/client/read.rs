//! Reading exports, of any tenant: one by id, several, a manifest. Of the request they have what documents show, from columns
//! of its own; the request itself may be large, and is read by [`Ledger::request`] and `TenantView::find_with_request` alone.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{QueryBuilder, Row};
use uuid::Uuid;

use crate::database::{Ledger, LedgerError, Result, status};
use polyglot_core::compression::Compression;
use polyglot_core::failure::chain;
use polyglot_core::format::FormatName;
use polyglot_core::format_options::FileEncoding;
use polyglot_core::manifest::Manifest;
use polyglot_core::request::{ExportRequest, Layout};
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_core::status::Status;

/// An export as the ledger stores it, without its request.
#[derive(Debug, Clone)]
pub struct Export {
    pub id: Uuid,
    pub tenant: String,
    /// The one caller of the tenant who may see it; `None`: all of them.
    pub owner: Option<String>,
    pub dataset: String,
    pub format: FormatName,
    pub compression: Option<Compression>,
    pub layout: Layout,
    /// The `parallelism` that the request asked for.
    pub requested_parallelism: Option<u16>,
    pub status: Status,
    /// `None` unless it is pending and could begin now.
    pub waiting: Option<Waiting>,
    pub attempt: i32,
    pub rows_estimate: Option<i64>,
    pub rows: i64,
    pub bytes: i64,
    /// The key of the finished object, while it exists.
    pub object_key: Option<String>,
    /// Failures since the last progress. Those of an active export are tried again.
    pub failures: i32,
    /// Of the last failure.
    pub error_code: Option<String>,
    /// The text of the last failure for the client.
    pub error: Option<String>,
    /// A client has deleted it: it is, or will be, cancelled, or its file was deleted before it expired.
    pub cancel_requested: bool,
    pub shards: i32,
    pub shards_done: i32,
    /// The reason why the export is read as one stream; `None` also before a worker has planned it.
    pub single_stream_reason: Option<SingleStreamReason>,
    pub peak_memory_bytes: Option<i64>,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// What a pending export waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// For one of the places of exports that keep a snapshot open.
    Places,
    /// For a worker that is free.
    Workers,
    /// For another export of its tenant to end, which has as many begun as it may.
    TenantLimit,
}

/// The wait of an export that could begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub reason: WaitReason,
    /// Number of exports of the same tenant that wait for the same and were accepted earlier, counted up to
    /// [`Self::COUNTED`]. For one that is expected to be small only small ones count, because it passes the others.
    pub before: i64,
}

impl Waiting {
    /// The largest number that is counted, so that a list of exports that wait stays cheap.
    pub const COUNTED: i64 = 100;
}

/// The exports that a list shows, newest first; `before` (exclusive) begins the next page.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListFilter {
    pub status: Option<Status>,
    pub before: Option<Uuid>,
    pub limit: i64,
}

/// The progress of a sharded export that is running or finishing is the sum of its committed shards. At most 100 of those
/// that wait before it are counted, which is [`Waiting::COUNTED`].
pub(super) const COLUMNS: &str =
    "SELECT e.id, e.tenant, e.owner, e.dataset, e.format, e.compression, e.layout, e.requested_parallelism,
    e.state, e.attempt, e.rows_estimate, e.object_key,
    e.failures, e.error_code, e.error, e.cancel_requested, e.peak_memory_bytes, e.created_at, e.started_at, e.finished_at,
    e.expires_at, e.shards, e.uncut, coalesce(live.rows, e.rows) AS rows, coalesce(live.bytes, e.bytes) AS bytes,
    coalesce(live.shards_done, e.shards_done) AS shards_done, e.needs_place, queue.before,
    CASE WHEN queue.before IS NOT NULL AND EXISTS (SELECT FROM running_limits) THEN
        (SELECT count(*) FROM exports b WHERE b.tenant = e.tenant AND b.state IN ('planning', 'running', 'finishing'))
            >= coalesce((SELECT l.running FROM running_limits l WHERE l.tenant = e.tenant),
                        (SELECT l.running FROM running_limits l WHERE l.tenant = '*')) END AS at_running_limit
    FROM exports e LEFT JOIN LATERAL (
        SELECT sum(s.rows)::bigint AS rows, sum(s.bytes)::bigint AS bytes, count(*)::integer AS shards_done
        FROM shards s WHERE s.export_id = e.id AND s.state = 'committed'
    ) AS live ON e.plan IS NOT NULL AND e.state IN ('running', 'finishing')
    LEFT JOIN LATERAL (
        SELECT count(*) AS before FROM (
            -- Two branches, of which one is not run, so that each is answered from an index of its own.
            (SELECT FROM exports w
             WHERE w.state = 'pending' AND w.tenant = e.tenant AND w.is_small AND w.created_at < e.created_at
               AND e.is_small
             LIMIT 100)
            UNION ALL
            (SELECT FROM exports w
             WHERE w.state = 'pending' AND w.tenant = e.tenant AND w.needs_place = e.needs_place
               AND w.created_at < e.created_at AND NOT e.is_small
             LIMIT 100)) AS earlier
    ) AS queue ON e.state = 'pending' AND e.ready_at <= ledger_now()
    WHERE true";

pub(super) fn read_export(row: &PgRow) -> Result<Export> {
    let id: Uuid = row.try_get("id")?;
    let unreadable = |problem: String| LedgerError::Unreadable { id, problem };
    let state: String = row.try_get("state")?;
    let compression: Option<String> = row.try_get("compression")?;
    let compression = compression
        .map(|name| Compression::from_name(&name).ok_or_else(|| unreadable(format!("compression {name:?}"))))
        .transpose()?;
    let layout: String = row.try_get("layout")?;
    let requested_parallelism: Option<i32> = row.try_get("requested_parallelism")?;
    let reason: Option<String> = row.try_get("uncut")?;
    Ok(Export {
        id,
        tenant: row.try_get("tenant")?,
        owner: row.try_get("owner")?,
        dataset: row.try_get("dataset")?,
        format: row.try_get::<&str, _>("format")?.into(),
        compression,
        layout: Layout::from_name(&layout).ok_or_else(|| unreadable(format!("layout {layout:?}")))?,
        requested_parallelism: requested_parallelism
            .map(|wanted| u16::try_from(wanted).map_err(|_| unreadable(format!("parallelism {wanted}"))))
            .transpose()?,
        status: status(id, &state)?,
        waiting: waiting(row)?,
        attempt: row.try_get("attempt")?,
        rows_estimate: row.try_get("rows_estimate")?,
        rows: row.try_get("rows")?,
        bytes: row.try_get("bytes")?,
        object_key: row.try_get("object_key")?,
        failures: row.try_get("failures")?,
        error_code: row.try_get("error_code")?,
        error: row.try_get("error")?,
        cancel_requested: row.try_get("cancel_requested")?,
        shards: row.try_get("shards")?,
        shards_done: row.try_get("shards_done")?,
        // A newer version may have reasons that this one does not know.
        single_stream_reason: reason.as_deref().and_then(SingleStreamReason::from_code),
        peak_memory_bytes: row.try_get("peak_memory_bytes")?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
        expires_at: row.try_get("expires_at")?,
    })
}

pub(super) fn read_request(id: Uuid, request: serde_json::Value) -> Result<ExportRequest> {
    serde_json::from_value(request)
        .map_err(|error| LedgerError::Unreadable { id, problem: format!("request: {error}") })
}

/// The exports of these rows, without those that this version cannot read.
pub(super) fn read_all(rows: &[PgRow]) -> Result<Vec<Export>> {
    let mut exports = Vec::with_capacity(rows.len());
    for row in rows {
        match read_export(row) {
            Err(error @ LedgerError::Unreadable { .. }) => {
                tracing::debug!(error = chain(&error), "an export is left out");
            }
            export => exports.push(export?),
        }
    }
    Ok(exports)
}

fn waiting(row: &PgRow) -> Result<Option<Waiting>> {
    let Some(before) = row.try_get("before")? else { return Ok(None) };
    let at_running_limit: Option<bool> = row.try_get("at_running_limit")?;
    let reason = match (at_running_limit, row.try_get("needs_place")?) {
        (Some(true), _) => WaitReason::TenantLimit,
        (_, true) => WaitReason::Places,
        (_, false) => WaitReason::Workers,
    };
    Ok(Some(Waiting { reason, before }))
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

    /// Those of the exports that exist, in no order. One that this version cannot read is left out, so that it does not hide the
    /// others.
    pub async fn find_all(&self, ids: &[Uuid]) -> Result<Vec<Export>> {
        let mut query = QueryBuilder::<sqlx::Postgres>::new(COLUMNS);
        query.push(" AND e.id = ANY(").push_bind(ids).push(")");
        read_all(&query.build().fetch_all(&self.pool).await?)
    }

    /// The newest active exports.
    pub async fn active(&self, limit: i64) -> Result<Vec<Uuid>> {
        let query = sqlx::query_scalar(
            "SELECT id FROM exports WHERE state IN ('pending', 'planning', 'running', 'finishing')
             ORDER BY id DESC LIMIT $1",
        );
        Ok(query.bind(limit).fetch_all(&self.pool).await?)
    }

    /// The state alone; `None` for an unknown export.
    pub async fn status(&self, id: Uuid) -> Result<Option<Status>> {
        let query = sqlx::query_scalar("SELECT state FROM exports WHERE id = $1");
        let state: Option<String> = query.bind(id).fetch_optional(&self.pool).await?;
        state.map(|state| status(id, &state)).transpose()
    }

    /// The request that the export was accepted with; of one that was deleted, without the values of its filters. `None` for an
    /// unknown export.
    pub async fn request(&self, id: Uuid) -> Result<Option<ExportRequest>> {
        let query = sqlx::query_scalar("SELECT request FROM exports WHERE id = $1");
        let Some(request) = query.bind(id).fetch_optional(&self.pool).await? else { return Ok(None) };
        read_request(id, request).map(Some)
    }

    /// How the file of an export is to be handed out if it is compressed; `None` for an unknown export.
    pub async fn file_encoding(&self, id: Uuid) -> Result<Option<FileEncoding>> {
        let query = sqlx::query_scalar("SELECT request #> '{options,encoding}' FROM exports WHERE id = $1");
        let Some(encoding): Option<Option<serde_json::Value>> = query.bind(id).fetch_optional(&self.pool).await? else {
            return Ok(None);
        };
        let encoding = encoding.map(serde_json::from_value).transpose();
        let encoding = encoding
            .map_err(|error| LedgerError::Unreadable { id, problem: format!("request, options.encoding: {error}") })?;
        Ok(Some(encoding.unwrap_or_default()))
    }

    /// Those of the exports that have ended.
    pub async fn ended(&self, ids: &[Uuid]) -> Result<Vec<Uuid>> {
        let query = sqlx::query_scalar(
            "SELECT id FROM exports WHERE id = ANY($1) AND state IN ('completed', 'expired', 'failed', 'cancelled')",
        );
        Ok(query.bind(ids).fetch_all(&self.pool).await?)
    }

    /// The manifest that the worker stored; `None` for an export that is unknown or not completed.
    pub async fn manifest(&self, id: Uuid) -> Result<Option<Manifest>> {
        let manifest = sqlx::query_scalar("SELECT manifest FROM exports WHERE id = $1 AND manifest IS NOT NULL")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        let Some(manifest) = manifest else { return Ok(None) };
        serde_json::from_value(manifest)
            .map(Some)
            .map_err(|error| LedgerError::Unreadable { id, problem: format!("manifest: {error}") })
    }
}
