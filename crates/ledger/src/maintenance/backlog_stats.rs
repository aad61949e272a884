//! Counts for monitoring: the backlog, which is cheap to count, and the finished exports, which are counted separately because
//! that is not cheap.

use sqlx::Row;

use crate::database::{Ledger, Result};
use polyglot_core::status::Status;

/// Active exports, and what waits.
#[derive(Debug, Clone, PartialEq)]
pub struct BacklogStats {
    /// The count of every active state, zeros included.
    pub active: Vec<(Status, i64)>,
    /// Exports with work that a worker may claim, and none has: those that wait for their tenant's limit are not among them.
    pub ready: i64,
    /// The longest wait of those, but for pending ones of tenants that are at their limit.
    pub ready_for_seconds: f64,
    /// Exports that have a place for their snapshot.
    pub open_snapshots: i64,
    /// Exports that wait for a place.
    pub waiting_for_place: i64,
    /// Messages in the outbox.
    pub outbox: i64,
    /// Active exports by tenant, of the [`MAX_TENANTS`] that have most.
    pub tenants: Vec<TenantBacklog>,
}

/// Tenants that are counted one by one: each is a label of a metric.
const MAX_TENANTS: i64 = 100;

/// The active exports of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct TenantBacklog {
    pub tenant: String,
    /// Those that have not begun.
    pub pending: i64,
    pub running: i64,
}

/// The count of exports in every final state, zeros included.
pub type FinishedCounts = Vec<(Status, i64)>;

impl Ledger {
    /// Counts the active exports, which have partial indexes of their own, and the outbox, which is nearly always empty.
    pub async fn backlog_stats(&self) -> Result<BacklogStats> {
        let row = sqlx::query(
            "WITH tenants AS (
                 SELECT tenant, count(*) FILTER (WHERE state = 'pending' AND ready_at <= ledger_now()) AS waiting,
                     count(*) FILTER (WHERE state <> 'pending') AS begun
                 FROM exports WHERE state IN ('pending', 'planning', 'running', 'finishing') GROUP BY tenant),
             limited AS (
                 SELECT tenant, waiting,
                     greatest(0, coalesce((SELECT l.running FROM running_limits l WHERE l.tenant = tenants.tenant),
                                          (SELECT l.running FROM running_limits l WHERE l.tenant = '*')) - begun) AS may_begin
                 FROM tenants WHERE EXISTS (SELECT FROM running_limits l WHERE l.tenant IN (tenants.tenant, '*')))
             SELECT count(*) FILTER (WHERE state = 'pending') AS pending,
                 count(*) FILTER (WHERE state = 'planning') AS planning,
                 count(*) FILTER (WHERE state = 'running') AS running,
                 count(*) FILTER (WHERE state = 'finishing') AS finishing,
                 count(*) FILTER (WHERE ready_at <= ledger_now())
                     - (SELECT coalesce(sum(greatest(0, waiting - may_begin)), 0)::int8 FROM limited) AS ready,
                 coalesce(extract(epoch FROM ledger_now() - min(ready_at) FILTER (
                     WHERE ready_at <= ledger_now()
                         AND NOT (state = 'pending' AND tenant IN (SELECT tenant FROM limited WHERE may_begin = 0)))), 0)::float8 AS ready_for,
                 count(*) FILTER (WHERE has_place AND state IN ('planning', 'running')) AS open_snapshots,
                 count(*) FILTER (WHERE needs_place AND state = 'pending') AS waiting_for_place,
                 (SELECT count(*) FROM outbox) AS outbox
             FROM exports WHERE state IN ('pending', 'planning', 'running', 'finishing')",
        )
        .fetch_one(&self.pool)
        .await?;
        let tenants = sqlx::query_as(
            "SELECT tenant, count(*) FILTER (WHERE state = 'pending') AS pending,
                 count(*) FILTER (WHERE state <> 'pending') AS running
             FROM exports WHERE state IN ('pending', 'planning', 'running', 'finishing')
             GROUP BY tenant ORDER BY count(*) DESC, tenant LIMIT $1",
        )
        .bind(MAX_TENANTS)
        .fetch_all(&self.pool)
        .await?;
        let active = Status::ALL.into_iter().filter(|status| status.is_active());
        Ok(BacklogStats {
            active: active.map(|status| Ok((status, row.try_get(status.name())?))).collect::<Result<_>>()?,
            ready: row.try_get("ready")?,
            ready_for_seconds: row.try_get("ready_for")?,
            open_snapshots: row.try_get("open_snapshots")?,
            waiting_for_place: row.try_get("waiting_for_place")?,
            outbox: row.try_get("outbox")?,
            tenants,
        })
    }

    /// Counts the finished exports. It is an index-only scan, but over every export that there ever was.
    pub async fn finished_counts(&self) -> Result<FinishedCounts> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT state, count(*) AS n FROM exports
             WHERE state IN ('completed', 'expired', 'failed', 'cancelled') GROUP BY state",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut counts: FinishedCounts =
            Status::ALL.into_iter().filter(|status| !status.is_active()).map(|status| (status, 0)).collect();
        for (state, n) in rows {
            if let Some(entry) = counts.iter_mut().find(|(status, _)| status.name() == state) {
                entry.1 = n;
            }
        }
        Ok(counts)
    }
}
