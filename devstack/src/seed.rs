//! Fills the sample table `records` once. `seed/records.sql`, which psql can run as well, defines its rows.

use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor};

use crate::error::{Error, Result};

const SQL: &str = include_str!("../seed/records.sql");
/// Bytes of a row on disk without its index, for the estimate of the progress.
const BYTES_PER_ROW: u64 = 332;

/// Result of [`fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeded {
    /// The table was missing or empty and now has this many rows.
    Filled { rows: u64 },
    /// The table had this many rows already and was not changed.
    Kept { rows: u64 },
}

impl Seeded {
    /// The rows that the table has now.
    pub fn rows(self) -> u64 {
        match self {
            Self::Filled { rows } | Self::Kept { rows } => rows,
        }
    }
}

/// Creates `public.records` in the database at `url` where it is missing, and fills it with `rows` rows where it is empty.
///
/// All or nothing: an interrupted fill leaves no row.
pub async fn fill(url: &str, rows: u64) -> Result<Seeded> {
    fill_with_progress(url, rows, |_| {}).await
}

/// As [`fill`]; `progress` gets an estimate of the rows that are written, about twice a second.
pub async fn fill_with_progress(url: &str, rows: u64, mut progress: impl FnMut(u64)) -> Result<Seeded> {
    let options: PgConnectOptions = url.parse().map_err(Error::sql("read the database's URL"))?;
    let options = options.options([("seed.rows", rows.to_string())]);
    let mut connection =
        PgConnection::connect_with(&options).await.map_err(Error::sql("connect to seed the table records"))?;
    if holds_rows(&mut connection).await? {
        let rows = count(&mut connection).await?;
        let _ = connection.close().await;
        return Ok(Seeded::Kept { rows });
    }

    // Rows of an open transaction are invisible to other sessions, but the files of the database grow.
    let mut watcher = PgConnection::connect_with(&options).await.map_err(Error::sql("connect to watch the seeding"))?;
    let empty = database_bytes(&mut watcher).await?;
    {
        let work = run_sections(&mut connection);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => break done?,
                () = tokio::time::sleep(Duration::from_millis(500)) => {
                    let grown = database_bytes(&mut watcher).await?.saturating_sub(empty);
                    progress((grown / BYTES_PER_ROW).min(rows));
                }
            }
        }
    }
    let _ = watcher.close().await;
    let rows = count(&mut connection).await?;
    let _ = connection.close().await;
    Ok(Seeded::Filled { rows })
}

/// The rows of `public.records` in the database at `url`, and how long counting took.
pub async fn count_rows(url: &str) -> Result<(u64, Duration)> {
    let started = Instant::now();
    let mut connection =
        PgConnection::connect(url).await.map_err(Error::sql("connect to count the rows of records"))?;
    let rows = count(&mut connection).await?;
    let _ = connection.close().await;
    Ok((rows, started.elapsed()))
}

/// Whether `public.records` in the database at `url` has the five columns of the sample.
pub async fn has_sample_columns(url: &str) -> Result<bool> {
    let mut connection =
        PgConnection::connect(url).await.map_err(Error::sql("connect to inspect the table records"))?;
    let found: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('public.records') AND NOT attisdropped \
         AND attname IN ('id', 'created_at', 'name', 'value', 'metadata')",
    )
    .fetch_one(&mut connection)
    .await
    .map_err(Error::sql("inspect the table records"))?;
    let _ = connection.close().await;
    Ok(found == 5)
}

async fn run_sections(connection: &mut PgConnection) -> Result<()> {
    for (step, statements) in sections() {
        // VACUUM must be alone in its message, so each section is a message.
        connection.execute(statements).await.map_err(Error::sql(format!("seed the table records (step {step})")))?;
    }
    Ok(())
}

/// The sections of the file, which begin at a line `-- step: NAME`.
fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    SQL.split("\n-- step: ").skip(1).filter_map(|section| section.split_once('\n'))
}

async fn holds_rows(connection: &mut PgConnection) -> Result<bool> {
    let action = "check whether the table records is empty";
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('public.records') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(Error::sql(action))?;
    if !exists {
        return Ok(false);
    }
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM public.records)")
        .fetch_one(connection)
        .await
        .map_err(Error::sql(action))
}

async fn count(connection: &mut PgConnection) -> Result<u64> {
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM public.records")
        .fetch_one(connection)
        .await
        .map_err(Error::sql("count the rows of records"))?;
    Ok(rows.unsigned_abs())
}

async fn database_bytes(connection: &mut PgConnection) -> Result<u64> {
    let bytes: i64 = sqlx::query_scalar("SELECT pg_database_size(current_database())")
        .fetch_one(connection)
        .await
        .map_err(Error::sql("watch the seeding"))?;
    Ok(bytes.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_its_sections() {
        let names: Vec<_> = sections().map(|(name, _)| name).collect();
        assert_eq!(names, ["settings", "fill", "statistics"]);
        assert!(
            sections().all(|(_, statements)| !statements.lines().any(|line| line.starts_with('\\'))),
            "no psql commands"
        );
    }
}
