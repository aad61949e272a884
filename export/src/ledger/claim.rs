//! Claiming work and ending it. Every statement that changes a claim checks its fence, so what a worker
//! believes of its lease never matters.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{Ledger, LedgerError, Result, outbox};
use crate::failure::{Disposition, Failure, FailureKind};
use crate::manifest::Manifest;
use crate::request::ExportRequest;
use crate::status::Status;

/// The right to do one shard of one export, until the lease runs out or somebody else's fence is higher.
#[derive(Debug, Clone)]
pub struct Claim {
    pub export_id: Uuid,
    pub shard: i32,
    pub fence: i64,
    /// Part of the object key: two attempts never write the same object.
    pub attempt: i32,
    pub request: ExportRequest,
    pub deadline: Option<DateTime<Utc>>,
}

/// What came of an attempt to claim.
#[derive(Debug)]
pub enum Claimed {
    Work(Box<Claim>),
    /// The export is unknown, has ended, or is held by a live worker: the message can go.
    Nothing,
}

/// What a renewal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    Held,
    /// Still held, and a client wants it stopped.
    CancelRequested,
}

/// A finished file.
#[derive(Debug, Clone)]
pub struct Finished {
    pub object_key: String,
    pub etag: Option<String>,
    pub peak_memory_bytes: Option<i64>,
    pub manifest: Manifest,
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
    fn pause(self, failures: i32, id: Uuid) -> Duration {
        let doublings = u32::try_from(failures.clamp(1, 16) - 1).unwrap_or(0);
        let base = (self.first_pause * 2_u32.pow(doublings)).min(self.longest_pause);
        // The random bits of the id are jitter enough, and make the pause repeatable.
        base + base * u32::from(id.as_bytes()[15]) / 512
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

impl Ledger {
    /// Takes the free (or abandoned) shard of an export. `timeout` starts the export's deadline at its first claim.
    pub async fn claim(
        &self,
        export_id: Uuid,
        owner: &str,
        lease: Duration,
        timeout: Option<Duration>,
        retry: RetryPolicy,
    ) -> Result<Claimed> {
        let mut transaction = self.pool.begin().await?;
        let Some(export) = sqlx::query(
            "SELECT state, request, cancel_requested, failures, ready_at > now() AS paused,
                 coalesce(deadline_at < now(), false) AS overdue,
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
        let status = Status::from_name(&state);
        if !status.is_some_and(Status::is_active) {
            return Ok(Claimed::Nothing);
        }
        // A message that comes early, or twice, does not shorten the pause after a failure.
        if status == Some(Status::Pending) && export.try_get("paused")? {
            return Ok(Claimed::Nothing);
        }
        sqlx::query("INSERT INTO shards (export_id, number) VALUES ($1, 1) ON CONFLICT DO NOTHING")
            .bind(export_id)
            .execute(&mut *transaction)
            .await?;
        let shard = sqlx::query(
            "SELECT state = 'leased' AS leased, coalesce(lease_until < now(), false) AS abandoned
             FROM shards WHERE export_id = $1 AND number = 1 FOR UPDATE",
        )
        .bind(export_id)
        .fetch_one(&mut *transaction)
        .await?;
        let abandoned: bool = shard.try_get("abandoned")?;
        if shard.try_get::<bool, _>("leased")? && !abandoned {
            return Ok(Claimed::Nothing);
        }
        let failures = export.try_get::<i32, _>("failures")? + i32::from(abandoned);
        let ended = if export.try_get("cancel_requested")? {
            Some((Status::Cancelled, None))
        } else if export.try_get("overdue")? {
            Some((Status::Failed, Some(deadline_failure())))
        } else if failures >= retry.max_attempts {
            let message = "The export was started several times and its worker was lost each time.";
            let detail = format!("{failures} attempts failed, the last one by a lease that ran out");
            Some((Status::Failed, Some(Failure::new(FailureKind::WorkerLost, message, detail))))
        } else {
            None
        };
        if let Some((status, failure)) = ended {
            end(&mut transaction, export_id, status, failure.as_ref()).await?;
            transaction.commit().await?;
            return Ok(Claimed::Nothing);
        }
        let request: serde_json::Value = export.try_get("request")?;
        let request: ExportRequest = match serde_json::from_value(request) {
            Ok(request) => request,
            Err(error) => {
                let detail = format!("request: {error}");
                unreadable(&mut transaction, export_id, export.try_get("waits_long")?, &detail).await?;
                transaction.commit().await?;
                return Err(LedgerError::Unreadable { id: export_id, problem: detail });
            }
        };
        let fence: i64 = sqlx::query(
            "UPDATE shards SET state = 'leased', lease_owner = $2, lease_until = now() + make_interval(secs => $3),
                 fence = fence + 1
             WHERE export_id = $1 AND number = 1 RETURNING fence",
        )
        .bind(export_id)
        .bind(owner)
        .bind(seconds(lease))
        .fetch_one(&mut *transaction)
        .await?
        .try_get("fence")?;
        let row = sqlx::query(
            "UPDATE exports SET state = 'planning', attempt = attempt + 1, failures = $2, rows = 0, bytes = 0,
                 started_at = coalesce(started_at, now()),
                 deadline_at = coalesce(deadline_at, now() + make_interval(secs => $3)),
                 token_due_at = now() + make_interval(secs => $4), ready_at = now() + make_interval(secs => $4)
             WHERE id = $1 RETURNING attempt, deadline_at",
        )
        .bind(export_id)
        .bind(failures)
        .bind(timeout.map(seconds))
        .bind(seconds(lease))
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Claimed::Work(Box::new(Claim {
            export_id,
            shard: 1,
            fence,
            attempt: row.try_get("attempt")?,
            request,
            deadline: row.try_get("deadline_at")?,
        })))
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

    /// Says that the work goes on, and how far it is.
    pub async fn renew(&self, claim: &Claim, lease: Duration, rows: i64, bytes: i64) -> Result<Renewal> {
        let mut transaction = self.pool.begin().await?;
        let renewal = hold(&mut transaction, claim).await?;
        sqlx::query(
            "UPDATE shards SET lease_until = now() + make_interval(secs => $3) WHERE export_id = $1 AND number = $2",
        )
        .bind(claim.export_id)
        .bind(claim.shard)
        .bind(seconds(lease))
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "UPDATE exports SET rows = $2, bytes = $3, token_due_at = now() + make_interval(secs => $4),
                 ready_at = now() + make_interval(secs => $4)
             WHERE id = $1",
        )
        .bind(claim.export_id)
        .bind(rows)
        .bind(bytes)
        .bind(seconds(lease))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(renewal)
    }

    /// The plan is made; rows are being read.
    pub async fn running(&self, claim: &Claim, rows_estimate: Option<i64>) -> Result<Renewal> {
        let mut transaction = self.pool.begin().await?;
        let renewal = hold(&mut transaction, claim).await?;
        sqlx::query("UPDATE exports SET state = 'running', rows_estimate = $2 WHERE id = $1")
            .bind(claim.export_id)
            .bind(rows_estimate)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(renewal)
    }

    /// Every row is written; only the switch that makes the object visible is left. Call it right before.
    pub async fn finishing(&self, claim: &Claim) -> Result<Renewal> {
        let mut transaction = self.pool.begin().await?;
        let renewal = hold(&mut transaction, claim).await?;
        sqlx::query("UPDATE exports SET state = 'finishing' WHERE id = $1")
            .bind(claim.export_id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(renewal)
    }

    /// The object is there: the export owns it from now on. `CancelRequested` means that nothing was changed and
    /// the caller still has to delete the object.
    pub async fn complete(&self, claim: &Claim, finished: &Finished, keep: Option<Duration>) -> Result<Renewal> {
        let mut transaction = self.pool.begin().await?;
        if hold(&mut transaction, claim).await? == Renewal::CancelRequested {
            return Ok(Renewal::CancelRequested);
        }
        sqlx::query(
            "UPDATE shards SET state = 'committed', lease_owner = NULL, lease_until = NULL, rows = $3, bytes = $4,
                 raw_bytes = $5, etag = $6
             WHERE export_id = $1 AND number = $2",
        )
        .bind(claim.export_id)
        .bind(claim.shard)
        .bind(finished.manifest.rows)
        .bind(finished.manifest.bytes)
        .bind(finished.manifest.uncompressed_bytes)
        .bind(&finished.etag)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "UPDATE exports SET state = 'completed', rows = $2, bytes = $3, object_key = $4, etag = $5,
                 peak_memory_bytes = $6, finished_at = now(), expires_at = now() + make_interval(secs => $7),
                 manifest = $8, token_due_at = NULL
             WHERE id = $1",
        )
        .bind(claim.export_id)
        .bind(finished.manifest.rows)
        .bind(finished.manifest.bytes)
        .bind(&finished.object_key)
        .bind(&finished.etag)
        .bind(finished.peak_memory_bytes)
        .bind(keep.map(seconds))
        .bind(sqlx::types::Json(&finished.manifest))
        .execute(&mut *transaction)
        .await?;
        super::uploads::published(&mut transaction, claim.export_id, claim.attempt).await?;
        transaction.commit().await?;
        Ok(Renewal::Held)
    }

    /// The attempt failed. What may pass by itself is tried again after a pause, up to the policy's number of
    /// attempts; the answer is whether it will be.
    pub async fn fail(&self, claim: &Claim, failure: &Failure, retry: RetryPolicy) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let cancelled = hold(&mut transaction, claim).await? == Renewal::CancelRequested;
        let again = if cancelled {
            end(&mut transaction, claim.export_id, Status::Cancelled, None).await?;
            false
        } else {
            let failures = sqlx::query("SELECT failures FROM exports WHERE id = $1")
                .bind(claim.export_id)
                .fetch_one(&mut *transaction)
                .await?
                .try_get("failures")?;
            count_failure(&mut transaction, claim.export_id, failures, failure, retry).await?
        };
        transaction.commit().await?;
        Ok(again)
    }

    /// The work was stopped as a client asked, and nothing of it is left.
    pub async fn cancelled(&self, claim: &Claim) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        hold(&mut transaction, claim).await?;
        end(&mut transaction, claim.export_id, Status::Cancelled, None).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Gives unfinished work back for another worker to start at once, without counting a failure.
    pub async fn give_back(&self, claim: &Claim) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        hold(&mut transaction, claim).await?;
        release(&mut transaction, claim.export_id).await?;
        sqlx::query(
            "UPDATE exports SET state = 'pending', token_due_at = now() + interval '10 minutes', ready_at = now()
             WHERE id = $1",
        )
        .bind(claim.export_id)
        .execute(&mut *transaction)
        .await?;
        outbox::announce(&mut transaction, claim.export_id).await?;
        transaction.commit().await?;
        Ok(())
    }
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
    Ok(if export.try_get("cancel_requested")? { Renewal::CancelRequested } else { Renewal::Held })
}

async fn release(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query("UPDATE shards SET state = 'free', lease_owner = NULL, lease_until = NULL WHERE export_id = $1 AND state = 'leased'")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
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

/// An attempt failed, beside `failures` earlier ones: a pause, if another attempt may help and there is one left, and
/// otherwise the end. The answer is whether there will be one. The caller holds the lock on the export's row.
async fn count_failure(
    connection: &mut PgConnection,
    id: Uuid,
    failures: i32,
    failure: &Failure,
    retry: RetryPolicy,
) -> Result<bool> {
    let failures = failures + 1;
    let again = match failure.kind.disposition() {
        Disposition::Retry => failures < retry.max_attempts,
        Disposition::Fail => false,
    };
    if again {
        release(connection, id).await?;
        sqlx::query(
            "UPDATE exports SET state = 'pending', failures = $2, error_code = $3, error_detail = $4,
                 token_due_at = now() + make_interval(secs => $5), ready_at = now() + make_interval(secs => $5)
             WHERE id = $1",
        )
        .bind(id)
        .bind(failures)
        .bind(failure.kind.code())
        .bind(&failure.detail)
        .bind(seconds(retry.pause(failures, id)))
        .execute(connection)
        .await?;
    } else {
        sqlx::query("UPDATE exports SET failures = $2 WHERE id = $1")
            .bind(id)
            .bind(failures)
            .execute(&mut *connection)
            .await?;
        end(connection, id, Status::Failed, Some(failure)).await?;
    }
    Ok(again)
}

/// Ends an export without a file. The caller holds the lock on its row.
pub(super) async fn end(
    connection: &mut PgConnection,
    id: Uuid,
    status: Status,
    failure: Option<&Failure>,
) -> Result<()> {
    release(connection, id).await?;
    sqlx::query(
        "UPDATE exports SET state = $2, error_code = $3, error = $4, error_detail = $5, finished_at = now(),
             token_due_at = NULL
         WHERE id = $1",
    )
    .bind(id)
    .bind(status.name())
    .bind(failure.map(|failure| failure.kind.code()))
    .bind(failure.map(|failure| failure.message.as_str()))
    .bind(failure.map(|failure| failure.detail.as_str()))
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
