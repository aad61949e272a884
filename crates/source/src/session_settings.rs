//! The settings of a session on the source database that the text of a value depends on.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use crate::sql::quote_literal;

/// Resets a used connection to the state of a new one, and renames it. Otherwise settings that a view's function has made outlive
/// its transaction: a time zone, a role, a lock. Returns the session's process.
pub(crate) async fn reset_session_settings(
    connection: &mut PgConnection,
    application_name: &str,
) -> Result<i32, sqlx::Error> {
    let reset = format!(
        "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; SELECT pg_advisory_unlock_all(); SET application_name TO {}",
        quote_literal(application_name)
    );
    sqlx::raw_sql(AssertSqlSafe(reset)).execute(&mut *connection).await?;
    apply_session_settings(connection).await
}

/// Makes the settings, and returns the session's process.
pub(crate) async fn apply_session_settings(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    // A join with pg_settings, so that an old server skips settings it does not know. With client_connection_check_interval the
    // server notices a lost client during a long sort, instead of at the next row.
    let rows = sqlx::raw_sql(
        "SELECT pg_backend_pid() AS pid, set_config(name, value, false) FROM (VALUES
            ('TimeZone', 'UTC'), ('DateStyle', 'ISO, YMD'), ('IntervalStyle', 'iso_8601'),
            ('extra_float_digits', '1'), ('bytea_output', 'hex'), ('client_encoding', 'UTF8'),
            ('statement_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'),
            ('client_connection_check_interval', '1s'),
            -- A table without a key comes in the same order each time: no scan joins another in the middle.
            ('synchronize_seqscans', 'off'),
            -- Compiling the expressions of 1,600 columns takes longer than it can save.
            ('jit', 'off')
         ) AS wanted(name, value) JOIN pg_settings USING (name)",
    )
    .fetch_all(connection)
    .await?;
    // The server knows most of the settings, so there is a row.
    rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("pid")
}
