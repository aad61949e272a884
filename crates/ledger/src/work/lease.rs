//! The right to do a piece of work: a claim, what it is for, and the lock that checks its fence. Nothing here begins or ends
//! work.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::database::{LedgerError, Result};
use polyglot_core::request::ExportRequest;
use polyglot_runtime::telemetry::TraceContext;

/// Shard number of the coordinator: its claim is the right to plan the export, to read all of it as one stream, or to finish
/// it. The shards themselves are counted from 1.
pub(super) const COORDINATOR: i32 = 0;

/// The right to do a piece of work. It ends when the lease expires and another worker claims the same work, which raises the
/// fence.
#[derive(Debug, Clone)]
pub struct Claim {
    pub export_id: Uuid,
    /// Number of the shard, counted from 1; 0 for planning, single-stream and finishing work.
    pub shard: i32,
    pub fence: i64,
    /// Whose export it is. The keys of its objects begin with it.
    pub tenant: String,
    /// Part of the object key: two attempts never write the same object.
    pub attempt: i32,
    pub request: ExportRequest,
    /// The request that asked for the export.
    pub origin: TraceContext,
    pub deadline: Option<DateTime<Utc>>,
    /// Time at which the attempt must stop using its snapshot.
    pub snapshot_until: Option<DateTime<Utc>>,
    /// Consecutive failures when the claim was made.
    pub(super) failures: i32,
    /// Whether the export had a place for its snapshot when the claim was made.
    pub has_place: bool,
    pub work: JobKind,
}

/// The kinds of work that a claim can be for.
#[derive(Debug, Clone)]
pub enum JobKind {
    /// Take a snapshot and plan. An export that cannot be divided into shards is read as one stream under the same claim.
    /// `shard_size_step` counts the earlier attempts whose shards were too small.
    Start { shard_size_step: u8 },
    /// Read one range and store it.
    Shard(ShardWork),
    /// Every shard is committed: put the file together and make it visible.
    Finish(ShardedAttempt),
}

/// The data that all shards of an attempt share.
#[derive(Debug, Clone)]
pub struct ShardedAttempt {
    pub shards: i32,
    /// The planner's JSON, which the ledger does not interpret.
    pub plan: serde_json::Value,
    pub object_key: String,
    /// `None` when each shard is an object of its own.
    pub upload_id: Option<String>,
}

/// One shard of an attempt.
#[derive(Debug, Clone)]
pub struct ShardWork {
    pub attempt: ShardedAttempt,
    /// The planner's JSON for the range of rows, which the ledger does not interpret.
    pub bounds: serde_json::Value,
}

/// The state of a claim that is still held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    Held,
    /// A client has asked to cancel the export.
    CancelRequested,
}

pub(super) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// Locks the rows of the export and the shard, in the order that `claim` uses, if the claim is still valid.
///
/// # Errors
/// [`LedgerError::LeaseLost`] when the attempt has ended or the fence is no longer the shard's.
pub(super) async fn lock_claim(connection: &mut PgConnection, claim: &Claim) -> Result<Renewal> {
    let cancel_requested = sqlx::query_scalar(
        "SELECT cancel_requested FROM exports
         WHERE id = $1 AND attempt = $2 AND state IN ('planning', 'running', 'finishing') FOR UPDATE",
    )
    .bind(claim.export_id)
    .bind(claim.attempt)
    .fetch_optional(&mut *connection)
    .await?
    .ok_or(LedgerError::LeaseLost)?;
    sqlx::query(
        "SELECT FROM shards WHERE export_id = $1 AND number = $2 AND fence = $3 AND state = 'leased' FOR UPDATE",
    )
    .bind(claim.export_id)
    .bind(claim.shard)
    .bind(claim.fence)
    .fetch_optional(connection)
    .await?
    .ok_or(LedgerError::LeaseLost)?;
    Ok(Renewal::of(cancel_requested))
}

impl Renewal {
    pub(super) fn of(cancel_requested: bool) -> Self {
        if cancel_requested { Self::CancelRequested } else { Self::Held }
    }
}
