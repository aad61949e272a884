//! The first stage: rows out of PostgreSQL. A read-only transaction with its snapshot, and perhaps a second one with the
//! same. How they are read, and what the bytes mean, is in the files beside this one; nothing is formatted here.

mod array;
mod cut;
mod numeric;
mod plan;
mod read;
mod row;
mod value;
mod watch;

pub(crate) use array::Array;
pub(crate) use cut::Range;
pub(crate) use numeric::Numeric;
pub use plan::OutputColumn;
pub(crate) use plan::Plan;
pub(crate) use read::{Reader, read_all};
pub(crate) use row::{FieldIndex, Found, Row, RowScanner};
pub(crate) use value::{Value, ValueError};
pub(crate) use watch::Watch;

use std::time::Duration;

use bytes::Bytes;
use polyglot_export::catalog::{self, CatalogError};
use polyglot_export::failure::{Failure, FailureKind};
use polyglot_export::manifest::SnapshotPoint;
use polyglot_export::request::ExportRequest;
use polyglot_export::selection;
use polyglot_export::source::{self, Backend, is_unavailable};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

/// The relation's name inside a statement.
const ALIAS: &str = "r";

/// A column of the relation inside a statement.
fn qualified(column: &str) -> String {
    format!("{ALIAS}.{}", catalog::quote_identifier(column))
}

/// Of a failure that may pass, in words for the user.
const LOST: &str = "The source database could not be reached or dropped the connection.";

/// Whole rows, one after the other as they came.
#[derive(Debug)]
pub(crate) struct Batch {
    pub bytes: Bytes,
    pub rows: usize,
}

/// What the source sends down the pipeline. A channel that closes without `End` was cut off.
#[derive(Debug)]
pub(crate) enum FromSource {
    Batch(Batch),
    End,
}

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the source, and soon a transaction.
pub(crate) struct Connected(PgConnection);

/// An open transaction on the source, holding its snapshot.
pub(crate) struct Source {
    connection: PgConnection,
    pub snapshot: SnapshotPoint,
    pub backend: Backend,
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn failed(error: sqlx::Error) -> Failure {
    let (kind, message) = if is_unavailable(&error) {
        (FailureKind::SourceUnavailable, LOST)
    } else {
        (FailureKind::SourceRefused, "The source database refused to read the dataset.")
    };
    Failure::caused(kind, message, &error)
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The first statement of the transaction, and so the one that takes the snapshot.
const SNAPSHOT: &str = "
    SELECT to_char(statement_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS time,
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text
               AS wal_position,
           pg_backend_pid() AS pid, pg_postmaster_start_time()::text AS server_started";

/// Begins the transaction. The lock comes before the snapshot: TRUNCATE and an ALTER TABLE that rewrites are not seen
/// by older snapshots, which find the table empty instead (PostgreSQL's manual, "Caveats" of MVCC). Behind the lock no
/// such change can come, and one that was under way has ended.
async fn begin(connection: &mut PgConnection, request: &ExportRequest) -> Result<(), Failure> {
    let lock = format!("{BEGIN}; LOCK TABLE {} IN ACCESS SHARE MODE", catalog::quote_relation(&request.relation));
    // The name was found in the catalog when the export was accepted, and is quoted.
    let Err(error) = sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *connection).await else { return Ok(()) };
    match error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
        // No table or view: a materialized view, whose new rows every snapshot sees, or a foreign table.
        Some("42809") => {
            sqlx::raw_sql(AssertSqlSafe(format!("ROLLBACK; {BEGIN}"))).execute(connection).await.map_err(failed)?;
            Ok(())
        }
        Some("42P01" | "3F000") => Err(gone(request)),
        _ => Err(failed(error)),
    }
}

fn gone(request: &ExportRequest) -> Failure {
    let message = format!("The dataset {} is not there any more.", request.dataset);
    Failure::new(FailureKind::DatasetChanged, message, format!("no relation {}", request.relation))
}

impl Connected {
    /// Connects; `name` is the session's in `pg_stat_activity`.
    pub(crate) async fn to(url: &str, name: &str) -> Result<Self, Failure> {
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, source::connect(url, name)).await;
        let silent = |_| failed(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
        Ok(Self(connection.map_err(silent)?.map_err(failed)?))
    }

    /// Locks the relation against changes of its form and takes the snapshot.
    pub(crate) async fn begin(self, request: &ExportRequest) -> Result<Source, Failure> {
        let mut connection = self.0;
        begin(&mut connection, request).await?;
        let row = sqlx::query(SNAPSHOT).fetch_one(&mut connection).await.map_err(failed)?;
        let snapshot = SnapshotPoint {
            time: row.try_get("time").map_err(failed)?,
            wal_position: row.try_get("wal_position").map_err(failed)?,
        };
        let backend = Backend {
            pid: row.try_get("pid").map_err(failed)?,
            server_started: row.try_get("server_started").map_err(failed)?,
        };
        Ok(Source { connection, snapshot, backend })
    }

    /// Begins a transaction under a snapshot that another one has exported and still holds.
    async fn join(self, snapshot: &str) -> Result<Reader, Failure> {
        let mut connection = self.0;
        let begin = format!("{BEGIN}; SET TRANSACTION SNAPSHOT {}", selection::quote_literal(snapshot));
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await.map_err(failed)?;
        Ok(Reader { connection })
    }
}

impl Source {
    /// Looks the relation up under the snapshot and decides what to read, and in which ranges.
    pub(crate) async fn plan(
        &mut self,
        request: &ExportRequest,
        max_row_bytes: u64,
        readers: u8,
    ) -> Result<(Plan, Vec<Range>), Failure> {
        let relation =
            catalog::describe(&mut self.connection, &request.relation).await.map_err(|error| match error {
                CatalogError::NoSuchRelation(_) => gone(request),
                CatalogError::Database(error) => failed(error),
            })?;
        let plan = Plan::of(&relation, request, max_row_bytes)?;
        if !plan.order.total {
            // Which worker of a parallel scan is first would be chance.
            sqlx::raw_sql("SET LOCAL max_parallel_workers_per_gather TO 0")
                .execute(&mut self.connection)
                .await
                .map_err(failed)?;
        }
        let ranges = match &plan.key {
            Some(key) if readers > 1 => key.cut(&mut self.connection, &relation).await?,
            _ => vec![Range::default()],
        };
        Ok((plan, ranges))
    }

    /// A second transaction that sees the same rows; `None` if there is no connection to be had for it, which only
    /// makes the export slower.
    pub(crate) async fn second(&mut self, url: &str, name: &str) -> Result<Option<Reader>, Failure> {
        let snapshot: String =
            sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut self.connection).await.map_err(failed)?;
        match Connected::to(url, name).await {
            Ok(connected) => connected.join(&snapshot).await.map(Some),
            Err(failure) => {
                tracing::warn!(detail = failure.detail, "no second connection, the export is read on one");
                Ok(None)
            }
        }
    }

    pub(crate) fn into_reader(self) -> Reader {
        Reader { connection: self.connection }
    }
}
