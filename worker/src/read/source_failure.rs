//! The failures that errors of the source's driver become. A client is told the SQLSTATE and what it means; the server's own words,
//! which may quote a value, are the detail for the operator.

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_source::session::is_unavailable;
use polyglot_source::sql_state;

/// The message for clients about a failure of the source that may be temporary, where no server has answered.
pub(crate) const LOST: &str = "The source database could not be reached or dropped the connection.";

/// Returns the failure of an error of the driver.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(crate) fn failed(error: sqlx::Error) -> Failure {
    failure(&error, "")
}

/// Returns the failure of an error that came when `rows` rows had been read; `rows_of` is what they belong to, for example
/// `the export`, and `last` the key of the last one, where it is known. PostgreSQL sends what it has before it sends an error, so the failure is in one of the rows behind them, or, where
/// the rows are sorted first, in any row.
pub(crate) fn failed_after(error: &sqlx::Error, rows: u64, rows_of: &str, last: Option<String>) -> Failure {
    let place = match rows {
        0 => format!(", before the first row of {rows_of}"),
        1 => format!(", after 1 row of {rows_of}"),
        _ => format!(", after {rows} rows of {rows_of}"),
    };
    let last = match last {
        Some(key) if rows == 1 => format!(" ({key})"),
        Some(key) => format!(", the last of which is {key}"),
        None => String::new(),
    };
    failure(error, &(place + &last))
}

fn failure(error: &sqlx::Error, place: &str) -> Failure {
    let unavailable = is_unavailable(error);
    let kind = if unavailable { FailureKind::SourceUnavailable } else { FailureKind::SourceRefused };
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    let message = match (code, unavailable) {
        (Some(code), _) => {
            let could_not = if unavailable { "could not read" } else { "refused to read" };
            format!(
                "The source database {could_not} the dataset: {} (SQLSTATE {code}){place}.",
                sql_state::meaning(&code)
            )
        }
        (None, true) => LOST.to_owned(),
        (None, false) => "The source database refused to read the dataset.".to_owned(),
    };
    Failure::caused(kind, message, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error of a server, as the driver has it.
    #[derive(Debug)]
    struct Refusal(&'static str);

    impl std::fmt::Display for Refusal {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the words of the server")
        }
    }

    impl std::error::Error for Refusal {}

    impl sqlx::error::DatabaseError for Refusal {
        fn message(&self) -> &'static str {
            "the words of the server"
        }
        fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
            Some(self.0.into())
        }
        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }
        fn kind(&self) -> sqlx::error::ErrorKind {
            sqlx::error::ErrorKind::Other
        }
    }

    fn refusal(code: &'static str) -> sqlx::Error {
        sqlx::Error::Database(Box::new(Refusal(code)))
    }

    #[test]
    fn a_client_is_told_the_code_and_the_place_but_not_the_server_s_words() {
        for (rows, last, place) in [
            (0, None, "before the first row of shard 2"),
            (1, None, "after 1 row of shard 2"),
            (1, Some("id 7"), "after 1 row of shard 2 (id 7)"),
            (41, None, "after 41 rows of shard 2"),
            (41, Some("id 47"), "after 41 rows of shard 2, the last of which is id 47"),
        ] {
            let failure = failed_after(&refusal("22012"), rows, "shard 2", last.map(str::to_owned));
            assert_eq!(failure.kind, FailureKind::SourceRefused);
            let expected = format!(
                "The source database refused to read the dataset: a division by zero (SQLSTATE 22012), {place}."
            );
            assert_eq!(failure.message, expected);
            assert!(failure.detail.contains("the words of the server"), "{}", failure.detail);
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_says_what_it_is() {
        for code in ["08001", "HV00N"] {
            let failure = failed(refusal(code));
            assert_eq!(failure.kind, FailureKind::SourceUnavailable);
            assert_eq!(
                failure.message,
                format!(
                    "The source database could not read the dataset: a server that the dataset reads from cannot be reached \
                     (SQLSTATE {code})."
                )
            );
        }
        assert_eq!(failed(refusal("28P01")).kind, FailureKind::SourceUnavailable);
        assert_eq!(failed(sqlx::Error::PoolTimedOut).message, LOST);
    }
}
