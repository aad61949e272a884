//! Who hears of changes: the states that an export has been in, and word to other processes that there is something new
//! to read. The word may get lost and says only which exports; what is true is always read from the tables.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgListener, PgRow};
use sqlx::{AssertSqlSafe, Postgres, Row, Transaction};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::{Ledger, LedgerError, Result};
use polyglot_core::failure::chain;
use polyglot_core::status::Status;

/// The channel of LISTEN and NOTIFY. A ledger's schema has one name, so a database has one ledger.
const CHANNEL: &str = "polyglot_exports";

/// How long changes are collected before others are told: enough to see a bar move, and at most ten notifications a
/// second from one process, however many exports it works on.
const GATHER: Duration = Duration::from_millis(100);

/// A notification has room for 7999 bytes, and an id and its comma are 37.
const IDS_A_NOTIFICATION: usize = 200;

/// An export came to a state, or to another attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Grows with each change of the same export.
    pub id: i64,
    pub export_id: Uuid,
    pub status: Status,
    pub attempt: i32,
    pub at: DateTime<Utc>,
}

/// Exports that this process has changed and told nobody of yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Untold {
    exports: Arc<Mutex<BTreeSet<Uuid>>>,
    more: Arc<Notify>,
}

impl Untold {
    fn add(&self, id: Uuid) {
        // A set of ids is whole whatever panicked while it was locked.
        self.exports.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        self.more.notify_one();
    }

    fn take(&self) -> Vec<Uuid> {
        std::mem::take(&mut *self.exports.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }
}

/// Tells listeners of what this process changes, until `stopping`, and once more then. They look by themselves every few
/// seconds as well, so what does not get through is late and not lost.
pub async fn tell_changes(ledger: Ledger, stopping: CancellationToken) {
    loop {
        let last = tokio::select! {
            () = ledger.untold.more.notified() => {
                tokio::time::sleep(GATHER).await;
                false
            }
            () = stopping.cancelled() => true,
        };
        for exports in ledger.untold.take().chunks(IDS_A_NOTIFICATION) {
            if let Err(error) = crate::database::in_time(ledger.tell(exports)).await {
                tracing::debug!(error = chain(&error), "listeners were not told of changes");
            }
        }
        if last {
            return;
        }
    }
}

/// Word from other processes, and from this one.
pub struct Listener(PgListener);

impl Listener {
    /// The exports that were changed, some of them perhaps long ago. `None`: the connection was lost and is there again, so
    /// something may have been missed.
    ///
    /// # Errors
    /// When it cannot be had again.
    pub async fn next(&mut self) -> Result<Option<Vec<Uuid>>> {
        let Some(notification) = self.0.try_recv().await? else { return Ok(None) };
        // Anybody who may connect to the database can notify: what is no id is nobody's.
        Ok(Some(notification.payload().split(',').filter_map(|id| id.parse().ok()).collect()))
    }
}

impl Ledger {
    /// Commits, and has others told that there is something new about the export.
    pub(super) async fn commit_change(&self, transaction: Transaction<'_, Postgres>, id: Uuid) -> Result<()> {
        transaction.commit().await?;
        self.untold.add(id);
        Ok(())
    }

    async fn tell(&self, exports: &[Uuid]) -> Result<()> {
        let ids: Vec<String> = exports.iter().map(Uuid::to_string).collect();
        // It changes nothing that a crash could lose, so its commit need not wait for the disk.
        let statement =
            format!("SET LOCAL synchronous_commit TO off; SELECT pg_notify('{CHANNEL}', '{}')", ids.join(","));
        // Nothing in it comes from a client: ids are UUIDs.
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&self.pool).await?;
        Ok(())
    }

    /// A connection of the pool that hears of changes from now on.
    pub async fn listen(&self) -> Result<Listener> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(Listener(listener))
    }

    /// The states that one export has been in behind change `after`, in order.
    pub async fn changes_of(&self, export_id: Uuid, after: i64) -> Result<Vec<Change>> {
        let query = sqlx::query(
            "SELECT id, export_id, state, attempt, at FROM state_changes WHERE export_id = $1 AND id > $2 ORDER BY id",
        );
        query.bind(export_id).bind(after).fetch_all(&self.pool).await?.iter().map(read_change).collect()
    }

    /// The states that each of these exports has been in, in order.
    pub async fn changes_of_all(&self, exports: &[Uuid]) -> Result<Vec<Change>> {
        if exports.is_empty() {
            return Ok(Vec::new());
        }
        let query = sqlx::query(
            "SELECT id, export_id, state, attempt, at FROM state_changes WHERE export_id = ANY($1) ORDER BY id",
        );
        query.bind(exports).fetch_all(&self.pool).await?.iter().map(read_change).collect()
    }

    /// The newest changes of all exports behind number `after`, at most `limit`, in order.
    pub async fn changes_after(&self, after: i64, limit: i64) -> Result<Vec<Change>> {
        let query = sqlx::query(
            "SELECT * FROM (SELECT id, export_id, state, attempt, at FROM state_changes WHERE id > $1
                            ORDER BY id DESC LIMIT $2) AS newest
             ORDER BY id",
        );
        query.bind(after).bind(limit).fetch_all(&self.pool).await?.iter().map(read_change).collect()
    }

    /// The number of the newest change; 0 before the first.
    pub async fn last_change(&self) -> Result<i64> {
        let query = sqlx::query("SELECT coalesce(max(id), 0) AS id FROM state_changes");
        Ok(query.fetch_one(&self.pool).await?.try_get("id")?)
    }
}

fn read_change(row: &PgRow) -> Result<Change> {
    let export_id: Uuid = row.try_get("export_id")?;
    let state: String = row.try_get("state")?;
    Ok::<_, LedgerError>(Change {
        id: row.try_get("id")?,
        export_id,
        status: crate::database::status(export_id, &state)?,
        attempt: row.try_get("attempt")?,
        at: row.try_get("at")?,
    })
}
