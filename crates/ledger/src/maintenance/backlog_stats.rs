//! How much there is to do and how much was done, for whoever watches the service. What is asked often is cheap; what is not
//! cheap is asked apart, so that the caller can do so rarely.

use sqlx::Row;

use crate::database::{Ledger, Result};
use polyglot_core::status::Status;

/// Exports that have not ended, and what waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Waits {
    /// Of each active state, those too of which there are none.
    pub active: Vec<(Status, i64)>,
    /// Have work that no worker has taken.
    pub ready: i64,
    /// Of the one that waits longest.
    pub ready_for_seconds: f64,
    pub outbox: i64,
}

/// Exports by the state in which they ended, those states too in which none did.
pub type Ended = Vec<(Status, i64)>;

impl Ledger {
    /// Counts active exports, of which partial indexes have each and no other, and the outbox, which is emptied all the time.
    pub async fn waits(&self) -> Result<Waits> {
        let row = sqlx::query(
            "SELECT count(*) FILTER (WHERE state = 'pending') AS pending,
                 count(*) FILTER (WHERE state = 'planning') AS planning,
                 count(*) FILTER (WHERE state = 'running') AS running,
                 count(*) FILTER (WHERE state = 'finishing') AS finishing,
                 count(*) FILTER (WHERE ready_at <= now()) AS ready,
                 coalesce(extract(epoch FROM now() - min(ready_at) FILTER (WHERE ready_at <= now())), 0)::float8 AS ready_for,
                 (SELECT count(*) FROM outbox) AS outbox
             FROM exports WHERE state IN ('pending', 'planning', 'running', 'finishing')",
        )
        .fetch_one(&self.pool)
        .await?;
        let active = Status::ALL.into_iter().filter(|status| status.is_active());
        Ok(Waits {
            active: active.map(|status| Ok((status, row.try_get(status.name())?))).collect::<Result<_>>()?,
            ready: row.try_get("ready")?,
            ready_for_seconds: row.try_get("ready_for")?,
            outbox: row.try_get("outbox")?,
        })
    }

    /// Counts the others, in an index alone; but they are all that there ever were.
    pub async fn ended(&self) -> Result<Ended> {
        let rows = sqlx::query(
            "SELECT state, count(*) AS n FROM exports
             WHERE state IN ('completed', 'expired', 'failed', 'cancelled') GROUP BY state",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut ended: Ended =
            Status::ALL.into_iter().filter(|status| !status.is_active()).map(|status| (status, 0)).collect();
        for row in rows {
            let (state, n): (String, i64) = (row.try_get("state")?, row.try_get("n")?);
            if let Some(entry) = ended.iter_mut().find(|(status, _)| status.name() == state) {
                entry.1 = n;
            }
        }
        Ok(ended)
    }
}
