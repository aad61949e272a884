//! The errors that end a piece of work before it is done.

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_ledger::LedgerError;

/// The reason why work ends before it is done.
#[derive(Debug)]
pub(crate) enum WorkError {
    Failed(Failure),
    /// The whole attempt failed: its stored shards are lost.
    FailedAttempt(Failure),
    /// The table is locked, so that another session cannot read it for now.
    Blocked(Failure),
    /// This process may hold no further snapshot of the source for now.
    NoConnection,
    /// The shard is smaller than the object store accepts.
    TooSmall,
    /// The export is sharded, and as many exports as may keep a snapshot open do so already.
    NoPlace,
    /// A client cancelled the export.
    Cancelled,
    /// The process is shutting down.
    ShuttingDown,
    /// The claim was lost, or the ledger was unavailable for as long as the lease.
    Lost,
}

impl From<Failure> for WorkError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<LedgerError> for WorkError {
    fn from(error: LedgerError) -> Self {
        match error {
            // The lease expires, and another attempt starts when the ledger is available again.
            LedgerError::LeaseLost | LedgerError::Unavailable(_) => Self::Lost,
            other => Self::Failed(internal(&other)),
        }
    }
}

/// The message for clients about an internal error.
pub(crate) const INTERNAL: &str = "The export failed for an internal reason.";

/// Returns the failure of an internal error; `error` becomes its detail.
pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::caused(FailureKind::Internal, INTERNAL, error)
}
