//! The transaction that an export is read in: how it begins, with a snapshot of its own or under one that another
//! transaction holds, and what may be asked of it.

use std::time::{Duration, Instant};

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::manifest::SnapshotPoint;
use polyglot_core::request::ExportRequest;
use polyglot_source::session::{self, Backend};
use polyglot_source::sql::quote_literal;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::connection_count::ConnectionCountGuard;
use super::source_failure::failed;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the source, and soon a transaction.
pub(crate) struct Connected {
    connection: PgConnection,
    /// When it came about.
    pub(super) since: Instant,
    open: ConnectionCountGuard,
}

/// An open transaction on the source, holding its snapshot.
pub(crate) struct Source {
    pub(crate) connection: PgConnection,
    pub backend: Backend,
    since: Instant,
    open: ConnectionCountGuard,
}

/// Why a snapshot cannot be shared.
#[derive(Debug)]
pub(crate) enum JoinError {
    /// The transaction that exported it has ended, and with it what it saw.
    SnapshotGone,
    /// A change of the table's form waits, and everything new waits behind it.
    Locked(Failure),
    Failed(Failure),
}

impl From<Failure> for JoinError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The first statement of the transaction, and so the one that takes the snapshot.
const SNAPSHOT: &str = "
    SELECT to_char(statement_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS time,
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text
               AS wal_position";

const BACKEND: &str = "SELECT pg_backend_pid() AS pid, pg_postmaster_start_time()::text AS server_started";

/// Nothing that a joining transaction waits for is worth waiting for: a change of the table's form that waits for the
/// snapshot to end, and so for this export, stands before it in the queue.
const JOIN_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout TO '5s'";
const NO_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout TO DEFAULT";

/// What came of beginning a transaction.
enum BeginOutcome {
    Open,
    /// There is no such table any more.
    NoTable,
    /// The lock was not to be had in time.
    Locked(Failure),
}

fn lock(request: &ExportRequest) -> String {
    format!("LOCK TABLE {} IN ACCESS SHARE MODE", polyglot_source::sql::quote_relation(&request.relation))
}

pub(crate) fn gone(request: &ExportRequest) -> Failure {
    let message = format!("The dataset {} is not there any more.", request.dataset);
    Failure::new(FailureKind::DatasetChanged, message, format!("no relation {}", request.relation))
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Begins the transaction. The lock comes before the snapshot: TRUNCATE and an ALTER TABLE that rewrites are not seen
/// by older snapshots, which find the table empty instead (PostgreSQL's manual, "Caveats" of MVCC). Behind the lock no
/// such change can come, and one that was under way has ended.
async fn begin(connection: &mut PgConnection, lock: String) -> Result<BeginOutcome, Failure> {
    // The name was found in the catalog when the export was accepted, and is quoted.
    let statements = AssertSqlSafe(format!("{BEGIN}; {lock}"));
    let Err(error) = sqlx::raw_sql(statements).execute(&mut *connection).await else { return Ok(BeginOutcome::Open) };
    match sqlstate(&error).as_deref() {
        // No table or view: a materialized view, whose new rows every snapshot sees, or a foreign table.
        Some("42809") => {
            sqlx::raw_sql(AssertSqlSafe(format!("ROLLBACK; {BEGIN}"))).execute(connection).await.map_err(failed)?;
            Ok(BeginOutcome::Open)
        }
        Some("42P01" | "3F000") => Ok(BeginOutcome::NoTable),
        Some("55P03") => Ok(BeginOutcome::Locked(failed(error))),
        _ => Err(failed(error)),
    }
}

async fn backend(connection: &mut PgConnection) -> Result<Backend, Failure> {
    let row = sqlx::query(BACKEND).fetch_one(connection).await.map_err(failed)?;
    Ok(Backend {
        pid: row.try_get("pid").map_err(failed)?,
        server_started: row.try_get("server_started").map_err(failed)?,
    })
}

impl Connected {
    /// Connects; `name` is the session's in `pg_stat_activity`.
    pub(crate) async fn to(url: &str, name: &str) -> Result<Self, Failure> {
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, session::connect(url, name)).await;
        let silent = |_| failed(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
        let connection = connection.map_err(silent)?.map_err(failed)?;
        Ok(Self { connection, since: Instant::now(), open: ConnectionCountGuard::new() })
    }

    /// For another export: nothing of the one before is left, and the session has its name.
    pub(super) async fn renew(&mut self, name: &str) -> Result<(), Failure> {
        session::reset_session_settings(&mut self.connection, name).await.map_err(failed)
    }

    /// Locks the relation against changes of its form and takes a snapshot.
    pub(crate) async fn begin(self, request: &ExportRequest) -> Result<(Source, SnapshotPoint), Failure> {
        let Self { mut connection, since, open } = self;
        match begin(&mut connection, lock(request)).await? {
            BeginOutcome::Open => {}
            BeginOutcome::NoTable => return Err(gone(request)),
            BeginOutcome::Locked(failure) => return Err(failure),
        }
        let row = sqlx::query(SNAPSHOT).fetch_one(&mut connection).await.map_err(failed)?;
        let snapshot = SnapshotPoint {
            time: row.try_get("time").map_err(failed)?,
            wal_position: row.try_get("wal_position").map_err(failed)?,
        };
        let backend = backend(&mut connection).await?;
        Ok((Source { connection, backend, since, open }, snapshot))
    }

    /// Begins a transaction under a snapshot that another one has exported. If that one is still there behind the lock,
    /// it was there all the time, and so was its own lock: the table has the form that it had when the snapshot was taken.
    pub(crate) async fn join(self, request: &ExportRequest, snapshot: &str) -> Result<Source, JoinError> {
        let Self { mut connection, since, open } = self;
        // What holds the snapshot also keeps the table from being dropped.
        match begin(&mut connection, format!("{JOIN_LOCK_TIMEOUT}; {}", lock(request))).await? {
            BeginOutcome::Open => {}
            BeginOutcome::NoTable => return Err(JoinError::SnapshotGone),
            BeginOutcome::Locked(failure) => return Err(JoinError::Locked(failure)),
        }
        let import = format!("SET TRANSACTION SNAPSHOT {}; {NO_LOCK_TIMEOUT}", quote_literal(snapshot));
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(import)).execute(&mut connection).await {
            return Err(match sqlstate(&error).as_deref() {
                // No such file, which PostgreSQL 17 says with a code of its own; or a file that a process left behind.
                Some("22023" | "42704" | "55000") => JoinError::SnapshotGone,
                _ => JoinError::Failed(failed(error)),
            });
        }
        let backend = backend(&mut connection).await?;
        Ok(Source { connection, backend, since, open })
    }
}

impl Source {
    /// A name under which other transactions can have the same snapshot, for as long as this one is open.
    pub(crate) async fn export_snapshot(&mut self) -> Result<String, Failure> {
        sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut self.connection).await.map_err(failed)
    }

    /// The partitions of the relation as they are now, whatever the snapshot is.
    pub(crate) async fn partitions(&mut self, request: &ExportRequest) -> Result<Vec<i64>, Failure> {
        // Found by a function, which looks into the catalog as it is; a query of the catalog's tables would see the snapshot.
        let partitions = "SELECT coalesce(array_agg(relid::oid::int8 ORDER BY relid::oid), '{}')
            FROM pg_partition_tree(to_regclass(format('%I.%I', $1::text, $2::text)))";
        sqlx::query_scalar(partitions)
            .bind(&request.relation.schema)
            .bind(&request.relation.name)
            .fetch_one(&mut self.connection)
            .await
            .map_err(failed)
    }

    /// Asks whether the session is still there.
    pub(crate) async fn ping(&mut self) -> Result<(), Failure> {
        self.run("SELECT 1").await
    }

    /// Ends the transaction, and lets go of the snapshot. The session is nobody's then: a name that it had may be looked for,
    /// to end what a dead worker left behind.
    pub(crate) async fn commit(mut self) -> Result<Connected, Failure> {
        self.run("COMMIT; SET application_name TO 'polyglot idle'").await?;
        Ok(Connected { connection: self.connection, since: self.since, open: self.open })
    }

    pub(crate) async fn run(&mut self, statement: &'static str) -> Result<(), Failure> {
        sqlx::raw_sql(statement).execute(&mut self.connection).await.map(drop).map_err(failed)
    }
}
