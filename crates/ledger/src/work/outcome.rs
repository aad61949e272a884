//! The outcomes of claimed work: progress of a single stream, the finished file, a failure (retried or final), cancelled, or
//! given back.

use std::time::Duration;

use sqlx::PgConnection;

use super::end::{delete_shards, end_export, free_claim, start_over};
use super::lease::{Claim, JobKind, Renewal, lock_claim, seconds};
use super::places::release_place;
use super::policy::RetryPolicy;
use super::uploads::mark_published;
use crate::database::{Ledger, Result};
use crate::outbox;
use polyglot_core::failure::{Disposition, Failure};
use polyglot_core::manifest::Manifest;
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_core::status::Status;

/// A finished file.
#[derive(Debug, Clone)]
pub struct Finished {
    pub object_key: String,
    pub etag: Option<String>,
    pub peak_memory_bytes: Option<i64>,
    pub manifest: Manifest,
}

impl Ledger {
    /// Records that the whole export is read as one stream, and why. It needs no place.
    pub async fn streaming(
        &self,
        claim: &Claim,
        rows_estimate: Option<i64>,
        reason: SingleStreamReason,
    ) -> Result<Renewal> {
        let mut transaction = self.pool.begin().await?;
        let renewal = lock_claim(&mut transaction, claim).await?;
        sqlx::query(
            "UPDATE exports SET state = 'running', rows_estimate = $2, shards = 1, uncut = $3, needs_place = false
             WHERE id = $1",
        )
        .bind(claim.export_id)
        .bind(rows_estimate)
        .bind(reason.code())
        .execute(&mut *transaction)
        .await?;
        release_place(&mut transaction, claim.export_id).await?;
        self.commit_change(transaction, claim.export_id).await?;
        Ok(renewal)
    }

    /// Records that every row is written. Call it right before the request that makes the object visible.
    pub async fn finishing(&self, claim: &Claim) -> Result<Renewal> {
        let mut transaction = self.pool.begin().await?;
        let renewal = lock_claim(&mut transaction, claim).await?;
        sqlx::query("UPDATE exports SET state = 'finishing' WHERE id = $1")
            .bind(claim.export_id)
            .execute(&mut *transaction)
            .await?;
        self.commit_change(transaction, claim.export_id).await?;
        Ok(renewal)
    }

    /// Completes the export, which owns the stored object from now on. `CancelRequested` means that nothing was changed and the
    /// caller has to delete the object.
    pub async fn complete(&self, claim: &Claim, finished: &Finished, retention: Option<Duration>) -> Result<Renewal> {
        let mut transaction = self.pool.begin().await?;
        if lock_claim(&mut transaction, claim).await? == Renewal::CancelRequested {
            return Ok(Renewal::CancelRequested);
        }
        delete_shards(&mut transaction, claim.export_id).await?;
        sqlx::query(
            "UPDATE exports SET state = 'completed', rows = $2, bytes = $3, object_key = $4, etag = $5,
                 peak_memory_bytes = greatest(peak_memory_bytes, $6), finished_at = ledger_now(),
                 expires_at = ledger_now() + make_interval(secs => $7), manifest = $8, token_due_at = NULL,
                 shards_done = shards
             WHERE id = $1",
        )
        .bind(claim.export_id)
        .bind(finished.manifest.rows)
        .bind(finished.manifest.bytes)
        .bind(&finished.object_key)
        .bind(&finished.etag)
        .bind(finished.peak_memory_bytes)
        .bind(retention.map(seconds))
        .bind(sqlx::types::Json(&finished.manifest))
        .execute(&mut *transaction)
        .await?;
        mark_published(&mut transaction, claim.export_id, claim.attempt).await?;
        self.commit_change(transaction, claim.export_id).await?;
        Ok(Renewal::Held)
    }

    /// Records a failure. A transient one is retried after a pause, up to the policy's number of attempts; returns whether it
    /// will be. Of a sharded export only this shard is done again.
    pub async fn fail(&self, claim: &Claim, failure: &Failure, retry: RetryPolicy) -> Result<bool> {
        let scope = match claim.work {
            JobKind::Start { .. } => RetryScope::Attempt,
            JobKind::Shard(_) | JobKind::Finish(_) => RetryScope::Work,
        };
        self.end_attempt(claim, failure, retry, scope).await
    }

    /// Records a failure that ends the whole attempt: its snapshot or its upload is lost. Otherwise like [`Self::fail`].
    pub async fn fail_attempt(&self, claim: &Claim, failure: &Failure, retry: RetryPolicy) -> Result<bool> {
        self.end_attempt(claim, failure, retry, RetryScope::Attempt).await
    }

    /// Records that this session cannot lock the table: a schema change waits for a lock, and every new reader waits behind it.
    /// While other workers read the export, they also read this shard, and it is no failure. Otherwise the attempt fails, so
    /// that its snapshot no longer blocks the schema change.
    pub async fn blocked(&self, claim: &Claim, failure: &Failure, retry: RetryPolicy) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let renewal = lock_claim(&mut transaction, claim).await?;
        let others: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM shards WHERE export_id = $1 AND number NOT IN (0, $2) AND state = 'leased'
                            AND leased_until >= ledger_now()) AS others",
        )
        .bind(claim.export_id)
        .bind(claim.shard)
        .fetch_one(&mut *transaction)
        .await?;
        if !others || renewal == Renewal::CancelRequested {
            drop(transaction);
            return self.fail_attempt(claim, failure, retry).await;
        }
        free_claim(&mut transaction, claim).await?;
        // Not later, even if a claim that found nothing has postponed the next look to the end of another lease.
        sqlx::query("UPDATE exports SET ready_at = ledger_now() + interval '5 seconds' WHERE id = $1")
            .bind(claim.export_id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Ends an attempt that was denied a place. The export waits for one before it is planned again.
    pub async fn wait_for_place(&self, claim: &Claim) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        if lock_claim(&mut transaction, claim).await? == Renewal::CancelRequested {
            end_export(&mut transaction, claim.export_id, Status::Cancelled, None).await?;
        } else {
            sqlx::query(
                "UPDATE exports SET needs_place = true, is_small = false, ready_at = ledger_now(),
                     token_due_at = ledger_now() + interval '10 minutes'
                 WHERE id = $1",
            )
            .bind(claim.export_id)
            .execute(&mut *transaction)
            .await?;
            start_over(&mut transaction, claim.export_id).await?;
        }
        self.commit_change(transaction, claim.export_id).await?;
        Ok(())
    }

    async fn end_attempt(
        &self,
        claim: &Claim,
        failure: &Failure,
        retry: RetryPolicy,
        scope: RetryScope,
    ) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let cancelled = lock_claim(&mut transaction, claim).await? == Renewal::CancelRequested;
        let again = if cancelled {
            end_export(&mut transaction, claim.export_id, Status::Cancelled, None).await?;
            false
        } else {
            count_failure(&mut transaction, claim, failure, retry, scope).await?
        };
        self.commit_change(transaction, claim.export_id).await?;
        Ok(again)
    }

    /// Cancels the export, after the caller has removed everything that the work had stored.
    pub async fn cancelled(&self, claim: &Claim) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        lock_claim(&mut transaction, claim).await?;
        end_export(&mut transaction, claim.export_id, Status::Cancelled, None).await?;
        self.commit_change(transaction, claim.export_id).await?;
        Ok(())
    }

    /// Returns unfinished work, for another worker to do at once, without counting a failure.
    pub async fn give_back(&self, claim: &Claim) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        lock_claim(&mut transaction, claim).await?;
        match claim.work {
            JobKind::Start { .. } => start_over(&mut transaction, claim.export_id).await?,
            JobKind::Shard(_) | JobKind::Finish(_) => free_claim(&mut transaction, claim).await?,
        }
        sqlx::query("UPDATE exports SET token_due_at = ledger_now() + interval '10 minutes', ready_at = ledger_now() WHERE id = $1")
            .bind(claim.export_id)
            .execute(&mut *transaction)
            .await?;
        outbox::announce(&mut transaction, claim.export_id).await?;
        self.commit_change(transaction, claim.export_id).await?;
        Ok(())
    }
}

/// The part that is done again after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RetryScope {
    Attempt,
    Work,
}

/// Counts a failure and sets the pause before the next try, or ends the export if there is none. Returns whether there is one.
/// The caller holds the lock on the export's row.
async fn count_failure(
    connection: &mut PgConnection,
    claim: &Claim,
    failure: &Failure,
    retry: RetryPolicy,
    scope: RetryScope,
) -> Result<bool> {
    let id = claim.export_id;
    let before: i32 =
        sqlx::query_scalar("SELECT failures FROM exports WHERE id = $1").bind(id).fetch_one(&mut *connection).await?;
    // One cause that fails several shards at once, such as a restart of the source, is one failure, even if some of the workers
    // notice it late.
    let known = scope == RetryScope::Work && before > claim.failures;
    let failures = before + i32::from(!known);
    let again = match failure.kind.disposition() {
        Disposition::Retry => failures < retry.max_attempts || known,
        Disposition::Fail => false,
    };
    sqlx::query("UPDATE exports SET failures = $2, error_code = $3, error = $4, error_detail = $5 WHERE id = $1")
        .bind(id)
        .bind(failures)
        .bind(failure.kind.code())
        .bind(&failure.message)
        .bind(&failure.detail)
        .execute(&mut *connection)
        .await?;
    if !again {
        end_export(connection, id, Status::Failed, Some(failure)).await?;
        return Ok(false);
    }
    match scope {
        RetryScope::Attempt => start_over(connection, id).await?,
        RetryScope::Work => free_claim(connection, claim).await?,
    }
    let pause = if known { Duration::ZERO } else { retry.pause(failures, id) };
    sqlx::query(
        "UPDATE exports SET paused_until = until, ready_at = until, token_due_at = until
         FROM (SELECT greatest(paused_until, ledger_now() + make_interval(secs => $2)) AS until FROM exports WHERE id = $1) AS pause
         WHERE id = $1",
    )
    .bind(id)
    .bind(seconds(pause))
    .execute(connection)
    .await?;
    Ok(true)
}
