//! Claiming work: what there is to do of an export, and the right to do it. Every statement that changes a claim checks
//! its fence, so what a worker believes of its lease never matters. How work ends is in the files beside this one.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::outcome::{end, release};
use crate::database::{Ledger, LedgerError, Result};
use crate::outbox;
use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::request::ExportRequest;
use polyglot_core::status::Status;
use polyglot_runtime::telemetry::TraceContext;
use polyglot_runtime::telemetry::WORK;

/// The number of the shard that is no piece of the export: its claim is the right to plan it, to read all of it as one
/// stream, or to finish it.
const HEAD: i32 = 0;

/// The right to do a piece of work, until the lease runs out or somebody else's fence is higher.
#[derive(Debug, Clone)]
pub struct Claim {
    pub export_id: Uuid,
    /// Counted from 1; 0 for what is not a shard's.
    pub shard: i32,
    pub fence: i64,
    /// Part of the object key: two attempts never write the same object.
    pub attempt: i32,
    pub request: ExportRequest,
    /// The request that asked for the export.
    pub origin: TraceContext,
    pub deadline: Option<DateTime<Utc>>,
    /// When the attempt's snapshot is given up.
    pub snapshot_until: Option<DateTime<Utc>>,
    /// Failures in a row when the claim was made.
    pub(super) failures: i32,
    pub work: Work,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Work {
    /// Take a snapshot and plan; what cannot be cut is read as one stream at once. `coarser`: how often shards came out too
    /// small before.
    Start { coarser: u8 },
    /// Read one range and store it.
    Shard(ShardWork),
    /// Every shard is committed: put the file together and make it visible.
    Finish(Cut),
}

/// What every shard of an attempt shares.
#[derive(Debug, Clone)]
pub struct Cut {
    pub shards: i32,
    /// As the planner stored it.
    pub plan: serde_json::Value,
    pub object_key: String,
    /// `None` where each shard is an object of its own.
    pub upload_id: Option<String>,
}

#[derive(Debug, Clone)]
pub struct ShardWork {
    pub cut: Cut,
    /// As the planner stored them.
    pub bounds: serde_json::Value,
}

/// What came of an attempt to claim.
#[derive(Debug)]
pub enum Claimed {
    Work(Box<Claim>),
    /// The export is unknown, has ended, or all its work is held by live workers: the message can go.
    Nothing,
}

/// What a renewal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    Held,
    /// Still held, and a client wants it stopped.
    CancelRequested,
}

/// On which terms work is given out.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub lease: Duration,
    /// From the export's first claim to its end.
    pub timeout: Option<Duration>,
    /// From an attempt's beginning to the end of its snapshot.
    pub snapshot_age: Option<Duration>,
    pub retry: RetryPolicy,
    /// Why a request is not for this version to work on, if it is not.
    pub check_request: fn(&ExportRequest) -> std::result::Result<(), String>,
}

/// How many attempts may fail, and how long the first pause after one is.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    pub max_attempts: i32,
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl RetryPolicy {
    #[must_use]
    pub fn new(max_attempts: i32) -> Self {
        Self { max_attempts, first_pause: Duration::from_secs(1), longest_pause: Duration::from_mins(1) }
    }

    /// Doubles with each failure, plus up to half as much again so that many exports do not come back at once.
    pub(super) fn pause(self, failures: i32, id: Uuid) -> Duration {
        let doublings = u32::try_from(failures.clamp(1, 16) - 1).unwrap_or(0);
        let base = (self.first_pause * 2_u32.pow(doublings)).min(self.longest_pause);
        // The random bits of the id are jitter enough, and make the pause repeatable.
        base + base * u32::from(id.as_bytes()[15]) / 512
    }
}

pub(super) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// The owner of a lease whose worker was lost, and counted as a failure. It is held until the lease ends all the same.
const COUNTED: &str = "lost";

/// A piece of work that nobody holds, or whose holder was lost.
struct Free {
    number: i32,
    /// A worker was lost that has not been counted yet.
    abandoned: bool,
    /// There may be another piece for somebody else at once.
    more: bool,
    /// Of a shard.
    bounds: Option<serde_json::Value>,
}

impl Ledger {
    /// Takes the next piece of work that an export has, if there is one. `terms.timeout` starts the export's deadline at
    /// its first claim.
    ///
    /// While there may be another shard to do at once, a message for it goes to the end of the queue: an export has one
    /// message there, however many workers it has, so that exports take turns.
    pub async fn claim(&self, export_id: Uuid, owner: &str, terms: &Terms) -> Result<Claimed> {
        let mut transaction = self.pool.begin().await?;
        let Some(export) = sqlx::query(
            "SELECT state, request, cancel_requested, failures, attempt, plan, shards, committed_to, parallelism, coarser,
                 deadline_at, snapshot_until, request_id, trace_parent, trace_state,
                 CASE WHEN state = 'pending' THEN ready_at > now() ELSE coalesce(paused_until > now(), false) END AS paused,
                 coalesce(deadline_at < now(), false) AS overdue,
                 state IN ('planning', 'running') AND coalesce(snapshot_until < now(), false) AS too_old,
                 created_at < now() - interval '1 hour' AS waits_long
             FROM exports WHERE id = $1 FOR UPDATE",
        )
        .bind(export_id)
        .fetch_optional(&mut *transaction)
        .await?
        else {
            return Ok(Claimed::Nothing);
        };
        let state: String = export.try_get("state")?;
        // A message that comes early, or twice, does not shorten the pause after a failure.
        if !Status::from_name(&state).is_some_and(Status::is_active) || export.try_get("paused")? {
            return Ok(Claimed::Nothing);
        }
        let plan: Option<serde_json::Value> = export.try_get("plan")?;
        let is_cut = plan.is_some() && state != "pending";
        let free = if is_cut && state != "finishing" {
            let parallelism: Option<i32> = export.try_get("parallelism")?;
            let done: i32 = export.try_get("committed_to")?;
            free_shard(&mut transaction, export_id, parallelism.unwrap_or(1), done).await?
        } else {
            free_head(&mut transaction, export_id).await?
        };
        let Some(free) = free else {
            look_again_later(&mut transaction, export_id).await?;
            transaction.commit().await?;
            return Ok(Claimed::Nothing);
        };
        let failures = export.try_get::<i32, _>("failures")? + i32::from(free.abandoned);
        if let Some((status, failure)) = over(&export, failures, terms.retry)? {
            end(&mut transaction, export_id, status, failure.as_ref()).await?;
            self.commit_change(transaction, export_id).await?;
            if status == Status::Failed {
                metrics::counter!(WORK, "kind" => "claim", "outcome" => "failed").increment(1);
            }
            return Ok(Claimed::Nothing);
        }
        let request = serde_json::from_value(export.try_get("request")?).map_err(|error| error.to_string());
        let request: ExportRequest = match request.and_then(|it| (terms.check_request)(&it).map(|()| it)) {
            Ok(request) => request,
            Err(problem) => {
                let detail = format!("request: {problem}");
                unreadable(&mut transaction, export_id, export.try_get("waits_long")?, &detail).await?;
                self.commit_change(transaction, export_id).await?;
                return Err(LedgerError::Unreadable { id: export_id, problem: detail });
            }
        };
        let fence: i64 = sqlx::query(
            "UPDATE shards SET state = 'leased', lease_owner = $3, leased_until = now() + make_interval(secs => $4),
                 fence = fence + 1
             WHERE export_id = $1 AND number = $2 RETURNING fence",
        )
        .bind(export_id)
        .bind(free.number)
        .bind(owner)
        .bind(seconds(terms.lease))
        .fetch_one(&mut *transaction)
        .await?
        .try_get("fence")?;
        let mut claim = Claim {
            export_id,
            shard: free.number,
            fence,
            attempt: export.try_get("attempt")?,
            request,
            origin: TraceContext {
                request_id: export.try_get("request_id")?,
                trace_parent: export.try_get("trace_parent")?,
                trace_state: export.try_get("trace_state")?,
            },
            deadline: export.try_get("deadline_at")?,
            snapshot_until: export.try_get("snapshot_until")?,
            failures,
            work: Work::Start { coarser: u8::try_from(export.try_get::<i16, _>("coarser")?).unwrap_or(u8::MAX) },
        };
        match plan.filter(|_| is_cut) {
            None => start(&mut transaction, &mut claim, terms).await?,
            Some(plan) => {
                let (object_key, upload_id) = upload_of(&mut transaction, &claim).await?;
                let cut = Cut { shards: export.try_get("shards")?, plan, object_key, upload_id };
                claim.work = match free.bounds {
                    Some(bounds) => Work::Shard(ShardWork { cut, bounds }),
                    None => Work::Finish(cut),
                };
                go_on(&mut transaction, &claim, terms).await?;
                if free.more {
                    outbox::announce(&mut transaction, export_id).await?;
                }
            }
        }
        self.commit_change(transaction, export_id).await?;
        Ok(Claimed::Work(Box::new(claim)))
    }

    /// Exports that wait for a worker or have lost theirs, those that wait longest first.
    pub async fn ready(&self, limit: i64) -> Result<Vec<Uuid>> {
        let rows = sqlx::query(
            "SELECT id FROM exports
             WHERE state IN ('pending', 'planning', 'running', 'finishing') AND ready_at <= now()
             ORDER BY ready_at LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
    }

    /// Says that the work goes on and, for one that reads a whole export, how many rows and bytes there are.
    pub async fn renew(&self, claim: &Claim, lease: Duration, rows: i64, bytes: i64) -> Result<Renewal> {
        if claim.shard != HEAD {
            return self.renew_shard(claim, lease).await;
        }
        let mut transaction = self.pool.begin().await?;
        let renewal = hold(&mut transaction, claim).await?;
        sqlx::query(
            "UPDATE shards SET leased_until = now() + make_interval(secs => $3) WHERE export_id = $1 AND number = $2",
        )
        .bind(claim.export_id)
        .bind(claim.shard)
        .bind(seconds(lease))
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "UPDATE exports SET rows = CASE WHEN $5 THEN $2 ELSE rows END, bytes = CASE WHEN $5 THEN $3 ELSE bytes END,
                 token_due_at = now() + make_interval(secs => $4), ready_at = now() + make_interval(secs => $4)
             WHERE id = $1",
        )
        .bind(claim.export_id)
        .bind(rows)
        .bind(bytes)
        .bind(seconds(lease))
        .bind(matches!(claim.work, Work::Start { .. }))
        .execute(&mut *transaction)
        .await?;
        self.commit_change(transaction, claim.export_id).await?;
        Ok(renewal)
    }

    /// Without a lock on the export, which many workers would wait for.
    async fn renew_shard(&self, claim: &Claim, lease: Duration) -> Result<Renewal> {
        let row = sqlx::query(
            "UPDATE shards s SET leased_until = now() + make_interval(secs => $5)
             FROM exports e
             WHERE s.export_id = $1 AND s.number = $2 AND s.fence = $3 AND s.state = 'leased'
               AND e.id = s.export_id AND e.attempt = $4 AND e.state = 'running'
             RETURNING e.cancel_requested",
        )
        .bind(claim.export_id)
        .bind(claim.shard)
        .bind(claim.fence)
        .bind(claim.attempt)
        .bind(seconds(lease))
        .fetch_optional(&self.pool)
        .await?
        .ok_or(LedgerError::LeaseLost)?;
        renewal(&row)
    }
}

/// The next shard that nobody works on, behind number `done` up to which every one is committed, unless as many are worked on
/// as may be. The caller holds the lock on the export's row, so nobody else claims one.
async fn free_shard(connection: &mut PgConnection, id: Uuid, parallelism: i32, done: i32) -> Result<Option<Free>> {
    let at_work: i64 = sqlx::query(
        "SELECT count(*) AS n FROM shards WHERE export_id = $1 AND number > $2 AND state = 'leased' AND leased_until >= now()",
    )
    .bind(id)
    .bind(done)
    .fetch_one(&mut *connection)
    .await?
    .try_get("n")?;
    if at_work >= i64::from(parallelism) {
        return Ok(None);
    }
    let more = at_work + 1 < i64::from(parallelism);
    let abandoned = "SELECT number, bounds, lease_owner FROM shards
        WHERE export_id = $1 AND number > $2 AND state = 'leased' AND leased_until < now()
        ORDER BY number LIMIT 1 FOR UPDATE";
    let next = "SELECT number, bounds, lease_owner FROM shards
        WHERE export_id = $1 AND number > $2 AND state = 'free' ORDER BY number LIMIT 1 FOR UPDATE";
    for statement in [abandoned, next] {
        if let Some(row) = sqlx::query(statement).bind(id).bind(done).fetch_optional(&mut *connection).await? {
            let lost: Option<String> = row.try_get("lease_owner")?;
            let abandoned = lost.as_deref().is_some_and(|owner| owner != COUNTED);
            if abandoned {
                count_once(connection, id, lost.as_deref()).await?;
            }
            let (number, bounds) = (row.try_get("number")?, Some(row.try_get("bounds")?));
            return Ok(Some(Free { number, abandoned, more, bounds }));
        }
    }
    Ok(None)
}

/// A worker that is lost with all its slots is one failure: with a few more slots than an export has attempts, its end would
/// be the export's.
async fn count_once(connection: &mut PgConnection, id: Uuid, lost: Option<&str>) -> Result<()> {
    sqlx::query("UPDATE shards SET lease_owner = $3 WHERE export_id = $1 AND state = 'leased' AND lease_owner = $2")
        .bind(id)
        .bind(lost)
        .bind(COUNTED)
        .execute(connection)
        .await?;
    Ok(())
}

async fn free_head(connection: &mut PgConnection, id: Uuid) -> Result<Option<Free>> {
    sqlx::query("INSERT INTO shards (export_id, number) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(id)
        .bind(HEAD)
        .execute(&mut *connection)
        .await?;
    let head = sqlx::query(
        "SELECT state = 'leased' AS leased, coalesce(leased_until < now(), false) AS abandoned
         FROM shards WHERE export_id = $1 AND number = $2 FOR UPDATE",
    )
    .bind(id)
    .bind(HEAD)
    .fetch_one(connection)
    .await?;
    let (leased, abandoned): (bool, bool) = (head.try_get("leased")?, head.try_get("abandoned")?);
    Ok((!leased || abandoned).then_some(Free { number: HEAD, abandoned, more: false, bounds: None }))
}

/// All there is to do is held: nothing new before the first lease ends, or one of the holders says so.
async fn look_again_later(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query(
        "UPDATE exports SET ready_at = coalesce(
             (SELECT min(leased_until) FROM shards WHERE export_id = $1 AND state = 'leased'), now() + interval '5 seconds')
         WHERE id = $1",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

/// How an export ends that nobody is to work on any more.
fn over(export: &PgRow, failures: i32, retry: RetryPolicy) -> Result<Option<(Status, Option<Failure>)>> {
    Ok(if export.try_get("cancel_requested")? {
        Some((Status::Cancelled, None))
    } else if export.try_get("overdue")? {
        Some((Status::Failed, Some(deadline_failure())))
    } else if export.try_get("too_old")? {
        Some((Status::Failed, Some(snapshot_age_failure())))
    } else if failures >= retry.max_attempts {
        let message = "The export was started several times and its worker was lost each time.";
        let detail = format!("{failures} attempts failed, the last one by a lease that ran out");
        Some((Status::Failed, Some(Failure::new(FailureKind::WorkerLost, message, detail))))
    } else {
        None
    })
}

/// A new attempt, with nothing of the one before.
async fn start(connection: &mut PgConnection, claim: &mut Claim, terms: &Terms) -> Result<()> {
    sqlx::query("DELETE FROM shards WHERE export_id = $1 AND number > 0")
        .bind(claim.export_id)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM keepers WHERE export_id = $1").bind(claim.export_id).execute(&mut *connection).await?;
    let row = sqlx::query(
        "UPDATE exports SET state = 'planning', attempt = attempt + 1, failures = $2, rows = 0, bytes = 0,
             shards = 0, shards_done = 0, committed_to = 0, plan = NULL, uncut = NULL, paused_until = NULL, peak_memory_bytes = NULL,
             started_at = coalesce(started_at, now()),
             deadline_at = coalesce(deadline_at, now() + make_interval(secs => $3)),
             snapshot_until = now() + make_interval(secs => $5),
             token_due_at = now() + make_interval(secs => $4), ready_at = now() + make_interval(secs => $4)
         WHERE id = $1 RETURNING attempt, deadline_at, snapshot_until",
    )
    .bind(claim.export_id)
    .bind(claim.failures)
    .bind(terms.timeout.map(seconds))
    .bind(seconds(terms.lease))
    .bind(terms.snapshot_age.map(seconds))
    .fetch_one(connection)
    .await?;
    claim.attempt = row.try_get("attempt")?;
    claim.deadline = row.try_get("deadline_at")?;
    claim.snapshot_until = row.try_get("snapshot_until")?;
    Ok(())
}

/// Another piece of an attempt that goes on. Of shards there may be more for others at once; a look that finds none is
/// what moves `ready_at` on. The row is changed once a second at most: where the ledger is in the database of the source,
/// the export's own snapshot keeps every version of it, and each look at the row goes over all of them.
async fn go_on(connection: &mut PgConnection, claim: &Claim, terms: &Terms) -> Result<()> {
    let pause = if claim.shard == HEAD { terms.lease } else { Duration::ZERO };
    sqlx::query(
        "UPDATE exports SET failures = $2, token_due_at = now() + make_interval(secs => $3),
             ready_at = now() + make_interval(secs => $4),
             committed_to = least(shards,
                 (SELECT number - 1 FROM shards s WHERE s.export_id = exports.id AND number > committed_to
                      AND s.state = 'leased' ORDER BY number LIMIT 1),
                 (SELECT number - 1 FROM shards s WHERE s.export_id = exports.id AND number > committed_to
                      AND s.state = 'free' ORDER BY number LIMIT 1))
         WHERE id = $1 AND ($5 OR failures <> $2 OR ready_at < now() - interval '1 second')",
    )
    .bind(claim.export_id)
    .bind(claim.failures)
    .bind(seconds(terms.lease))
    .bind(seconds(pause))
    .bind(claim.shard == HEAD)
    .execute(connection)
    .await?;
    Ok(())
}

async fn upload_of(connection: &mut PgConnection, claim: &Claim) -> Result<(String, Option<String>)> {
    let row = sqlx::query("SELECT object_key, upload_id FROM uploads WHERE export_id = $1 AND attempt = $2")
        .bind(claim.export_id)
        .bind(claim.attempt)
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| LedgerError::Unreadable { id: claim.export_id, problem: "an attempt without upload".into() })?;
    Ok((row.try_get("object_key")?, row.try_get("upload_id")?))
}

/// The failure of an export whose time is up.
#[must_use]
pub fn deadline_failure() -> Failure {
    Failure::new(
        FailureKind::DeadlineExceeded,
        "The export took longer than it may (EXPORT_TIMEOUT_MS).",
        "deadline_at went by",
    )
}

/// The failure of an export that needs its snapshot for too long.
#[must_use]
pub fn snapshot_age_failure() -> Failure {
    Failure::new(
        FailureKind::SnapshotTooOld,
        "The export needed its snapshot of the source for longer than it may (SNAPSHOT_MAX_AGE_SECONDS).",
        "snapshot_until went by",
    )
}

fn renewal(export: &PgRow) -> Result<Renewal> {
    Ok(if export.try_get("cancel_requested")? { Renewal::CancelRequested } else { Renewal::Held })
}

/// Locks the export and the shard (in this order, as `claim` does) if the claim still holds.
pub(super) async fn hold(connection: &mut PgConnection, claim: &Claim) -> Result<Renewal> {
    let export = sqlx::query(
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
    renewal(&export)
}

/// The request is not for this version to read. While versions are being exchanged another worker may be of the right
/// one, so it is given time rather than attempts. The caller holds the lock on the export's row.
async fn unreadable(connection: &mut PgConnection, id: Uuid, waits_long: bool, detail: &str) -> Result<()> {
    if waits_long {
        let message = "The export was accepted by another version of the service, and no worker could read it.";
        let failure = Failure::new(FailureKind::RequestUnreadable, message, detail);
        return end(connection, id, Status::Failed, Some(&failure)).await;
    }
    release(connection, id).await?;
    sqlx::query(
        "UPDATE exports SET state = 'pending', ready_at = now() + interval '30 seconds',
             token_due_at = now() + interval '30 seconds'
         WHERE id = $1",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_stay_bounded() {
        let policy = RetryPolicy::new(5);
        let id = Uuid::nil();
        assert_eq!(policy.pause(1, id), Duration::from_secs(1));
        assert_eq!(policy.pause(3, id), Duration::from_secs(4));
        assert_eq!(policy.pause(i32::MAX, id), Duration::from_mins(1));
        assert!(policy.pause(9, Uuid::max()) < Duration::from_secs(90));
    }
}
