//! The connection to the ledger's database: pool, schema, errors, and the time limit and retries of calls.

use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgPool, PgPoolOptions};

use polyglot_core::failure::chain;
use polyglot_core::status::Status;
use polyglot_core::tenant_limits::LimitReached;
use polyglot_runtime::retry::retry;
use polyglot_runtime::telemetry::PoolUse;
use polyglot_runtime::timeout::TimedOut;
use polyglot_source::DatabaseUrl;

use crate::pending_notifications::PendingNotifications;

/// The settings of a session. A statement touches a few rows; one that takes longer waits for a lock. A transaction that idles
/// belongs to a frozen process, whose locks would block all others; the longest intended wait is the relay's. Compiling a
/// statement would take longer than any of them does.
const SESSION: &str = "SET search_path TO polyglot; SET TimeZone TO 'UTC'; SET statement_timeout TO '10s';
    SET idle_in_transaction_session_timeout TO '20s'; SET jit TO off";

/// A handle on the ledger; clones share one pool.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(crate) pool: PgPool,
    pub(crate) pending_notifications: PendingNotifications,
}

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database cannot be reached or has no free connection; the same call may succeed later.
    #[error("the ledger database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The database refused a statement, which is a defect of this program.
    #[error("the ledger database refused a statement")]
    Refused(#[source] sqlx::Error),
    /// This version cannot read the content of a row.
    #[error("export {id} cannot be read from the ledger: {problem}")]
    Unreadable { id: uuid::Uuid, problem: String },
    /// The claim's fence is no longer the shard's: another worker has claimed it, or the export has ended.
    #[error("the lease was lost")]
    LeaseLost,
    /// This request took too long, and another one has taken over its idempotency key.
    #[error("the idempotency key was taken over")]
    KeyTaken,
    /// The tenant has as much as it may, so nothing was stored.
    #[error("{0}")]
    LimitReached(LimitReached),
    #[error("the ledger's tables could not be brought up to date")]
    Migration(#[source] MigrateError),
    /// `MIGRATE` is off, and the command has not been run for this version.
    #[error("{0} migrations of this version are still to be run: run `polyglot-api migrate`, or set MIGRATE=on")]
    MigrationsPending(usize),
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        if polyglot_source::session::is_unavailable(&error) { Self::Unavailable(error) } else { Self::Refused(error) }
    }
}

/// Longest wait for an answer of the ledger. Statements have a shorter limit on the server, so this one is for a server that
/// no longer answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Pause before a call is repeated.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl From<TimedOut> for LedgerError {
    fn from(_: TimedOut) -> Self {
        Self::Unavailable(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
    }
}

fn is_unavailable(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Unavailable(_))
}

/// Repeats a call while the ledger is unavailable, until `limit` has passed. The call may take effect more than once.
pub async fn retry_while_unavailable<T, F>(limit: Duration, call: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let log = |error: &LedgerError| tracing::debug!(error = chain(error), "the ledger is unavailable, trying again");
    retry(limit, RETRY_PAUSE, || with_timeout(call()), is_unavailable, log).await
}

/// Gives up a ledger call that is not answered within 15 seconds.
pub async fn with_timeout<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    // Boxed, because the driver's futures are large and are copied at every await.
    polyglot_runtime::timeout::with_timeout(ANSWER_TIMEOUT, Box::pin(call)).await
}

pub(crate) type Result<T> = std::result::Result<T, LedgerError>;

/// The status that the column `state` of an export names.
pub(crate) fn status(id: uuid::Uuid, state: &str) -> Result<Status> {
    Status::from_name(state).ok_or_else(|| LedgerError::Unreadable { id, problem: format!("state {state:?}") })
}

impl Ledger {
    /// Makes a handle that connects on first use, with at most `connections` at a time.
    ///
    /// # Errors
    /// When `url` cannot be parsed.
    pub fn new(
        url: impl Into<DatabaseUrl>,
        connections: u32,
        application_name: &str,
    ) -> std::result::Result<Self, sqlx::Error> {
        let name = application_name.to_owned();
        let options = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(3))
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::raw_sql(SESSION).execute(connection).await?;
                    Ok(())
                })
            });
        let pool = url.into().pool(options, move |options| options.application_name(&name))?;
        Ok(Self { pool, pending_notifications: PendingNotifications::default() })
    }

    /// The pool's open connections.
    #[must_use]
    pub fn connections(&self) -> PoolUse {
        polyglot_source::session::pool_use(&self.pool)
    }

    /// Succeeds when the database answers.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1 FROM exports LIMIT 1").execute(&self.pool).await?;
        Ok(())
    }
}
