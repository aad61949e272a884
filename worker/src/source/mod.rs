//! The first stage: rows out of PostgreSQL. One read-only transaction with one snapshot, one binary `COPY`, cut
//! into batches of whole rows. What the bytes mean is in the files beside this one; nothing is formatted here.

mod array;
mod numeric;
mod plan;
mod row;
mod value;
mod watch;

pub(crate) use array::Array;
pub(crate) use numeric::Numeric;
pub use plan::OutputColumn;
pub(crate) use plan::Plan;
pub(crate) use row::{FieldIndex, Found, Row, RowScanner};
pub(crate) use value::{Value, ValueError};
pub(crate) use watch::Watch;

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use polyglot_export::catalog::{self, CatalogError};
use polyglot_export::failure::{Failure, FailureKind};
use polyglot_export::manifest::SnapshotPoint;
use polyglot_export::request::ExportRequest;
use polyglot_export::source::{self, Backend, is_unavailable};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};
use tokio::sync::mpsc;

/// A batch is also cut at so many bytes, so that wide rows do not pile up between the stages.
const BATCH_BYTES: usize = 1 << 20;

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
        (FailureKind::SourceUnavailable, "The source database could not be reached or dropped the connection.")
    } else {
        (FailureKind::SourceRefused, "The source database refused to read the dataset.")
    };
    Failure::caused(kind, message, &error)
}

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
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
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
}

impl Source {
    /// Looks the relation up under the snapshot and decides what to read.
    pub(crate) async fn plan(&mut self, request: &ExportRequest, max_row_bytes: u64) -> Result<Plan, Failure> {
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
        Ok(plan)
    }

    /// Sends every row, then `End`. Returns early, without `End`, when the receiver is gone: it then has the
    /// error that matters.
    pub(crate) async fn read(
        mut self,
        plan: &Plan,
        max_rows: usize,
        to: mpsc::Sender<FromSource>,
    ) -> Result<(), Failure> {
        let malformed = |error: row::Malformed| {
            Failure::caused(FailureKind::Undecodable, "The source database sent data that cannot be read.", &error)
        };
        let mut scanner = RowScanner::default();
        let mut batch = BatchBuilder::new(max_rows);
        {
            let mut stream = self.connection.copy_out_raw(&plan.sql).await.map_err(failed)?;
            while let Some(message) = stream.try_next().await.map_err(failed)? {
                // A very wide row goes on as it came: its copies would be what takes the memory.
                if message.len() > BATCH_BYTES
                    && batch.bytes.len() == batch.scanned
                    && scanner.is_one_row(&message).map_err(malformed)?
                {
                    let before = (batch.rows > 0).then(|| batch.cut());
                    for batch in before.into_iter().chain([Batch { bytes: message, rows: 1 }]) {
                        if to.send(FromSource::Batch(batch)).await.is_err() {
                            return Ok(());
                        }
                    }
                    continue;
                }
                batch.bytes.extend_from_slice(&message);
                drop(message);
                while let Some(full) = batch.scan(&mut scanner).map_err(malformed)? {
                    if to.send(FromSource::Batch(full)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        if !scanner.is_complete() || batch.scanned < batch.bytes.len() {
            return Err(malformed(row::Malformed("it ended in the middle")));
        }
        if batch.rows > 0 && to.send(FromSource::Batch(batch.cut())).await.is_err() {
            return Ok(());
        }
        sqlx::raw_sql("COMMIT").execute(&mut self.connection).await.map_err(failed)?;
        // A receiver that is gone has the error that matters.
        to.send(FromSource::End).await.ok();
        Ok(())
    }
}

/// Bytes from the stream: whole rows up to `scanned`, and behind that what is not a whole row yet.
struct BatchBuilder {
    bytes: Vec<u8>,
    scanned: usize,
    rows: usize,
    max_rows: usize,
}

impl BatchBuilder {
    fn new(max_rows: usize) -> Self {
        Self { bytes: Vec::with_capacity(BATCH_BYTES + 64 * 1024), scanned: 0, rows: 0, max_rows }
    }

    /// Scans on, up to a full batch if there is one.
    fn scan(&mut self, scanner: &mut RowScanner) -> Result<Option<Batch>, row::Malformed> {
        loop {
            match scanner.next(&self.bytes[self.scanned..])? {
                Found::Row(length) => {
                    self.scanned += length;
                    self.rows += 1;
                    if self.rows >= self.max_rows || self.scanned >= BATCH_BYTES {
                        return Ok(Some(self.cut()));
                    }
                }
                // Header and trailer come first and last, so there is no row of this batch before the one and
                // none behind the other: cutting them out moves next to nothing.
                Found::Skip(length) => {
                    self.bytes.drain(self.scanned..self.scanned + length);
                }
                Found::Incomplete => return Ok(None),
            }
        }
    }

    fn cut(&mut self) -> Batch {
        let mut next = Vec::with_capacity(BATCH_BYTES + 64 * 1024);
        next.extend_from_slice(&self.bytes[self.scanned..]);
        let mut bytes = std::mem::replace(&mut self.bytes, next);
        bytes.truncate(self.scanned);
        self.scanned = 0;
        Batch { bytes: Bytes::from(bytes), rows: std::mem::take(&mut self.rows) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_whole_rows_and_no_larger_than_asked() {
        let row = |n: u8| [0, 1, 0, 0, 0, 1, n];
        let mut stream = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        (0..7).for_each(|n| stream.extend(row(n)));
        stream.extend([0xff, 0xff]);
        for piece in [1, 5, 1000] {
            let (mut scanner, mut builder, mut batches) = (RowScanner::default(), BatchBuilder::new(3), Vec::new());
            for chunk in stream.chunks(piece) {
                builder.bytes.extend_from_slice(chunk);
                while let Some(batch) = builder.scan(&mut scanner).unwrap() {
                    batches.push(batch);
                }
            }
            assert!(scanner.is_complete() && builder.scanned == builder.bytes.len());
            batches.push(builder.cut());
            assert_eq!(batches.iter().map(|batch| batch.rows).collect::<Vec<_>>(), [3, 3, 1]);
            let all: Vec<u8> = batches.iter().flat_map(|batch| batch.bytes.to_vec()).collect();
            assert_eq!(all, (0..7).flat_map(row).collect::<Vec<_>>());
        }
    }
}
