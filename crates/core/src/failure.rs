//! The ways in which an export can fail: a text for the user, a detail for the operator, and whether another attempt may succeed.
//! This is the one place that decides between retry and fail.

use std::fmt;

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The source database could not be reached or dropped the connection.
    SourceUnavailable,
    /// The source database refused the statement (a missing relation, a lost permission, …).
    SourceRefused,
    /// The relation no longer fits the request.
    DatasetChanged,
    /// The operator's policy for the dataset cannot be applied.
    PolicyNotApplicable,
    /// A value that the format cannot hold.
    Unrepresentable,
    /// Bytes from the source that cannot be decoded.
    Undecodable,
    /// The object store could not be reached or kept failing.
    StorageUnavailable,
    /// The object store refused the call (no such bucket, access denied, …).
    StorageRefused,
    /// A row that is wider than a worker may hold in memory.
    RowTooLarge,
    /// The file would have more rows or bytes than the operator's policy gives out.
    DatasetLimit,
    /// The file would be larger than the object store takes in parts of the size that memory allows.
    TooLarge,
    /// The export took longer than `EXPORT_TIMEOUT_MS`.
    DeadlineExceeded,
    /// Every process that held the export's snapshot has ended before every row was read.
    SnapshotLost,
    /// The snapshot was used for longer than `SNAPSHOT_MAX_AGE_SECONDS`.
    SnapshotTooOld,
    /// A worker could not write a temporary file.
    TemporaryFile,
    /// Every worker that took the export was lost.
    WorkerLost,
    /// For an hour no worker had a version that can read the stored request.
    RequestUnreadable,
    /// A defect of the service.
    Internal,
}

/// Whether a failure is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Another attempt may succeed.
    Retry,
    /// Every other attempt would fail as well.
    Fail,
}

impl FailureKind {
    pub const ALL: [Self; 18] = [
        Self::SourceUnavailable,
        Self::SourceRefused,
        Self::DatasetChanged,
        Self::PolicyNotApplicable,
        Self::Unrepresentable,
        Self::Undecodable,
        Self::StorageUnavailable,
        Self::StorageRefused,
        Self::RowTooLarge,
        Self::DatasetLimit,
        Self::TooLarge,
        Self::DeadlineExceeded,
        Self::SnapshotLost,
        Self::SnapshotTooOld,
        Self::TemporaryFile,
        Self::WorkerLost,
        Self::RequestUnreadable,
        Self::Internal,
    ];

    #[must_use]
    pub fn disposition(self) -> Disposition {
        match self {
            Self::SourceUnavailable
            | Self::StorageUnavailable
            | Self::SnapshotLost
            | Self::TemporaryFile
            | Self::WorkerLost => Disposition::Retry,
            Self::SourceRefused
            | Self::DatasetChanged
            | Self::PolicyNotApplicable
            | Self::Unrepresentable
            | Self::Undecodable
            | Self::StorageRefused
            | Self::RowTooLarge
            | Self::DatasetLimit
            | Self::TooLarge
            | Self::DeadlineExceeded
            | Self::SnapshotTooOld
            | Self::RequestUnreadable
            | Self::Internal => Disposition::Fail,
        }
    }

    /// The stable name, as stored in the ledger.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::SourceUnavailable => "source_unavailable",
            Self::SourceRefused => "source_refused",
            Self::DatasetChanged => "dataset_changed",
            Self::PolicyNotApplicable => "policy_not_applicable",
            Self::Unrepresentable => "unrepresentable_value",
            Self::Undecodable => "undecodable_value",
            Self::StorageUnavailable => "storage_unavailable",
            Self::StorageRefused => "storage_refused",
            Self::RowTooLarge => "row_too_large",
            Self::DatasetLimit => "dataset_limit",
            Self::TooLarge => "file_too_large",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::SnapshotLost => "snapshot_lost",
            Self::SnapshotTooOld => "snapshot_too_old",
            Self::TemporaryFile => "temporary_file",
            Self::WorkerLost => "worker_lost",
            Self::RequestUnreadable => "request_unreadable",
            Self::Internal => "internal",
        }
    }
}

/// A failed attempt: its kind, a sentence for the user, and the detail for the operator, which is logged and stored in the ledger
/// but never sent over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    pub detail: String,
}

impl Failure {
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind, message: message.into(), detail: detail.into() }
    }

    /// A failure whose detail is an error with all its sources.
    #[must_use]
    pub fn caused(kind: FailureKind, message: impl Into<String>, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(kind, message, chain(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// An error and its sources in one line, without repeated texts.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct() {
        let mut codes: Vec<_> = FailureKind::ALL.iter().map(|kind| kind.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), FailureKind::ALL.len());
    }
}
