//! Why a piece of work ends before it is done.

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_ledger::LedgerError;

/// Why work ends before its end.
#[derive(Debug)]
pub(crate) enum WorkError {
    Failed(Failure),
    /// What the attempt has so far is lost with it.
    FailedAttempt(Failure),
    /// The table cannot be read by another session for now.
    Blocked(Failure),
    /// The shard came out smaller than the object store takes.
    TooSmall,
    /// A client asked for it.
    Cancelled,
    /// The process is going down.
    ShuttingDown,
    /// The claim no longer holds, or the ledger was away for as long as the lease.
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
            // The lease runs out, and another attempt starts when the ledger is back.
            LedgerError::LeaseLost | LedgerError::Unavailable(_) => Self::Lost,
            other => Self::Failed(internal(&other)),
        }
    }
}

/// Of a defect, in words for the user.
pub(crate) const INTERNAL: &str = "The export failed for an internal reason.";

pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::caused(FailureKind::Internal, INTERNAL, error)
}
