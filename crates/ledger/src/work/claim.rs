//! Claiming work. Every later statement for a claim checks its fence, so a worker that wrongly believes in its lease changes
//! nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::end::{delete_holders, end_export, start_over};
use super::lease::{COORDINATOR, Claim, JobKind, ShardWork, ShardedAttempt, seconds};
use super::next_work::{free_coordinator, free_shard, postpone};
use super::places::has_free_place;
use super::policy::{RetryPolicy, Terms, deadline_failure, snapshot_age_failure};
use crate::database::{Ledger, LedgerError, Result};
use crate::outbox;
use crate::tenant_limits::may_begin;
use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::request::ExportRequest;
use polyglot_core::status::Status;
use polyglot_runtime::telemetry::{TraceContext, WORK};

/// The result of a claim.
#[derive(Debug)]
pub enum Claimed {
    Work(Box<Claim>),
    /// There is nothing to claim now, so the message can be acknowledged: the export is unknown, has ended (perhaps by this
    /// call), is paused, is at its parallelism limit or waits for its tenant's, or has all its work leased to live workers.
    Nothing,
}

/// What to do about an export whose row another transaction has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locking {
    Wait,
    /// Behave as if there were nothing to claim.
    SkipLocked,
}

/// The columns of an export that decide what its next claim is for.
#[derive(FromRow)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent columns of one row")]
struct ClaimedExport {
    tenant: String,
    state: String,
    request: Value,
    cancel_requested: bool,
    failures: i32,
    attempt: i32,
    plan: Option<Value>,
    shards: i32,
    committed_to: i32,
    parallelism: Option<i32>,
    /// Exports of its tenant that may be begun at a time; `None` also of one that has begun.
    running_limit: Option<i32>,
    needs_place: bool,
    /// It has a place already: this claim takes over an attempt that was lost.
    has_place: bool,
    #[sqlx(rename = "coarser")]
    shard_size_step: i16,
    deadline_at: Option<DateTime<Utc>>,
    snapshot_until: Option<DateTime<Utc>>,
    request_id: Option<String>,
    trace_parent: Option<String>,
    trace_state: Option<String>,
    /// A failure's pause, or the wait of a pending export, is not over.
    paused: bool,
    /// The deadline has passed.
    overdue: bool,
    /// The snapshot's time limit has passed.
    too_old: bool,
    /// Accepted more than an hour ago.
    waits_long: bool,
}

/// The statement that reads an export for a claim, without its lock.
macro_rules! claimed_export {
    () => {
        "SELECT tenant, state, request, cancel_requested, failures, attempt, plan, shards, committed_to, parallelism, needs_place,
             has_place AND state IN ('planning', 'running') AS has_place, coarser, deadline_at, snapshot_until, request_id, trace_parent, trace_state,
             CASE WHEN state = 'pending' THEN ready_at > ledger_now() ELSE coalesce(paused_until > ledger_now(), false) END
                 AS paused,
             coalesce(deadline_at < ledger_now(), false) AS overdue,
             state IN ('planning', 'running') AND coalesce(snapshot_until < ledger_now(), false) AS too_old,
             created_at < ledger_now() - interval '1 hour' AS waits_long,
             CASE WHEN state = 'pending' THEN coalesce(
                 (SELECT l.running FROM running_limits l WHERE l.tenant = exports.tenant),
                 (SELECT l.running FROM running_limits l WHERE l.tenant = '*')) END AS running_limit
         FROM exports WHERE id = $1"
    };
}

impl Ledger {
    /// Takes the next piece of work that this export has, if there is one, whosever turn it is. `terms.timeout` starts the
    /// export's deadline at its first claim.
    ///
    /// Claiming a shard enqueues a message, so that another worker looks for work, unless that reaches the parallelism limit;
    /// then the next commit does.
    pub async fn claim(&self, export_id: Uuid, owner: &str, terms: &Terms) -> Result<Claimed> {
        self.claim_export(export_id, owner, terms, Locking::Wait).await
    }

    pub(super) async fn claim_export(
        &self,
        export_id: Uuid,
        owner: &str,
        terms: &Terms,
        locking: Locking,
    ) -> Result<Claimed> {
        let mut transaction = self.pool.begin().await?;
        let statement = match locking {
            Locking::Wait => concat!(claimed_export!(), " FOR UPDATE"),
            Locking::SkipLocked => concat!(claimed_export!(), " FOR UPDATE SKIP LOCKED"),
        };
        let export =
            sqlx::query_as::<_, ClaimedExport>(statement).bind(export_id).fetch_optional(&mut *transaction).await?;
        let Some(export) = export else { return Ok(Claimed::Nothing) };
        // A message that comes early, or twice, does not shorten the pause after a failure.
        if !Status::from_name(&export.state).is_some_and(Status::is_active) || export.paused {
            return Ok(Claimed::Nothing);
        }
        let is_sharded = export.plan.is_some() && export.state != "pending";
        let next = if is_sharded && export.state != "finishing" {
            free_shard(&mut transaction, export_id, export.parallelism.unwrap_or(1), export.committed_to).await?
        } else {
            free_coordinator(&mut transaction, export_id).await?
        };
        let Some(next) = next else {
            postpone(&mut transaction, export_id).await?;
            transaction.commit().await?;
            return Ok(Claimed::Nothing);
        };
        let failures = export.failures + i32::from(next.abandoned);
        if let Some((status, failure)) = terminal_outcome(&export, failures, terms.retry) {
            end_export(&mut transaction, export_id, status, failure.as_ref()).await?;
            self.commit_change(transaction, export_id).await?;
            if status == Status::Failed {
                metrics::counter!(WORK, "kind" => "claim", "outcome" => "failed").increment(1);
            }
            return Ok(Claimed::Nothing);
        }
        let request = serde_json::from_value(export.request).map_err(|error| error.to_string());
        let request: ExportRequest = match request.and_then(|it| (terms.check_request)(&it).map(|()| it)) {
            Ok(request) => request,
            Err(problem) => {
                let detail = format!("request: {problem}");
                // Workers of the version that planned the shards read them, and lose nothing.
                if !is_sharded {
                    defer_unreadable(&mut transaction, export_id, export.waits_long, &detail).await?;
                    self.commit_change(transaction, export_id).await?;
                }
                return Err(LedgerError::Unreadable { id: export_id, problem: detail });
            }
        };
        // Checked again, because another export of the tenant may have begun since this one was found.
        if let Some(limit) = export.running_limit
            && !may_begin(&mut transaction, &export.tenant, limit).await?
        {
            return Ok(Claimed::Nothing);
        }
        // Checked again, because another export may have taken the place since this one was found.
        let lacks_place = export.needs_place && !export.has_place && !is_sharded;
        if lacks_place && !has_free_place(&mut transaction, terms.max_open_snapshots).await? {
            return Ok(Claimed::Nothing);
        }
        let fence: i64 = sqlx::query_scalar(
            "UPDATE shards SET state = 'leased', lease_owner = $3, leased_until = ledger_now() + make_interval(secs => $4),
                 fence = fence + 1
             WHERE export_id = $1 AND number = $2 RETURNING fence",
        )
        .bind(export_id)
        .bind(next.number)
        .bind(owner)
        .bind(seconds(terms.lease))
        .fetch_one(&mut *transaction)
        .await?;
        let mut claim = Claim {
            export_id,
            shard: next.number,
            fence,
            tenant: export.tenant,
            attempt: export.attempt,
            // One that needs a place has it by now.
            has_place: export.needs_place,
            request,
            origin: TraceContext {
                request_id: export.request_id,
                trace_parent: export.trace_parent,
                trace_state: export.trace_state,
            },
            deadline: export.deadline_at,
            snapshot_until: export.snapshot_until,
            failures,
            work: JobKind::Start { shard_size_step: u8::try_from(export.shard_size_step).unwrap_or(u8::MAX) },
        };
        match export.plan.filter(|_| is_sharded) {
            None => start_attempt(&mut transaction, &mut claim, terms).await?,
            Some(plan) => {
                let (object_key, upload_id) = upload_of(&mut transaction, &claim).await?;
                let attempt = ShardedAttempt { shards: export.shards, plan, object_key, upload_id };
                claim.work = match next.bounds {
                    Some(bounds) => JobKind::Shard(ShardWork { attempt, bounds }),
                    None => JobKind::Finish(attempt),
                };
                continue_attempt(&mut transaction, &claim, terms).await?;
                if next.has_more {
                    outbox::announce(&mut transaction, export_id).await?;
                }
            }
        }
        self.commit_change(transaction, export_id).await?;
        Ok(Claimed::Work(Box::new(claim)))
    }
}

/// Begins an attempt. Nothing of the one before is kept.
async fn start_attempt(connection: &mut PgConnection, claim: &mut Claim, terms: &Terms) -> Result<()> {
    sqlx::query("DELETE FROM shards WHERE export_id = $1 AND number > 0")
        .bind(claim.export_id)
        .execute(&mut *connection)
        .await?;
    delete_holders(connection, claim.export_id).await?;
    (claim.attempt, claim.deadline, claim.snapshot_until) = sqlx::query_as(
        "UPDATE exports SET state = 'planning', attempt = attempt + 1, failures = $2, rows = 0, bytes = 0,
             shards = 0, shards_done = 0, committed_to = 0, plan = NULL, uncut = NULL, paused_until = NULL, peak_memory_bytes = NULL,
             started_at = coalesce(started_at, ledger_now()), has_place = needs_place, deadline_left = NULL,
             deadline_at = coalesce(deadline_at, ledger_now() + coalesce(deadline_left, make_interval(secs => $3))),
             snapshot_until = ledger_now() + make_interval(secs => $5),
             token_due_at = ledger_now() + make_interval(secs => $4), ready_at = ledger_now() + make_interval(secs => $4)
         WHERE id = $1 RETURNING attempt, deadline_at, snapshot_until",
    )
    .bind(claim.export_id)
    .bind(claim.failures)
    .bind(terms.timeout.map(seconds))
    .bind(seconds(terms.lease))
    .bind(terms.snapshot_age.map(seconds))
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Updates the export for one more claim of a running attempt. After the claim of a shard others may claim more at once;
/// [`postpone`] moves `ready_at` when a claim finds nothing. Claims of shards that leave `failures` as it is change the row once
/// a second at most: where the ledger is in the source's database, the export's own snapshot keeps every row version, and each
/// read of the row scans all of them.
async fn continue_attempt(connection: &mut PgConnection, claim: &Claim, terms: &Terms) -> Result<()> {
    let pause = if claim.shard == COORDINATOR { terms.lease } else { Duration::ZERO };
    sqlx::query(
        "UPDATE exports SET failures = $2, token_due_at = ledger_now() + make_interval(secs => $3),
             ready_at = ledger_now() + make_interval(secs => $4),
             committed_to = least(shards,
                 (SELECT number - 1 FROM shards s WHERE s.export_id = exports.id AND number > committed_to
                      AND s.state = 'leased' ORDER BY number LIMIT 1),
                 (SELECT number - 1 FROM shards s WHERE s.export_id = exports.id AND number > committed_to
                      AND s.state = 'free' ORDER BY number LIMIT 1))
         WHERE id = $1 AND ($5 OR failures <> $2 OR ready_at < ledger_now() - interval '1 second')",
    )
    .bind(claim.export_id)
    .bind(claim.failures)
    .bind(seconds(terms.lease))
    .bind(seconds(pause))
    .bind(claim.shard == COORDINATOR)
    .execute(connection)
    .await?;
    Ok(())
}

/// The object key and the upload id of the attempt.
async fn upload_of(connection: &mut PgConnection, claim: &Claim) -> Result<(String, Option<String>)> {
    sqlx::query_as("SELECT object_key, upload_id FROM uploads WHERE export_id = $1 AND attempt = $2")
        .bind(claim.export_id)
        .bind(claim.attempt)
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| LedgerError::Unreadable { id: claim.export_id, problem: "an attempt without upload".into() })
}

/// Postpones an export whose request this version cannot read. During a rolling upgrade another worker may be able to, so the
/// export fails after an hour rather than after a number of attempts. The caller holds the lock on the export's row.
async fn defer_unreadable(connection: &mut PgConnection, id: Uuid, waits_long: bool, detail: &str) -> Result<()> {
    if waits_long {
        let message = "The export was accepted by another version of the service, and no worker could read it.";
        let failure = Failure::new(FailureKind::RequestUnreadable, message, detail);
        return end_export(connection, id, Status::Failed, Some(&failure)).await;
    }
    start_over(connection, id).await?;
    sqlx::query(
        "UPDATE exports SET ready_at = ledger_now() + interval '30 seconds',
             token_due_at = ledger_now() + interval '30 seconds'
         WHERE id = $1",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

/// How the export ends, if nobody is to work on it any more.
fn terminal_outcome(export: &ClaimedExport, failures: i32, retry: RetryPolicy) -> Option<(Status, Option<Failure>)> {
    if export.cancel_requested {
        Some((Status::Cancelled, None))
    } else if export.overdue {
        Some((Status::Failed, Some(deadline_failure())))
    } else if export.too_old {
        Some((Status::Failed, Some(snapshot_age_failure())))
    } else if failures >= retry.max_attempts {
        let message = "The export failed several times in a row without progress; the last time its worker was lost.";
        let detail = format!("{failures} failures in a row, the last one by a lease that expired");
        Some((Status::Failed, Some(Failure::new(FailureKind::WorkerLost, message, detail))))
    } else {
        None
    }
}
