//! The connection to the ledger's database: its pool, its schema, its errors, and how long a call is waited for.

use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use polyglot_core::status::Status;
use polyglot_runtime::telemetry::PoolUse;

use crate::notifications::Untold;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// A statement touches a few rows; one that takes longer is stuck behind a lock. A transaction that idles belongs to
/// a process that is frozen, and its locks would stop everybody else; the longest that is meant to wait is the relay's.
const SESSION: &str = "SET search_path TO polyglot; SET TimeZone TO 'UTC'; SET statement_timeout TO '10s';
    SET idle_in_transaction_session_timeout TO '20s'";

/// A handle on the ledger; clones share one pool.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(crate) pool: PgPool,
    pub(crate) untold: Untold,
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
        if polyglot_source::session::is_unavailable(&error) { Self::Unavailable(error) } else { Self::Refused(error) }
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
                tracing::debug!(error = polyglot_core::failure::chain(&error), "the ledger is away, trying again");
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

pub(crate) type Result<T> = std::result::Result<T, LedgerError>;

/// What the column `state` of an export says.
pub(crate) fn status(id: uuid::Uuid, state: &str) -> Result<Status> {
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
        Ok(Self { pool, untold: Untold::default() })
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
                    tracing::warn!(
                        error = polyglot_core::failure::chain(&error),
                        "the ledger is not up yet, trying again"
                    );
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                other => return other,
            }
        }
    }

    /// Connections to the database at the moment.
    #[must_use]
    pub fn connections(&self) -> PoolUse {
        polyglot_source::session::pool_use(&self.pool)
    }

    /// Answers when the database does.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1 FROM exports LIMIT 1").execute(&self.pool).await?;
        Ok(())
    }
}
