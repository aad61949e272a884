//! How work ends: with the finished file, with a failure that is tried again or is final, cancelled, or given back.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::claim::Claim;
use super::claim::Renewal;
use super::claim::RetryPolicy;
use super::claim::Work;
use super::claim::{hold, seconds};
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
    /// The whole export is read as one stream, for that reason; rows are being read.
    pub async fn streaming(
        &self,
        claim: &Claim,
        rows_estimate: Option<i64>,
        uncut: SingleStreamReason,
    ) -> Result<Renewal> {
        let mut transaction = self.pool.begin().await?;
        let renewal = hold(&mut transaction, claim).await?;
        sqlx::query("UPDATE exports SET state = 'running', rows_estimate = $2, shards = 1, uncut = $3 WHERE id = $1")
            .bind(claim.export_id)
            .bind(rows_estimate)
            .bind(uncut.code())
            .execute(&mut *transaction)
            .await?;
        self.commit_change(transaction, claim.export_id).await?;
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
        self.commit_change(transaction, claim.export_id).await?;
        Ok(renewal)
    }

    /// The object is there: the export owns it from now on. `CancelRequested` means that nothing was changed and
    /// the caller still has to delete the object.
    pub async fn complete(&self, claim: &Claim, finished: &Finished, keep: Option<Duration>) -> Result<Renewal> {
        let mut transaction = self.pool.begin().await?;
        if hold(&mut transaction, claim).await? == Renewal::CancelRequested {
            return Ok(Renewal::CancelRequested);
        }
        forget_shards(&mut transaction, claim.export_id).await?;
        sqlx::query(
            "UPDATE exports SET state = 'completed', rows = $2, bytes = $3, object_key = $4, etag = $5,
                 peak_memory_bytes = greatest(peak_memory_bytes, $6), finished_at = now(),
                 expires_at = now() + make_interval(secs => $7), manifest = $8, token_due_at = NULL,
                 shards_done = shards
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
        self.commit_change(transaction, claim.export_id).await?;
        Ok(Renewal::Held)
    }

    /// The work failed. What may pass by itself is tried again after a pause, up to the policy's number of attempts; the
    /// answer is whether it will be. Of an export that is cut only this piece is done again.
    pub async fn fail(&self, claim: &Claim, failure: &Failure, retry: RetryPolicy) -> Result<bool> {
        let again_from = match claim.work {
            Work::Start { .. } => Again::FromTheStart,
            Work::Shard(_) | Work::Finish(_) => Again::ThisPiece,
        };
        self.end_attempt(claim, failure, retry, again_from).await
    }

    /// The work failed, and with it what the attempt has so far: its snapshot is gone, or its upload. Otherwise like
    /// [`Self::fail`].
    pub async fn fail_attempt(&self, claim: &Claim, failure: &Failure, retry: RetryPolicy) -> Result<bool> {
        self.end_attempt(claim, failure, retry, Again::FromTheStart).await
    }

    /// The table cannot be read by another session: a change of its form waits, and everything new waits behind it. While
    /// others read, this shard is theirs and no failure; otherwise the change is let through.
    pub async fn blocked(&self, claim: &Claim, failure: &Failure, retry: RetryPolicy) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let renewal = hold(&mut transaction, claim).await?;
        let others: bool = sqlx::query(
            "SELECT EXISTS (SELECT FROM shards WHERE export_id = $1 AND number NOT IN (0, $2) AND state = 'leased'
                            AND leased_until >= now()) AS others",
        )
        .bind(claim.export_id)
        .bind(claim.shard)
        .fetch_one(&mut *transaction)
        .await?
        .try_get("others")?;
        if !others || renewal == Renewal::CancelRequested {
            drop(transaction);
            return self.fail_attempt(claim, failure, retry).await;
        }
        free(&mut transaction, claim).await?;
        sqlx::query("UPDATE exports SET ready_at = greatest(ready_at, now() + interval '5 seconds') WHERE id = $1")
            .bind(claim.export_id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn end_attempt(&self, claim: &Claim, failure: &Failure, retry: RetryPolicy, from: Again) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let cancelled = hold(&mut transaction, claim).await? == Renewal::CancelRequested;
        let again = if cancelled {
            end(&mut transaction, claim.export_id, Status::Cancelled, None).await?;
            false
        } else {
            count_failure(&mut transaction, claim, failure, retry, from).await?
        };
        self.commit_change(transaction, claim.export_id).await?;
        Ok(again)
    }

    /// The work was stopped as a client asked, and nothing of it is left.
    pub async fn cancelled(&self, claim: &Claim) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        hold(&mut transaction, claim).await?;
        end(&mut transaction, claim.export_id, Status::Cancelled, None).await?;
        self.commit_change(transaction, claim.export_id).await?;
        Ok(())
    }

    /// Gives unfinished work back for another worker to do at once, without counting a failure.
    pub async fn give_back(&self, claim: &Claim) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        hold(&mut transaction, claim).await?;
        match claim.work {
            Work::Start { .. } => start_over(&mut transaction, claim.export_id).await?,
            Work::Shard(_) | Work::Finish(_) => free(&mut transaction, claim).await?,
        }
        sqlx::query("UPDATE exports SET token_due_at = now() + interval '10 minutes', ready_at = now() WHERE id = $1")
            .bind(claim.export_id)
            .execute(&mut *transaction)
            .await?;
        outbox::announce(&mut transaction, claim.export_id).await?;
        self.commit_change(transaction, claim.export_id).await?;
        Ok(())
    }
}

/// What is done again after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    FromTheStart,
    ThisPiece,
}

/// Nobody holds anything of the export any more.
pub(super) async fn release(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query("UPDATE shards SET state = 'free', lease_owner = NULL, leased_until = NULL WHERE export_id = $1 AND state = 'leased'")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Lets go of what the claim holds.
pub(super) async fn free(connection: &mut PgConnection, claim: &Claim) -> Result<()> {
    sqlx::query(
        "UPDATE shards SET state = 'free', lease_owner = NULL, leased_until = NULL WHERE export_id = $1 AND number = $2",
    )
    .bind(claim.export_id)
    .bind(claim.shard)
    .execute(connection)
    .await?;
    Ok(())
}

/// The attempt is over, and the next claim begins another one. The caller says when that may be.
pub(super) async fn start_over(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    release(connection, id).await?;
    sqlx::query("UPDATE exports SET state = 'pending' WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}

/// A piece of work failed: a pause, if another try may help and there is one left, and otherwise the end. The answer is
/// whether there will be one. The caller holds the lock on the export's row.
async fn count_failure(
    connection: &mut PgConnection,
    claim: &Claim,
    failure: &Failure,
    retry: RetryPolicy,
    from: Again,
) -> Result<bool> {
    let id = claim.export_id;
    let before: i32 = sqlx::query("SELECT failures FROM exports WHERE id = $1")
        .bind(id)
        .fetch_one(&mut *connection)
        .await?
        .try_get("failures")?;
    // What fails several shards that are worked on side by side, a source that is started again, is one failure; however
    // long one of them takes to notice.
    let known = from == Again::ThisPiece && before > claim.failures;
    let failures = before + i32::from(!known);
    let again = match failure.kind.disposition() {
        Disposition::Retry => failures < retry.max_attempts || known,
        Disposition::Fail => false,
    };
    sqlx::query("UPDATE exports SET failures = $2, error_code = $3, error_detail = $4 WHERE id = $1")
        .bind(id)
        .bind(failures)
        .bind(failure.kind.code())
        .bind(&failure.detail)
        .execute(&mut *connection)
        .await?;
    if !again {
        end(connection, id, Status::Failed, Some(failure)).await?;
        return Ok(false);
    }
    match from {
        Again::FromTheStart => start_over(connection, id).await?,
        Again::ThisPiece => free(connection, claim).await?,
    }
    let pause = if known { Duration::ZERO } else { retry.pause(failures, id) };
    sqlx::query(
        "UPDATE exports SET paused_until = until, ready_at = until, token_due_at = until
         FROM (SELECT greatest(paused_until, now() + make_interval(secs => $2)) AS until FROM exports WHERE id = $1) AS pause
         WHERE id = $1",
    )
    .bind(id)
    .bind(seconds(pause))
    .execute(connection)
    .await?;
    Ok(true)
}

/// Ends an export without a file. The caller holds the lock on its row.
pub(crate) async fn end(
    connection: &mut PgConnection,
    id: Uuid,
    status: Status,
    failure: Option<&Failure>,
) -> Result<()> {
    // How far it came.
    sqlx::query(
        "UPDATE exports e SET rows = live.rows, bytes = live.bytes, shards_done = live.shards_done
         FROM (SELECT coalesce(sum(rows), 0) AS rows, coalesce(sum(bytes), 0) AS bytes, count(*) AS shards_done
               FROM shards WHERE export_id = $1 AND state = 'committed') AS live
         WHERE id = $1 AND plan IS NOT NULL",
    )
    .bind(id)
    .execute(&mut *connection)
    .await?;
    forget_shards(connection, id).await?;
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

/// What is worth knowing of the shards is in the export and its manifest by now; who still holds one, or keeps the
/// snapshot, finds out by their absence.
pub(crate) async fn forget_shards(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query("DELETE FROM shards WHERE export_id = $1").bind(id).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM keepers WHERE export_id = $1").bind(id).execute(connection).await?;
    Ok(())
}
