//! The answer to an accepted submission.

use polyglot_core::status::Status;
use uuid::Uuid;

/// An export that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub id: Uuid,
    /// `pending`, or the state of the export that was joined.
    pub status: Status,
    /// Whether the request joined an active export.
    pub joined: bool,
}
