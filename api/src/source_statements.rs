//! Statements on the relation of a dataset: plans, the first rows, the number of rows. They may run code of whoever owns the
//! relation (a view's function, an index expression that the planner computes), so each runs in a read-only transaction that is
//! rolled back, and in a session that nobody else uses afterwards unless it is certain that no such code has run.

use std::sync::Arc;
use std::time::Duration;

use polyglot_core::failure::chain;
use polyglot_source::sql::quote_relation;
use polyglot_source::{
    ConnectionLimit, DatabaseUrl, FIX_SEARCH_PATH, SourceConnection, foreign_code_query, session, set_local_role,
    tainted_session,
};
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, Postgres, Row};
use uuid::Uuid;

use crate::dataset_config::Dataset;
use crate::problem::{Dependency, RouteError};
use crate::resolved_dataset::ResolvedDataset;
use crate::source::Source;
use crate::timeout;

/// Time limit of planning. The limit of the pool's sessions for locks is shorter.
const PLAN_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit of the statement that reads the rows of a preview.
const PREVIEW_TIMEOUT: Duration = Duration::from_secs(3);

/// The server's refusal of a statement, for a reason that the client may have caused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) sql_state: String,
}

/// The server's estimate for a query.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Estimate {
    /// `None`: the server was not asked.
    pub(crate) rows: Option<u64>,
    /// Total cost, in the units of the server's settings (`seq_page_cost` is one).
    pub(crate) cost: Option<f64>,
}

impl Estimate {
    /// Reads the first line of what `EXPLAIN` returns, such as `Seq Scan on t  (cost=0.00..2.75 rows=25 width=0)`.
    fn of(line: &str) -> Self {
        // A relation may have a name like this too, and it comes before.
        let Some((before, after)) = line.rsplit_once(" rows=") else { return Self::default() };
        let rows = after.split(' ').next().and_then(|rows| rows.parse().ok());
        let cost = before.rsplit_once("..").and_then(|(_, cost)| cost.parse().ok());
        Self { rows, cost }
    }
}

impl Source {
    /// Has the server plan `statements` (separated by semicolons) in one read-only transaction and one round trip. The inner
    /// result is the server's verdict; a failure that no client can have caused is an error.
    pub(crate) async fn plan(
        &self,
        resolved: &ResolvedDataset,
        statements: &str,
    ) -> Result<Result<Estimate, Refused>, RouteError> {
        self.check_role().await?;
        match self.run(resolved, PLAN_TIMEOUT, statements).await {
            Ok(lines) => Ok(Ok(Estimate::of(lines.first().and_then(|line| line.try_get(0).ok()).unwrap_or_default()))),
            Err(error) => refusal(&resolved.dataset.name, error).map(Err),
        }
    }

    /// Reads the rows of `statement`, which returns few rows of records with short values.
    ///
    /// # Errors
    /// [`RouteError::PreviewTooSlow`], also if other previews kept this one from starting in time;
    /// [`RouteError::PreviewFailed`] if the server fails at a row.
    pub(crate) async fn first_rows(
        &self,
        resolved: &ResolvedDataset,
        statement: &str,
    ) -> Result<Vec<PgRow>, RouteError> {
        self.check_role().await?;
        let read = async {
            let _permit = Arc::clone(&self.preview_permits).acquire_owned().await.map_err(|_| RouteError::Stopping)?;
            let rows = self.run(resolved, PREVIEW_TIMEOUT, statement).await;
            rows.map_err(|error| preview_error(&resolved.dataset.name, error))
        };
        // The server's own limit ends the statement first, unless the wait for a permit or a connection was long, or code of
        // the relation goes on in spite of it.
        tokio::time::timeout(PREVIEW_TIMEOUT + PREVIEW_TIMEOUT / 2, Box::pin(read))
            .await
            .unwrap_or(Err(RouteError::PreviewTooSlow))
    }

    /// Counts the rows of a dataset, without a time limit. Dropping the future ends the session.
    pub(crate) async fn count(&self, dataset: &Dataset) -> Result<u64, RouteError> {
        self.check_role().await?;
        let opening = async { SourceConnection::open(self.limit.acquire().await, &self.url, "polyglot count").await };
        let mut connection = timeout::source(opening).await?;
        // The name is the operator's, from the configuration, and quoted.
        let statement = format!("SELECT pg_catalog.count(*) AS rows FROM {}", quote_relation(&dataset.relation));
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut *connection).await?;
        connection.close();
        Ok(rows.unsigned_abs())
    }

    /// Runs statements on the relation, and returns the rows of all of them.
    async fn run(
        &self,
        resolved: &ResolvedDataset,
        limit: Duration,
        statements: &str,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let relation = &resolved.relation;
        let role = resolved.dataset.policy.role().map(|role| format!("; {}", set_local_role(role))).unwrap_or_default();
        // Several statements in one message are a transaction that ends with the message, even if this future is dropped. The
        // rollback undoes the settings that code of the relation makes for the session. The server warns that no transaction
        // has been begun, because these statements are an implicit one. Names in them are quoted identifiers, values are
        // quoted literals; `sql` of the crate `source` makes them.
        let begin = format!(
            "SET TRANSACTION READ ONLY; SET LOCAL client_min_messages TO error; {FIX_SEARCH_PATH};
             SET LOCAL lock_timeout TO '1s'; SET LOCAL statement_timeout TO '{}ms'{role}",
            limit.as_millis()
        );
        let apart = format!("{begin}; {statements}; ROLLBACK");
        if relation.runs_foreign_code {
            return self.run_apart(apart, limit).await;
        }
        // The catalog is asked again behind the statements, which have locked the relation: an index with code in it that was
        // created before they were planned cannot have been dropped before the question. A statistics object can, and so the
        // session is looked at as well: code of the relation may have put statements into the place of the driver's own.
        let question = foreign_code_query(&relation.name);
        let connection = self.pool.acquire().await?;
        let name = format!("polyglot catalog {}", Uuid::new_v4().simple());
        let statement = format!(
            "{begin}; SET LOCAL application_name TO '{name}'; {statements}; {FIX_SEARCH_PATH}; {question}; ROLLBACK;
             SELECT pg_catalog.pg_advisory_unlock_all(); SELECT {} AS is_tainted",
            tainted_session(connection.cached_statements_size())
        );
        // In a task of its own: if this future is dropped, the connection returns to the pool only when the server is done
        // with the statement.
        let ended = EndSession { url: self.url.clone(), limit: self.limit.clone(), name };
        let running = run_in_pool(connection, statement, limit + limit / 4, ended);
        let result = tokio::spawn(running).await.unwrap_or(Err(sqlx::Error::WorkerCrashed));
        match result {
            // A view or a foreign table has taken the place of the table that was looked up a moment ago, and the sessions of
            // the pool refuse it (object_not_in_prerequisite_state).
            Err(error) if is_refused_in_pool(&error) => self.run_apart(apart, limit).await,
            result => result,
        }
    }

    /// Runs a statement in a session of its own. If it takes longer than its limit, because code of the relation has caught
    /// the cancellation, or if this future is dropped, another session has the server end this one.
    async fn run_apart(&self, statement: String, limit: Duration) -> Result<Vec<PgRow>, sqlx::Error> {
        let permit = self.limit.acquire().await;
        let mut connection = SourceConnection::open(permit, &self.url, "polyglot plan").await?;
        let running = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(&mut *connection);
        let result = tokio::time::timeout(limit + limit / 4, running).await;
        match result {
            Ok(result) => {
                connection.close();
                result
            }
            Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
        }
    }
}

/// Whether the server refused a statement for the state of an object, as `restrict_nonsystem_relation_kind` has it refuse views.
fn is_refused_in_pool(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "55000")
}

/// What it takes to end a session of the pool.
struct EndSession {
    url: DatabaseUrl,
    limit: ConnectionLimit,
    /// Its `application_name` while it runs the statement.
    name: String,
}

impl EndSession {
    /// Has the server end the session. Where code of the relation has renamed it, the server ends it when it notices that its
    /// client is gone.
    async fn end(self) {
        let permit = self.limit.acquire_control().await;
        if let Err(error) = session::end_sessions(permit, &self.url, &[self.name]).await {
            tracing::warn!(error = chain(&error), "a session that does not end could not be ended");
        }
    }
}

/// Runs a statement whose last rows say whether foreign code may have run, and whether it has left something in the session. The
/// connection returns to the pool only if that is certainly not so; a statement that failed has no such rows, and one that goes on
/// after its limit has caught the cancellation.
async fn run_in_pool(
    mut connection: PoolConnection<Postgres>,
    statement: String,
    limit: Duration,
    session: EndSession,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let running = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(&mut *connection);
    let Ok(mut result) = tokio::time::timeout(limit, running).await else {
        // The pool gets another connection instead.
        drop(connection.detach());
        session.end().await;
        return Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    };
    if !result.as_mut().is_ok_and(is_clean) {
        // Whoever waits for the rows need not wait for the end of the session.
        tokio::spawn(connection.close());
    }
    result
}

/// Takes the rows about the session off the end, and says whether it may be used again.
fn is_clean(rows: &mut Vec<PgRow>) -> bool {
    let mut answer = |column: &str| {
        let answer = rows.last().map(|row| row.try_get::<bool, _>(column))?;
        rows.pop();
        answer.ok()
    };
    let is_tainted = answer("is_tainted");
    // Of the locks, which is no answer.
    answer("pg_advisory_unlock_all");
    let runs_foreign_code = answer("runs_foreign_code");
    is_tainted == Some(false) && runs_foreign_code == Some(false)
}

/// The columns of a row, all of type text.
/// The problem of a preview whose statement failed. Reading rows runs the expressions of a view, which may fail in any way.
fn preview_error(dataset: &str, error: sqlx::Error) -> RouteError {
    if matches!(&error, sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut) {
        return RouteError::PreviewTooSlow;
    }
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(String::from);
    match (code, refusal(dataset, error)) {
        (Some(code), _) if code == "57014" => RouteError::PreviewTooSlow,
        (_, Ok(Refused { sql_state })) | (Some(sql_state), Err(RouteError::Internal(_))) => {
            RouteError::PreviewFailed { sql_state }
        }
        (_, Err(error)) => error,
    }
}

/// The refusal of a statement if the client may have caused it, else the problem.
fn refusal(dataset: &str, error: sqlx::Error) -> Result<Refused, RouteError> {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(String::from);
    match code.as_deref() {
        // lock_not_available: a relation below a view, or one that was locked after it was looked up.
        Some("55P03") => Err(RouteError::DatasetLocked { dataset: dataset.to_owned() }),
        // query_canceled: the statement has reached its time limit.
        Some("57014") => Err(RouteError::Unavailable { what: Dependency::Source, source: Box::new(error) }),
        // No permission; or the relation, its schema or a column was dropped after it was looked up.
        Some("42501" | "42P01" | "3F000" | "42703") => {
            Err(RouteError::DatasetUnavailable { dataset: dataset.to_owned(), source: Box::new(error) })
        }
        // Bad data, a violated domain, an operator or type that does not exist, an operation that a type does not have.
        Some(code) if ["22", "23", "42", "0A"].iter().any(|class| code.starts_with(class)) => {
            tracing::debug!(dataset, error = chain(&error), "PostgreSQL refused a filter or an order");
            Ok(Refused { sql_state: code.to_owned() })
        }
        _ => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_cost_are_read_from_the_plan() {
        let rows = |line| Estimate::of(line).rows;
        assert_eq!(rows("Seq Scan on records r  (cost=0.00..2.75 rows=25 width=0)"), Some(25));
        assert_eq!(
            rows("Seq Scan on \"a rows=7 b\" r  (cost=0.00..2.75 rows=8000000000 width=12)"),
            Some(8_000_000_000)
        );
        assert_eq!(rows("Seq Scan on records r"), None);
        assert_eq!(rows(""), None);
        let cost = |line| Estimate::of(line).cost;
        assert_eq!(
            cost("Seq Scan on \"a..1 rows=7 b\" r  (cost=0.15..1234567.25 rows=25 width=0)"),
            Some(1_234_567.25)
        );
        assert_eq!(cost("Seq Scan on records r"), None);
    }
}
