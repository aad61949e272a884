//! The transaction that an export is read in: it begins with a snapshot of its own or with one that another transaction
//! holds. Reading rows is in `copy_out`.

use std::time::Instant;

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::manifest::SnapshotPoint;
use polyglot_core::relation::{Relation, RelationKind};
use polyglot_core::request::ExportRequest;
use polyglot_source::session::Backend;
use polyglot_source::sql::quote_literal;
use polyglot_source::{
    ConnectionPermit, DatabaseUrl, FIX_SEARCH_PATH, SharedSessions, SourceConnection, set_local_role,
};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::source_failure::failed;

/// The name of sessions that no export uses.
const IDLE: &str = "polyglot idle";

/// A connection to the source, without a transaction.
pub(crate) struct Connected {
    connection: SourceConnection,
    /// Time at which it was established.
    pub(super) since: Instant,
    /// Whether it may be used for another export: no code that is not PostgreSQL's own has run in it.
    pub(super) is_reusable: bool,
}

/// An open transaction on the source, which holds its snapshot.
pub(crate) struct Source {
    pub(crate) connection: SourceConnection,
    pub backend: Backend,
    since: Instant,
    /// As of [`Connected`]. False until the relation is known.
    pub(super) is_reusable: bool,
}

/// The reason why a snapshot cannot be imported.
#[derive(Debug)]
pub(crate) enum JoinError {
    /// The transaction that exported the snapshot has ended.
    SnapshotGone,
    /// A change of the table's definition waits for its lock, and every new reader waits behind it.
    Locked(Failure),
    Failed(Failure),
}

impl From<Failure> for JoinError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The first statement of the transaction, which takes the snapshot.
const SNAPSHOT: &str = "
    SELECT to_char(statement_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS time,
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text
               AS wal_position";

/// The same where the position cannot be asked for.
const SNAPSHOT_WITHOUT_POSITION: &str = "
    SELECT to_char(statement_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS time,
           NULL::text AS wal_position";

const BACKEND: &str = "SELECT pg_backend_pid() AS pid, pg_postmaster_start_time()::text AS server_started";

/// Timeout of the lock of a joining transaction. A change of the table's definition that waits for the snapshot to end,
/// and so for this export, is ahead in the lock queue: waiting for it would never end.
const JOIN_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout TO '5s'";
const NO_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout TO DEFAULT";

/// The outcome of beginning a transaction.
enum BeginOutcome {
    Open,
    /// The table does not exist any more.
    NoTable,
    /// The lock was not available in time.
    Locked(Failure),
}

fn lock(request: &ExportRequest) -> String {
    format!("LOCK TABLE {} IN ACCESS SHARE MODE", polyglot_source::sql::quote_relation(&request.relation))
}

/// Returns the failure of a relation that does not exist any more.
pub(crate) fn relation_missing(request: &ExportRequest) -> Failure {
    let message = format!("The dataset {} is not there any more.", request.dataset);
    Failure::new(FailureKind::DatasetChanged, message, format!("no relation {}", request.relation))
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Begins the transaction. The lock comes before the snapshot: older snapshots do not see TRUNCATE and an ALTER TABLE
/// that rewrites, but find the table empty instead (PostgreSQL's manual, "Caveats" of MVCC). Once the lock is held, no
/// such change can begin, and none is under way.
async fn begin(
    connection: &mut PgConnection,
    request: &ExportRequest,
    settings: &str,
) -> Result<BeginOutcome, Failure> {
    // As the role that reads the rows, which need not be the session's.
    let role = request.grant.role.as_ref().map(|role| format!("; {}", set_local_role(role))).unwrap_or_default();
    let begin = format!("{BEGIN}{role}");
    // The name was found in the catalog when the export was accepted, and is quoted.
    let statements = AssertSqlSafe(format!("{begin}; {settings}{}", lock(request)));
    let Err(error) = sqlx::raw_sql(statements).execute(&mut *connection).await else { return Ok(BeginOutcome::Open) };
    match sqlstate(&error).as_deref() {
        // Neither a table nor a view: a materialized view, whose new rows every snapshot sees, or a foreign table.
        Some("42809") => {
            sqlx::raw_sql(AssertSqlSafe(format!("ROLLBACK; {begin}"))).execute(connection).await.map_err(failed)?;
            Ok(BeginOutcome::Open)
        }
        Some("42P01" | "3F000") => Ok(BeginOutcome::NoTable),
        Some("55P03") => Ok(BeginOutcome::Locked(failed(error))),
        _ => Err(failed(error)),
    }
}

/// As [`begin`], for who cannot go on without the lock.
async fn begin_locked(connection: &mut PgConnection, request: &ExportRequest) -> Result<(), Failure> {
    match begin(connection, request, "").await? {
        BeginOutcome::Open => Ok(()),
        BeginOutcome::NoTable => Err(relation_missing(request)),
        BeginOutcome::Locked(failure) => Err(failure),
    }
}

/// The process of the transaction's session, in which the session's settings have to have been made.
async fn backend(connection: &mut SourceConnection) -> Result<Backend, Failure> {
    let row = sqlx::query(BACKEND).fetch_one(&mut **connection).await.map_err(failed)?;
    let pid = row.try_get("pid").map_err(failed)?;
    if connection.pid() != Some(pid) {
        let message = "The source database is behind a pooler that gives each transaction another session.";
        return Err(Failure::caused(FailureKind::SourceRefused, message, &SharedSessions));
    }
    Ok(Backend { pid, server_started: row.try_get("server_started").map_err(failed)? })
}

impl Connected {
    /// Connects; `name` is the session's name in `pg_stat_activity`.
    pub(crate) async fn to(
        permit: ConnectionPermit,
        url: impl Into<DatabaseUrl>,
        name: &str,
    ) -> Result<Self, sqlx::Error> {
        let connection = SourceConnection::open(permit, url, name).await?;
        Ok(Self { connection, since: Instant::now(), is_reusable: true })
    }

    /// Prepares the connection for another export: resets the session's settings and sets its name.
    pub(super) async fn renew(&mut self, name: &str) -> Result<(), Failure> {
        self.connection.renew(name).await.map_err(failed)
    }

    /// Closes the connection.
    pub(super) fn close(self) {
        self.connection.close();
    }

    /// Locks the relation against changes of its definition and takes a snapshot.
    pub(crate) async fn begin(self, request: &ExportRequest) -> Result<(Source, SnapshotPoint), Failure> {
        let Self { mut connection, since, .. } = self;
        begin_locked(&mut connection, request).await?;
        let taken = sqlx::query(SNAPSHOT).fetch_one(&mut *connection).await;
        let row = match taken {
            // A role that may not call the functions (PUBLIC may unless somebody has revoked it), or a server that is
            // compatible with PostgreSQL but for its log. The position is for information; the rows do not depend on it.
            Err(error) if matches!(sqlstate(&error).as_deref(), Some("42501" | "0A000")) => {
                sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await.map_err(failed)?;
                begin_locked(&mut connection, request).await?;
                sqlx::query(SNAPSHOT_WITHOUT_POSITION).fetch_one(&mut *connection).await.map_err(failed)?
            }
            taken => taken.map_err(failed)?,
        };
        let snapshot = SnapshotPoint {
            time: row.try_get("time").map_err(failed)?,
            wal_position: row.try_get("wal_position").map_err(failed)?,
            // What the relation reads is looked at with the plan.
            promised: true,
        };
        let backend = backend(&mut connection).await?;
        Ok((Source { connection, backend, since, is_reusable: false }, snapshot))
    }

    /// Begins a transaction under a snapshot that another transaction has exported. If that transaction is still open
    /// after the lock was taken, it was open all the time, and so was its own lock: the table has the definition that
    /// it had when the snapshot was taken.
    pub(crate) async fn join(self, request: &ExportRequest, snapshot: &str) -> Result<Source, JoinError> {
        let Self { mut connection, since, .. } = self;
        // The transaction that holds the snapshot also keeps the table from being dropped.
        match begin(&mut connection, request, &format!("{JOIN_LOCK_TIMEOUT}; ")).await? {
            BeginOutcome::Open => {}
            BeginOutcome::NoTable => return Err(JoinError::SnapshotGone),
            BeginOutcome::Locked(failure) => return Err(JoinError::Locked(failure)),
        }
        let import = format!("SET TRANSACTION SNAPSHOT {}; {NO_LOCK_TIMEOUT}", quote_literal(snapshot));
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(import)).execute(&mut *connection).await {
            return Err(match sqlstate(&error).as_deref() {
                // The file of the snapshot does not exist, for which PostgreSQL 17 has a code of its own, or a process
                // that ended left it behind.
                Some("22023" | "42704" | "55000") => JoinError::SnapshotGone,
                _ => JoinError::Failed(failed(error)),
            });
        }
        let backend = backend(&mut connection).await?;
        Ok(Source { connection, backend, since, is_reusable: false })
    }
}

impl Source {
    /// Notes what the transaction reads, which decides whether its session may be used for another export. A table is locked, so
    /// it does not become another kind of relation, unless its schema is renamed and another takes its place; a materialized view
    /// cannot be locked. Code that comes in meanwhile, an index with code in it for instance, is what the check of a session that
    /// is used again is for.
    pub(crate) fn note_relation(&mut self, relation: &Relation) {
        self.is_reusable = !relation.runs_foreign_code && relation.kind != RelationKind::MaterializedView;
    }

    /// The connection for a statement with names that are looked up. Code of the relation that has run in the session may
    /// have changed the search path.
    pub(crate) async fn secured(&mut self) -> Result<&mut PgConnection, Failure> {
        if !self.is_reusable {
            self.run(FIX_SEARCH_PATH).await?;
        }
        Ok(&mut self.connection)
    }

    /// Exports the snapshot and returns the name under which other transactions can import it while this one is open.
    pub(crate) async fn export_snapshot(&mut self) -> Result<String, Failure> {
        sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(self.secured().await?).await.map_err(failed)
    }

    /// Returns the partitions of the relation as they are now, whatever the snapshot is.
    pub(crate) async fn partitions(&mut self, request: &ExportRequest) -> Result<Vec<i64>, Failure> {
        // A function reads the current catalog; a query of the catalog's tables would see the snapshot.
        let partitions = "SELECT coalesce(array_agg(relid::oid::int8 ORDER BY relid::oid), '{}')
            FROM pg_partition_tree(to_regclass(format('%I.%I', $1::text, $2::text)))";
        sqlx::query_scalar(partitions)
            .bind(&request.relation.schema)
            .bind(&request.relation.name)
            .fetch_one(self.secured().await?)
            .await
            .map_err(failed)
    }

    /// Checks that the session still answers.
    pub(crate) async fn ping(&mut self) -> Result<(), Failure> {
        self.run("SELECT 1").await
    }

    /// Ends the transaction and releases the snapshot. The session loses the export's name, because a cleanup may end
    /// all sessions that a dead worker left under that name.
    pub(crate) async fn commit(mut self) -> Result<Connected, Failure> {
        self.connection.commit(IDLE).await.map_err(failed)?;
        Ok(Connected { connection: self.connection, since: self.since, is_reusable: self.is_reusable })
    }

    /// Releases the snapshot by closing the connection. No statement may be running.
    pub(crate) fn close(self) {
        self.connection.close();
    }

    /// Runs a statement without a result.
    pub(crate) async fn run(&mut self, statement: &'static str) -> Result<(), Failure> {
        sqlx::raw_sql(statement).execute(&mut *self.connection).await.map(drop).map_err(failed)
    }
}
