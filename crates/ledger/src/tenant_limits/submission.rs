//! The limits of a submission: exports that have not ended, and what was completed in the last 24 hours.

use std::time::Duration;

use sqlx::PgConnection;

use crate::database::{LedgerError, Result};
use polyglot_core::tenant_limits::{LimitReached, TenantLimit, TenantLimits};

/// Time after which a submission that was refused for too many active exports may be tried again. When one of them ends is not
/// known.
const QUEUED_RETRY: Duration = Duration::from_secs(5);

/// Refuses a new export of a tenant that has as much as it may. Submissions of a tenant with a limit of active exports take
/// turns until the caller's transaction ends, so that of several at once none passes it.
pub(crate) async fn check_submission(connection: &mut PgConnection, tenant: &str, limits: &TenantLimits) -> Result<()> {
    if let Some(max) = limits.queued {
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('polyglot queued ' || $1, 0))")
            .bind(tenant)
            .execute(&mut *connection)
            .await?;
        let used = count_active(connection, tenant).await?;
        let reached = LimitReached { limit: TenantLimit::Queued, max: max.into(), used, retry_after: QUEUED_RETRY };
        refuse_if_reached(reached)?;
    }
    if limits.rows_per_day.is_none() && limits.bytes_per_day.is_none() {
        return Ok(());
    }
    let (rows, bytes) = completed_of_day(connection, tenant).await?;
    for (limit, max, used) in
        [(TenantLimit::RowsPerDay, limits.rows_per_day, rows), (TenantLimit::BytesPerDay, limits.bytes_per_day, bytes)]
    {
        if let Some(max) = max
            && used >= max
        {
            let retry_after = until_below(connection, tenant, limit, max).await?;
            refuse_if_reached(LimitReached { limit, max, used, retry_after })?;
        }
    }
    Ok(())
}

fn refuse_if_reached(reached: LimitReached) -> Result<()> {
    if reached.used >= reached.max { Err(LedgerError::LimitReached(reached)) } else { Ok(()) }
}

/// Number of the tenant's exports that have not ended.
pub(super) async fn count_active(connection: &mut PgConnection, tenant: &str) -> Result<u64> {
    // Each half has an index of its own.
    let active: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM exports WHERE tenant = $1 AND state = 'pending')
              + (SELECT count(*) FROM exports WHERE tenant = $1 AND state IN ('planning', 'running', 'finishing'))
              AS active",
    )
    .bind(tenant)
    .fetch_one(connection)
    .await?;
    Ok(active.unsigned_abs())
}

/// Rows and bytes of the tenant's exports that were completed in the last 24 hours, whether their files still exist or not.
pub(super) async fn completed_of_day(connection: &mut PgConnection, tenant: &str) -> Result<(u64, u64)> {
    let (rows, bytes): (i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(rows), 0)::bigint AS rows, coalesce(sum(bytes), 0)::bigint AS bytes FROM exports
         WHERE tenant = $1 AND state IN ('completed', 'expired') AND finished_at > ledger_now() - interval '24 hours'",
    )
    .bind(tenant)
    .fetch_one(connection)
    .await?;
    Ok((rows.unsigned_abs(), bytes.unsigned_abs()))
}

/// Time until so many exports are older than 24 hours that the others are below the limit: the newest one with which they reach
/// it has to be.
async fn until_below(connection: &mut PgConnection, tenant: &str, limit: TenantLimit, max: u64) -> Result<Duration> {
    macro_rules! until_below {
        ($column:literal) => {
            concat!(
                "SELECT extract(epoch FROM finished_at + interval '24 hours' - ledger_now())::float8 AS seconds
                 FROM (SELECT finished_at, sum(",
                $column,
                ") OVER (ORDER BY finished_at DESC, id DESC) AS since FROM exports
                       WHERE tenant = $1 AND state IN ('completed', 'expired')
                         AND finished_at > ledger_now() - interval '24 hours') AS completed
                 WHERE since >= $2 ORDER BY finished_at DESC LIMIT 1"
            )
        };
    }
    let statement = if limit == TenantLimit::RowsPerDay { until_below!("rows") } else { until_below!("bytes") };
    let seconds: Option<f64> = sqlx::query_scalar(statement)
        .bind(tenant)
        .bind(i64::try_from(max).unwrap_or(i64::MAX))
        .fetch_optional(connection)
        .await?;
    // None: time has passed between the two statements.
    Ok(Duration::from_secs_f64(seconds.unwrap_or(0.0).max(0.0)))
}
