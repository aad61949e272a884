//! The failures that errors of the source's driver become.

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_source::session::is_unavailable;

/// The message for clients about a failure of the source that may be temporary.
pub(crate) const LOST: &str = "The source database could not be reached or dropped the connection.";

/// Returns the failure of an error of the driver.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(crate) fn failed(error: sqlx::Error) -> Failure {
    let (kind, message) = if is_unavailable(&error) {
        (FailureKind::SourceUnavailable, LOST)
    } else {
        (FailureKind::SourceRefused, "The source database refused to read the dataset.")
    };
    Failure::caused(kind, message, &error)
}
