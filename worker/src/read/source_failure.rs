//! What an error of the source's driver means for an export.

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_source::session::is_unavailable;

/// Of a failure that may pass, in words for the user.
pub(crate) const LOST: &str = "The source database could not be reached or dropped the connection.";

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(crate) fn failed(error: sqlx::Error) -> Failure {
    let (kind, message) = if is_unavailable(&error) {
        (FailureKind::SourceUnavailable, LOST)
    } else {
        (FailureKind::SourceRefused, "The source database refused to read the dataset.")
    };
    Failure::caused(kind, message, &error)
}
