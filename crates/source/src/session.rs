//! Sessions on the source database: the api's pool, how a session is named and found again, and which errors mean that the
//! database is unavailable. Queries for rows are not here.
//!
//! The name of every session begins with `polyglot` and a blank. Those of the ledger begin with `polyglot-`, so that the two can
//! be told apart where they share a server.

use std::time::Duration;

use polyglot_runtime::telemetry::PoolUse;
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::connection::SourceConnection;
use crate::connection_limit::ConnectionPermit;
use crate::database_url::DatabaseUrl;
use crate::session_settings::{apply_session_settings, with_source_options};

/// Size of [`pool`].
pub const POOL_SIZE: u32 = 4;

/// A pool of [`POOL_SIZE`] connections for catalog look-ups and for checking values of tables that run no foreign code, with the
/// settings of a [`SourceConnection`]. It connects on first use.
pub fn pool(url: impl Into<DatabaseUrl>) -> Result<PgPool, sqlx::Error> {
    let options = PgPoolOptions::new()
        .max_connections(POOL_SIZE)
        .acquire_timeout(Duration::from_secs(3))
        .after_connect(|connection, _| {
            Box::pin(async move {
                apply_session_settings(connection).await?;
                // A statement that is planned waits for a relation that is locked; other look-ups must still get a connection.
                // Only tables that run nothing but PostgreSQL's own code are planned and read in these sessions. A server that
                // knows the setting (12.20, 13.16, 14.13, 15.8, 16.4 and later) refuses what has become a view meanwhile.
                let settings = "SET lock_timeout TO '1s'; SET statement_timeout TO '10s';
                    SELECT pg_catalog.set_config(name, 'view, foreign-table', false)
                    FROM pg_catalog.pg_settings WHERE name = 'restrict_nonsystem_relation_kind'";
                sqlx::raw_sql(settings).execute(connection).await?;
                Ok(())
            })
        });
    url.into().pool(options, |options| with_source_options(options).application_name("polyglot catalog"))
}

/// The connections of a pool, idle and in use.
#[must_use]
pub fn pool_use(pool: &PgPool) -> PoolUse {
    let idle = pool.num_idle();
    let all = usize::try_from(pool.size()).unwrap_or(usize::MAX);
    PoolUse { idle, used: all.saturating_sub(idle) }
}

/// The `application_name` of an attempt's session on the source, by which `pg_stat_activity` finds it again.
#[must_use]
pub fn session_name(export_id: uuid::Uuid, attempt: i32) -> String {
    format!("polyglot export {export_id}/{attempt}")
}

/// Ends this database user's sessions of these names, and returns how many there were. The session of a frozen process would
/// keep its snapshot, and hold back vacuum, until that process wakes up.
///
/// # Errors
/// When the database cannot be asked.
pub async fn end_sessions(
    permit: ConnectionPermit,
    url: impl Into<DatabaseUrl>,
    names: &[String],
) -> Result<usize, sqlx::Error> {
    let mut connection = SourceConnection::open(permit, url, "polyglot sweeper").await?;
    // Called in the select list, because conditions are evaluated in any order: in WHERE it could end sessions that only another
    // condition excludes.
    let ended = sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name = ANY($1) AND usename = current_user",
    )
    .bind(names)
    .fetch_all(&mut *connection)
    .await?;
    connection.close();
    Ok(ended.len())
}

/// A session, as its server identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub pid: i32,
    /// Identifies the server, and its current run.
    pub server_started: String,
}

/// Checks over another connection whether a session still exists. If another server answers than the one with the session (behind
/// a load balancer), the session counts as alive. Without a `backend` it is enough that a server answers.
///
/// # Errors
/// When the database cannot be asked.
pub async fn session_lives(
    permit: ConnectionPermit,
    url: &DatabaseUrl,
    backend: Option<&Backend>,
) -> Result<bool, sqlx::Error> {
    match find_session(permit, url, backend).await {
        // Out of connections, memory or disk (SQLSTATE class 53): the server is alive.
        Err(sqlx::Error::Database(refused)) if refused.code().is_some_and(|code| code.starts_with("53")) => Ok(true),
        found => found,
    }
}

async fn find_session(
    permit: ConnectionPermit,
    url: &DatabaseUrl,
    backend: Option<&Backend>,
) -> Result<bool, sqlx::Error> {
    let mut connection = SourceConnection::open(permit, url, "polyglot probe").await?;
    let mut lives = true;
    if let Some(Backend { pid, server_started }) = backend {
        lives = sqlx::query_scalar(
            "SELECT pg_postmaster_start_time()::text <> $2 OR EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)",
        )
        .bind(pid)
        .bind(server_started)
        .fetch_one(&mut *connection)
        .await?;
    }
    connection.close();
    Ok(lives)
}

/// Whether a statement was given up because another session had locked what it needs (SQLSTATE 55P03).
#[must_use]
pub fn is_locked(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "55P03")
}

/// Whether an attempt to connect failed because the server is away, is starting or stopping, or has no connection left: it says
/// nothing about what is wanted of the server. Unlike [`is_unavailable`], neither a statement nor a lock has failed.
#[must_use]
pub fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(refused) => {
            refused.code().is_some_and(|code| ["08", "53300", "57P"].iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}

/// Whether an error of the driver means that the database is unavailable or too busy, rather than that it refused the statement.
#[must_use]
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        // Classes 08 (connection; HV00N says the same of a foreign server), 28 (while a password is replaced, the one that a process
        // has is wrong for some seconds), 53 (out of resources), 57P (shutdown, crash, cannot connect now), the serialization
        // failures of 40, which a replica answers when it cancels a query, a lock that was not to be had and the time limits
        // (57014 is also an operator's pg_cancel_backend).
        sqlx::Error::Database(refused) => refused.code().is_some_and(|code| {
            ["08", "HV00N", "28", "53", "57P", "57014", "40", "55P03", "25P03", "25P04"]
                .iter()
                .any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}
