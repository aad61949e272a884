//! The first stage: rows out of PostgreSQL, in a read-only transaction with a snapshot of its own or one that another
//! transaction has exported. How they are read, where they are cut and what the bytes mean is in the files beside this
//! one; nothing is formatted here.

mod calibrate;
mod cut;
mod idle;
mod key;
mod open;
mod plan;
mod read;
mod sample;
#[cfg(test)]
mod shapes;
mod transaction;
mod watch;
mod weight;

pub(crate) use cut::{Cut, Range};
pub(crate) use idle::Idle;
pub(crate) use open::open_connections;
pub(crate) use plan::Plan;
pub(crate) use transaction::{JoinError, Source};
pub(crate) use watch::Watch;

use bytes::Bytes;
use polyglot_core::failure::{Failure, FailureKind};
use polyglot_source::session::is_unavailable;

/// The relation's name inside a statement.
const ALIAS: &str = "r";

/// A column of the relation inside a statement.
fn qualified(column: &str) -> String {
    format!("{ALIAS}.{}", polyglot_source::sql::quote_identifier(column))
}

/// Of a failure that may pass, in words for the user.
pub(crate) const LOST: &str = "The source database could not be reached or dropped the connection.";

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

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn failed(error: sqlx::Error) -> Failure {
    let (kind, message) = if is_unavailable(&error) {
        (FailureKind::SourceUnavailable, LOST)
    } else {
        (FailureKind::SourceRefused, "The source database refused to read the dataset.")
    };
    Failure::caused(kind, message, &error)
}
