//! What the service's sessions do in the source database, as its server sees them.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

/// A measurement of this database user's sessions that the service has named, in this database. Its ledger's sessions are not
/// among them, nor the helpers of parallel plans. The session that measures counts as a session only.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SessionActivity {
    /// Number of sessions.
    pub sessions: i64,
    /// Age of the oldest transaction that holds a snapshot; 0 if there is none.
    pub oldest_snapshot_seconds: f64,
    /// Number of transactions that have begun in the server since the oldest one whose changes vacuum has to keep for a
    /// session; 0 if there is none.
    pub oldest_xmin_age: i64,
    /// Duration of the statement that has run for the longest time; 0 if there is none.
    pub longest_statement_seconds: f64,
}

/// Measures the sessions. Rows of the same user are visible without any privilege.
///
/// # Errors
/// When the database cannot be asked.
pub async fn session_activity(connection: &mut PgConnection) -> Result<SessionActivity, sqlx::Error> {
    let row = sqlx::query(
        "SELECT count(*) AS sessions,
                coalesce(max(extract(epoch FROM now() - xact_start)) FILTER (WHERE backend_xmin IS NOT NULL AND is_other), 0)::float8
                    AS oldest_snapshot,
                coalesce(max(age(backend_xmin)) FILTER (WHERE is_other), 0)::int8 AS oldest_xmin_age,
                coalesce(max(extract(epoch FROM now() - query_start)) FILTER (WHERE state = 'active' AND is_other), 0)::float8
                    AS longest_statement
         FROM (SELECT *, pid <> pg_backend_pid() AS is_other FROM pg_stat_activity
               WHERE application_name LIKE 'polyglot %' AND usename = current_user AND datname = current_database()
                 AND backend_type = 'client backend') AS ours",
    )
    .fetch_one(connection)
    .await?;
    Ok(SessionActivity {
        sessions: row.try_get("sessions")?,
        oldest_snapshot_seconds: row.try_get::<f64, _>("oldest_snapshot")?.max(0.0),
        oldest_xmin_age: row.try_get("oldest_xmin_age")?,
        longest_statement_seconds: row.try_get::<f64, _>("longest_statement")?.max(0.0),
    })
}
