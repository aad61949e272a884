//! The settings of a session on the source database: those that the meaning of a name and the text of a value depend on.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};

use crate::sql::quote_literal;

/// Has names mean what PostgreSQL has built in, and nothing that somebody has created: `pg_catalog` comes first, temporary tables
/// come last, and there is no other schema. The statement itself names nothing that is looked up, so it is safe as the first one of
/// a session, whatever `ALTER ROLE … SET search_path` says, and after foreign code has run. A startup parameter would do the same,
/// but poolers refuse parameters that they do not know.
pub const FIX_SEARCH_PATH: &str = "SET search_path TO pg_catalog, pg_temp";

/// A condition on the session: whether code of a relation has left something in it. `prepared` is how many statements the driver has
/// prepared: code that has deallocated one of these, or put another in its place, cannot make one of the driver's kind.
#[must_use]
pub fn tainted_session(prepared: usize) -> String {
    format!(
        "pg_catalog.pg_my_temp_schema() <> 0
         OR EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)
         OR (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_statements WHERE NOT from_sql) <> {prepared}
         OR EXISTS (SELECT FROM pg_catalog.pg_cursors)
         OR EXISTS (SELECT FROM pg_catalog.pg_listening_channels())"
    )
}

/// Resets a used connection to the state of a new one, and renames it. Only a session in which no foreign code has run is used
/// again; that nothing of such code is left is checked all the same, because a session is not asked but told what its relation
/// runs. Returns the session's process.
pub(crate) async fn reset_session_settings(
    connection: &mut PgConnection,
    application_name: &str,
) -> Result<i32, sqlx::Error> {
    let reset = format!(
        "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; {FIX_SEARCH_PATH}; SET application_name TO {};
         SELECT pg_catalog.pg_advisory_unlock_all();
         SELECT {} AS is_tainted",
        quote_literal(application_name),
        tainted_session(connection.cached_statements_size())
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(reset)).fetch_all(&mut *connection).await?;
    let is_tainted = rows.last().map_or(Ok(true), |row| row.try_get("is_tainted"))?;
    if is_tainted {
        return Err(sqlx::Error::Protocol("code of the source database has left something in the session".to_owned()));
    }
    apply_session_settings(connection).await
}

/// Makes the settings, and returns the session's process.
pub(crate) async fn apply_session_settings(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    // A join with pg_settings, so that an old server skips settings it does not know. With client_connection_check_interval the
    // server notices a lost client during a long sort, instead of at the next row.
    let settings = format!(
        "{FIX_SEARCH_PATH};
         SELECT pg_catalog.pg_backend_pid() AS pid, pg_catalog.set_config(name, value, false) FROM (VALUES
            -- No code that a relation brings along can write by the service's rights.
            ('default_transaction_read_only', 'on'),
            ('TimeZone', 'UTC'), ('DateStyle', 'ISO, YMD'), ('IntervalStyle', 'iso_8601'),
            ('extra_float_digits', '1'), ('bytea_output', 'hex'), ('client_encoding', 'UTF8'),
            ('statement_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'),
            ('client_connection_check_interval', '1s'),
            -- A table without a key comes in the same order each time: no scan joins another in the middle.
            ('synchronize_seqscans', 'off'),
            -- Compiling the expressions of 1,600 columns takes longer than it can save.
            ('jit', 'off')
         ) AS wanted(name, value) JOIN pg_catalog.pg_settings USING (name)"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(settings)).fetch_all(connection).await?;
    // The server knows most of the settings, so there is a row.
    rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("pid")
}

/// What every connection to the source has beside its URL. The driver logs statements that take a second, and those on the source have
/// values of filters in them. Its startup parameter `extra_float_digits` is one that poolers refuse; [`apply_session_settings`]
/// sets it.
pub(crate) fn with_source_options(options: PgConnectOptions) -> PgConnectOptions {
    options.disable_statement_logging().extra_float_digits(None)
}
