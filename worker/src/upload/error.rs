//! Reasons why an upload does not go on, and what they mean for the work.

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_ledger::LedgerError;
use polyglot_storage::StorageError;

use crate::work_error::WorkError;

/// The reason why an upload did not go on.
#[derive(Debug)]
pub(crate) enum UploadError {
    Failed(Failure),
    /// The store does not know the multipart upload, or not its parts: nothing of it can be used any more.
    UploadLost(Failure),
    /// The claim no longer holds; the ledger's answer is final.
    LeaseLost,
    /// A client cancelled the export.
    Cancelled,
    /// The process is shutting down.
    ShuttingDown,
    /// The ledger cannot be asked.
    Ledger(LedgerError),
    /// The encoder ended without a last part. Its own error is the one that matters.
    PipelineClosed,
}

impl From<StorageError> for UploadError {
    fn from(error: StorageError) -> Self {
        let (kind, message) = if error.transient {
            (FailureKind::StorageUnavailable, "The object store could not be reached or kept failing.")
        } else {
            (FailureKind::StorageRefused, "The object store refused to take the file.")
        };
        let failure = Failure::caused(kind, message, &error);
        match error.code.as_deref() {
            // A store that was restarted without its data: with the bucket, every upload in it is gone.
            Some("NoSuchUpload" | "InvalidPart" | "NoSuchBucket") => Self::UploadLost(failure),
            _ => Self::Failed(failure),
        }
    }
}

impl From<LedgerError> for UploadError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::LeaseLost => Self::LeaseLost,
            other => Self::Ledger(other),
        }
    }
}

impl From<UploadError> for WorkError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Failed(failure) => Self::Failed(failure),
            UploadError::UploadLost(failure) => Self::FailedAttempt(failure),
            UploadError::Cancelled => Self::Cancelled,
            UploadError::ShuttingDown => Self::ShuttingDown,
            UploadError::Ledger(error) => error.into(),
            UploadError::LeaseLost | UploadError::PipelineClosed => Self::Lost,
        }
    }
}
