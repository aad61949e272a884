//! The error type of the handlers, and the conversions from the errors of what they call. What a client sees of each
//! variant is in `answer`.

use std::time::Duration;

use polyglot_core::scope::Scope;
use polyglot_core::status::Status;
use polyglot_core::tenant_limits::LimitReached;
use polyglot_formats::UnknownFormat;
use polyglot_ledger::LedgerError;
use polyglot_runtime::quota::QuotaExceeded;
use polyglot_source::session::is_unavailable;
use polyglot_storage::StorageError;
use uuid::Uuid;

use super::field_error::FieldError;
use crate::limited_use::LimitedUse;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A server that the api depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dependency {
    Ledger,
    Source,
    Store,
}

/// The reason why a request was refused or failed. `Display` and the sources are for the log; clients never see them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteError {
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    #[error("the idempotency key belongs to a request with another body")]
    KeyReused,
    #[error("the first request with the idempotency key has no answer yet")]
    KeyInProgress,
    #[error("no such route")]
    NoSuchRoute,
    #[error("method not allowed")]
    MethodNotAllowed,
    #[error("the body did not arrive in time")]
    BodyTooSlow,
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("the memory for bodies is used up")]
    TooManyBodies,
    #[error("the request is for the host {host:?}")]
    HostNotAllowed { host: String },
    #[error("the request has no credentials, or wrong ones")]
    NotAuthenticated { presented: bool },
    #[error("the caller has not the scope {scope}")]
    MissingScope { scope: Scope },
    #[error("the request changes something by a cookie and has no X-Polyglot-Request header")]
    NoRequestHeader,
    #[error("the keys of the tokens' issuer are not available")]
    IssuerUnavailable { retry_after: Duration },
    #[error("too many credentials are being looked up")]
    TooManySignIns,
    #[error("unknown export {0}")]
    UnknownExport(Uuid),
    #[error("unknown dataset {0:?}")]
    UnknownDataset(String),
    #[error("the export is {status}")]
    ExportNotFinished { status: Status, retry_after: u32 },
    #[error("the export is {status} after the longest wait for its file")]
    FileNotReady { status: Status, retry_after: u32 },
    #[error("export {0} has no manifest")]
    NoManifest(Uuid),
    #[error("the export has failed")]
    ExportFailed { code: Option<String>, message: Option<String> },
    #[error("the export is {0}")]
    ExportGone(Status),
    #[error("the result of export {0} is several files")]
    SeveralFiles(Uuid),
    #[error("the range is outside of the file")]
    RangeOutside { size: u64 },
    #[error("the file of export {id} is not in the object store")]
    FileMissing { id: Uuid },
    #[error("dataset {dataset} is configured but cannot be read")]
    DatasetUnavailable { dataset: String, source: Cause },
    #[error("the policy of dataset {dataset} cannot be applied to the caller")]
    PolicyNotApplicable { dataset: String, source: Cause },
    #[error("dataset {dataset} is locked by another session of its database")]
    DatasetLocked { dataset: String },
    #[error("the role of the source database may do more than read")]
    SourceRole { source: Cause },
    #[error("{what:?} is not available")]
    Unavailable { what: Dependency, source: Cause },
    #[error("benchmarks are off")]
    BenchmarkOff,
    #[error("the request comes from a page of another site")]
    CrossSite,
    #[error("a benchmark is running")]
    BenchmarkRunning,
    #[error("the benchmark's {format} export ended without a file")]
    BenchmarkFailed { format: String, message: String },
    #[error("no worker claimed the export")]
    NoWorker,
    #[error("the process is stopping")]
    Stopping,
    #[error("the first rows were not read in time")]
    PreviewTooSlow,
    #[error("the server failed at one of the first rows (SQLSTATE {sql_state})")]
    PreviewFailed { sql_state: String },
    #[error("row {row} of a preview cannot be written: {problem}")]
    PreviewUnrepresentable { row: usize, problem: String },
    #[error("too many of {what:?}: {exceeded}")]
    TooMany { what: LimitedUse, exceeded: QuotaExceeded },
    #[error("{0}")]
    TenantLimit(LimitReached),
    /// `cost` is `None` where it would tell of rows that the caller may not have.
    #[error("the query costs {cost:?}, and the tenant's may cost {max}")]
    QueryTooCostly { cost: Option<f64>, max: f64 },
    #[error("internal error")]
    Internal(#[source] Cause),
    #[error("the handler panicked")]
    Panicked,
}

impl RouteError {
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }
}

/// The error of an export that was accepted by another version.
impl From<UnknownFormat> for RouteError {
    fn from(error: UnknownFormat) -> Self {
        Self::Internal(Box::new(error))
    }
}

impl From<LedgerError> for RouteError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Unavailable(_) => Self::Unavailable { what: Dependency::Ledger, source: Box::new(error) },
            // A submission was so slow that its reservation expired and a retry of its client took the key.
            LedgerError::KeyTaken => Self::KeyInProgress,
            LedgerError::LimitReached(reached) => Self::TenantLimit(reached),
            LedgerError::Refused(_)
            | LedgerError::Unreadable { .. }
            | LedgerError::LeaseLost
            | LedgerError::Migration(_)
            | LedgerError::MigrationsPending(_) => Self::Internal(Box::new(error)),
        }
    }
}

/// Errors of the source database; the ledger wraps its own in `LedgerError`.
impl From<sqlx::Error> for RouteError {
    fn from(error: sqlx::Error) -> Self {
        if is_unavailable(&error) {
            Self::Unavailable { what: Dependency::Source, source: Box::new(error) }
        } else {
            Self::Internal(Box::new(error))
        }
    }
}

impl From<StorageError> for RouteError {
    fn from(error: StorageError) -> Self {
        if error.transient {
            Self::Unavailable { what: Dependency::Store, source: Box::new(error) }
        } else {
            Self::Internal(Box::new(error))
        }
    }
}
