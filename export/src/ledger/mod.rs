//! The ledger: the Postgres tables that decide what happens. Each file beside this one is one thing that is
//! done to it; here are the connection, the schema and the errors.

mod benchmark;
mod changes;
mod claim;
mod gauges;
mod idempotency;
mod keepers;
mod outbox;
mod outcome;
mod read;
mod shards;
mod steer;
mod submit;
mod sweep;
mod uploads;

pub use benchmark::BenchmarkLock;
pub use changes::{Change, Listener, tell_changes};
pub use claim::{
    Claim, Claimed, Cut, Renewal, RetryPolicy, ShardWork, Terms, Work, deadline_failure, snapshot_age_failure,
};
pub use gauges::{Ended, Waits};
pub use idempotency::{Reservation, ReservedKey};
pub use keepers::Attempt;
pub use outbox::Waiting;
pub use outcome::Finished;
pub use read::{Export, ListFilter};
pub use shards::{Committed, Keeper, Planned, StoredShard};
pub use steer::Deletion;
pub use submit::{Accepted, Submission};
pub use sweep::Swept;
pub use uploads::Leftover;

use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::status::Status;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// A statement touches a few rows; one that takes longer is stuck behind a lock. A transaction that idles belongs to
/// a process that is frozen, and its locks would stop everybody else; the longest that is meant to wait is the relay's.
const SESSION: &str = "SET search_path TO polyglot; SET TimeZone TO 'UTC'; SET statement_timeout TO '10s';
    SET idle_in_transaction_session_timeout TO '20s'";

/// A handle on the ledger; clones share one pool.
#[derive(Debug, Clone)]
pub struct Ledger {
    pool: PgPool,
    untold: changes::Untold,
}

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database is away or has no connection to give; the same call may succeed later.
    #[error("the ledger database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The database refused a statement of ours: a defect.
    #[error("the ledger database refused a statement")]
    Refused(#[source] sqlx::Error),
    /// A row holds what this version cannot read.
    #[error("export {id} cannot be read from the ledger: {problem}")]
    Unreadable { id: uuid::Uuid, problem: String },
    /// The claim's fence is no longer the shard's: another worker has taken over, or the export has ended.
    #[error("the lease was lost")]
    LeaseLost,
    /// Another request has taken over the idempotency key of this one, which took too long.
    #[error("the idempotency key was taken over")]
    KeyTaken,
    #[error("the ledger's tables could not be brought up to date")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        if crate::source::is_unavailable(&error) { Self::Unavailable(error) } else { Self::Refused(error) }
    }
}

/// How long a process waits for the ledger's answer. Statements have a shorter limit on the server, so this one is
/// for a server that has vanished without a word.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long to wait before a call that the ledger did not answer is made again.
const AGAIN: Duration = Duration::from_secs(1);

/// Repeats a call while the ledger is away or silent, up to `patience`. The call may take effect more than once.
pub async fn persist<T, F>(patience: Duration, call: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let give_up = tokio::time::Instant::now() + patience;
    loop {
        match in_time(call()).await {
            Err(LedgerError::Unavailable(error)) if tokio::time::Instant::now() < give_up => {
                tracing::debug!(error = crate::failure::chain(&error), "the ledger is away, trying again");
                tokio::time::sleep(AGAIN).await;
            }
            other => return other,
        }
    }
}

/// Gives up on a ledger call that is not answered.
pub async fn in_time<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    let silent = |_| LedgerError::Unavailable(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    tokio::time::timeout(ANSWER_TIMEOUT, call).await.map_err(silent)?
}

type Result<T> = std::result::Result<T, LedgerError>;

/// What the column `state` of an export says.
fn status(id: uuid::Uuid, state: &str) -> Result<Status> {
    Status::from_name(state).ok_or_else(|| LedgerError::Unreadable { id, problem: format!("state {state:?}") })
}

impl Ledger {
    /// A handle that connects on first use, with at most `connections` at a time.
    ///
    /// # Errors
    /// When `url` cannot be parsed.
    pub fn new(url: &str, connections: u32, application_name: &str) -> std::result::Result<Self, sqlx::Error> {
        let options: PgConnectOptions = url.parse()?;
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(3))
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::raw_sql(SESSION).execute(connection).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options.application_name(application_name));
        Ok(Self { pool, untold: changes::Untold::default() })
    }

    /// Creates or upgrades the tables. Safe to call from several processes at once.
    pub async fn migrate(&self) -> Result<()> {
        let mut connection = self.pool.acquire().await?;
        // CREATE SCHEMA IF NOT EXISTS can still collide with another process's; the lock takes turns.
        sqlx::raw_sql(
            "BEGIN; SELECT pg_advisory_xact_lock(hashtext('polyglot schema')); CREATE SCHEMA IF NOT EXISTS polyglot; COMMIT",
        )
        .execute(&mut *connection)
        .await?;
        MIGRATIONS.run(&mut *connection).await?;
        Ok(())
    }

    /// Migrates, and while the database is away tries again every second, up to `patience`.
    pub async fn migrate_when_up(&self, patience: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match self.migrate().await {
                Err(error @ LedgerError::Unavailable(_)) if tokio::time::Instant::now() < deadline => {
                    tracing::warn!(error = crate::failure::chain(&error), "the ledger is not up yet, trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                other => return other,
            }
        }
    }

    /// Connections to the database at the moment.
    #[must_use]
    pub fn connections(&self) -> crate::telemetry::PoolUse {
        crate::telemetry::PoolUse::of(&self.pool)
    }

    /// Answers when the database does.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1 FROM exports LIMIT 1").execute(&self.pool).await?;
        Ok(())
    }
}
