//! Errors of the devstack, worded for the person at the terminal. Retries and exit codes are decided elsewhere.

use std::io;
use std::path::{Path, PathBuf};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the devstack. `Display` says what was tried; the cause is the source and never part of the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An environment variable has an unusable value.
    #[error("{variable}: {problem}")]
    Config { variable: &'static str, problem: String },

    /// A program or a file that has to be installed or built first is missing.
    #[error("{what} not found: {advice}")]
    Missing { what: String, advice: String },

    /// The state of the machine or of the data folder does not allow it.
    #[error("{0}")]
    Refused(String),

    /// A server or program that was started failed.
    #[error("{name} {problem}{}", describe_tail(log.as_deref(), tail))]
    Process { name: String, problem: String, log: Option<PathBuf>, tail: String },

    /// A call to the operating system failed.
    #[error("cannot {action}")]
    Io {
        action: String,
        #[source]
        source: io::Error,
    },

    /// PostgreSQL refused a statement or a connection.
    #[error("cannot {action}")]
    Sql {
        action: String,
        #[source]
        source: sqlx::Error,
    },

    /// An HTTP request failed.
    #[error("cannot {action}")]
    Http {
        action: String,
        #[source]
        source: reqwest::Error,
    },

    /// The sample export failed, or its file is not as expected.
    #[error("the sample export {0}")]
    Sample(String),
}

impl Error {
    /// For `map_err`: `Error::io("open the file")` reads "cannot open the file".
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    pub(crate) fn path(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(format!("{verb} {}", path.display()))
    }

    pub(crate) fn sql(action: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let action = action.into();
        move |source| Self::Sql { action, source }
    }

    pub(crate) fn http(action: impl Into<String>) -> impl FnOnce(reqwest::Error) -> Self {
        let action = action.into();
        move |source| Self::Http { action, source }
    }

    pub(crate) fn config(variable: &'static str, problem: impl Into<String>) -> Self {
        Self::Config { variable, problem: problem.into() }
    }

    /// The message and every cause, a cause a line.
    pub fn with_causes(&self) -> String {
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            let text = source.to_string();
            if !message.ends_with(&text) {
                message.push_str("\n  because: ");
                message.push_str(&text);
            }
            cause = source.source();
        }
        message
    }
}

fn describe_tail(log: Option<&Path>, tail: &str) -> String {
    match log {
        Some(log) if tail.trim().is_empty() => format!(" (its log {} is empty)", log.display()),
        Some(log) => format!("; the end of {}:\n{}", log.display(), indent(tail)),
        None => String::new(),
    }
}

/// Marks the lines of another program's log.
pub(crate) fn indent(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_the_message() {
        let error = Error::io("open the file")(io::Error::other("no such file"));
        assert_eq!(error.to_string(), "cannot open the file");
        assert_eq!(error.with_causes(), "cannot open the file\n  because: no such file");
    }
}
