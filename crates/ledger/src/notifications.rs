//! State changes of exports, and the notifications (LISTEN and NOTIFY) that tell other processes to read them. A notification
//! holds only the ids of exports and may get lost; the state is always read from the tables.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgListener, PgRow};
use sqlx::{AssertSqlSafe, Postgres, Row, Transaction};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::{Ledger, LedgerError, Result, status, with_timeout};
use polyglot_core::failure::chain;
use polyglot_core::status::Status;

/// The channel of LISTEN and NOTIFY. A ledger's schema has one name, so a database has one ledger.
const CHANNEL: &str = "polyglot_exports";

/// Interval in which changes are collected for one notification. A process sends at most ten of them a second, however many
/// exports it works on, and progress still looks continuous.
const COLLECT_INTERVAL: Duration = Duration::from_millis(100);

/// A payload has at most 7999 bytes, and an id with its comma has 37.
const IDS_PER_NOTIFICATION: usize = 200;

/// A change of an export's state or attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Grows with each change of the same export.
    pub id: i64,
    pub export_id: Uuid,
    pub status: Status,
    pub attempt: i32,
    pub at: DateTime<Utc>,
}

/// Notifies listeners of what this process changes, until `stopping`, and once more then. Listeners also poll every few seconds,
/// so a lost notification only delays them.
pub async fn send_notifications(ledger: Ledger, stopping: CancellationToken) {
    loop {
        let last = tokio::select! {
            () = ledger.pending_notifications.added() => {
                tokio::time::sleep(COLLECT_INTERVAL).await;
                false
            }
            () = stopping.cancelled() => true,
        };
        for exports in ledger.pending_notifications.take().chunks(IDS_PER_NOTIFICATION) {
            if let Err(error) = with_timeout(ledger.notify(exports)).await {
                tracing::debug!(error = chain(&error), "listeners were not notified of changes");
            }
        }
        if last {
            return;
        }
    }
}

/// Receives the notifications of all processes, this one included.
pub struct Listener(PgListener);

impl Listener {
    /// The changed exports of the next notification, which may be old. `None`: the connection was lost and made again, so
    /// notifications may have been missed.
    ///
    /// # Errors
    /// When it cannot connect again.
    pub async fn next(&mut self) -> Result<Option<Vec<Uuid>>> {
        let Some(notification) = self.0.try_recv().await? else { return Ok(None) };
        // Anyone who may connect to the database can notify, so anything that is not an id is ignored.
        Ok(Some(notification.payload().split(',').filter_map(|id| id.parse().ok()).collect()))
    }
}

impl Ledger {
    /// Commits a change of the export, and queues its notification.
    pub(super) async fn commit_change(&self, transaction: Transaction<'_, Postgres>, id: Uuid) -> Result<()> {
        transaction.commit().await?;
        self.pending_notifications.add(id);
        Ok(())
    }

    async fn notify(&self, exports: &[Uuid]) -> Result<()> {
        let ids: Vec<String> = exports.iter().map(Uuid::to_string).collect();
        // No data changes, so the commit need not wait for the disk.
        let statement =
            format!("SET LOCAL synchronous_commit TO off; SELECT pg_notify('{CHANNEL}', '{}')", ids.join(","));
        // No text of a client is in it: ids are UUIDs.
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&self.pool).await?;
        Ok(())
    }

    /// Takes a connection of the pool and listens for changes from now on.
    pub async fn listen(&self) -> Result<Listener> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(Listener(listener))
    }

    /// The changes of one export after change `after`, in order.
    pub async fn changes_of(&self, export_id: Uuid, after: i64) -> Result<Vec<Change>> {
        let query = sqlx::query(
            "SELECT id, export_id, state, attempt, at FROM state_changes WHERE export_id = $1 AND id > $2 ORDER BY id",
        );
        query.bind(export_id).bind(after).fetch_all(&self.pool).await?.iter().map(read_change).collect()
    }

    /// All changes of these exports, in order.
    pub async fn changes_of_all(&self, exports: &[Uuid]) -> Result<Vec<Change>> {
        if exports.is_empty() {
            return Ok(Vec::new());
        }
        let query = sqlx::query(
            "SELECT id, export_id, state, attempt, at FROM state_changes WHERE export_id = ANY($1) ORDER BY id",
        );
        query.bind(exports).fetch_all(&self.pool).await?.iter().map(read_change).collect()
    }

    /// The first `limit` changes of all exports after number `after`, in order: a page.
    pub async fn changes_after(&self, after: i64, limit: i64) -> Result<Vec<Change>> {
        let query = sqlx::query(
            "SELECT id, export_id, state, attempt, at FROM state_changes WHERE id > $1 ORDER BY id LIMIT $2",
        );
        query.bind(after).bind(limit).fetch_all(&self.pool).await?.iter().map(read_change).collect()
    }

    /// The number of the newest change; 0 before the first.
    pub async fn last_change(&self) -> Result<i64> {
        let query = sqlx::query_scalar("SELECT coalesce(max(id), 0) AS id FROM state_changes");
        Ok(query.fetch_one(&self.pool).await?)
    }
}

pub(crate) fn read_change(row: &PgRow) -> Result<Change> {
    let export_id: Uuid = row.try_get("export_id")?;
    let state: String = row.try_get("state")?;
    Ok::<_, LedgerError>(Change {
        id: row.try_get("id")?,
        export_id,
        status: status(export_id, &state)?,
        attempt: row.try_get("attempt")?,
        at: row.try_get("at")?,
    })
}
