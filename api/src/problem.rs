//! Everything that a request can be refused for, and the one place that turns it into HTTP: status, headers
//! and an `application/problem+json` document (RFC 9457).

use std::fmt::Display;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use polyglot_core::failure::chain;
use polyglot_core::status::Status;
use polyglot_formats::UnknownFormat;
use polyglot_ledger::LedgerError;
use polyglot_source::session::is_unavailable;
use polyglot_storage::StorageError;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A server that the api cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dependency {
    Ledger,
    Source,
    Store,
}

/// One thing that is wrong with a request, and where: `columns[1].source`, a query parameter, a header, `body`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    pub(crate) field: String,
    pub(crate) message: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Why a request was not done. What is for the operator only is in the sources, and is logged, never answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteError {
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    #[error("the idempotency key stands for another body")]
    KeyReused,
    #[error("the first request with the idempotency key is not answered yet")]
    KeyInProgress,
    #[error("no such route")]
    NoSuchRoute,
    #[error("method not allowed")]
    MethodNotAllowed,
    #[error("the body did not arrive in time")]
    BodyTooSlow,
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("unknown export {0}")]
    UnknownExport(Uuid),
    #[error("unknown dataset {0:?}")]
    UnknownDataset(String),
    #[error("the export is {status}")]
    ExportNotFinished { status: Status, retry_after: u32 },
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
    #[error("{what:?} is not available")]
    Unavailable { what: Dependency, source: Cause },
    #[error("a benchmark is running")]
    BenchmarkRunning,
    #[error("the benchmark's {format} export ended without a file")]
    BenchmarkFailed { format: String, message: String },
    #[error("no worker took the export")]
    NoWorker,
    #[error("the process is stopping")]
    Stopping,
    #[error("the first rows were not there in time")]
    PreviewTooSlow,
    #[error("the server failed at one of the first rows (SQLSTATE {sql_state})")]
    PreviewFailed { sql_state: String },
    #[error("too many streams of events")]
    TooManyStreams,
    #[error("defect")]
    Internal(#[source] Cause),
    #[error("panicked")]
    Panicked,
}

impl RouteError {
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }
}

impl From<LedgerError> for RouteError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Unavailable(_) => Self::Unavailable { what: Dependency::Ledger, source: Box::new(error) },
            // Only a submission that took longer than any should, while its client tried again.
            LedgerError::KeyTaken => Self::KeyInProgress,
            LedgerError::Refused(_)
            | LedgerError::Unreadable { .. }
            | LedgerError::LeaseLost
            | LedgerError::Migration(_) => Self::Internal(Box::new(error)),
        }
    }
}

/// Of an export that was accepted by another version.
impl From<UnknownFormat> for RouteError {
    fn from(error: UnknownFormat) -> Self {
        Self::Internal(Box::new(error))
    }
}

/// Of the source database; the ledger wraps its own.
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

/// What a client is told. `name` is the stable end of the type URI.
struct Answer {
    status: StatusCode,
    name: &'static str,
    title: &'static str,
    detail: String,
}

/// When to come back after a 503 that nobody can time.
const RETRY_AFTER_SECONDS: u32 = 5;

impl RouteError {
    fn answer(&self) -> Answer {
        let answer = |status, name, title, detail: String| Answer { status, name, title, detail };
        match self {
            Self::Invalid(errors) => {
                answer(StatusCode::BAD_REQUEST, "invalid-request", "The request is not valid", summary(errors))
            }
            Self::KeyReused => answer(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The idempotency key was used before",
                "An earlier request with this Idempotency-Key had another body. A new request takes a new key."
                    .to_owned(),
            ),
            Self::KeyInProgress => answer(
                StatusCode::CONFLICT,
                "idempotency-key-in-progress",
                "The first request with the idempotency key is not answered yet",
                "Try again in a moment; the answer will be the first request's.".to_owned(),
            ),
            Self::NoSuchRoute => answer(
                StatusCode::NOT_FOUND,
                "no-such-route",
                "There is nothing here",
                "This path is not part of the API.".to_owned(),
            ),
            Self::MethodNotAllowed => answer(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "The method is not allowed here",
                "The Allow header says which methods this path takes.".to_owned(),
            ),
            Self::BodyTooSlow => answer(
                StatusCode::REQUEST_TIMEOUT,
                "body-too-slow",
                "The body did not arrive in time",
                "Send the whole body without long pauses.".to_owned(),
            ),
            Self::BodyTooLarge { limit } => answer(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "The body is too large",
                format!("A body may have at most {limit} bytes."),
            ),
            Self::UnknownExport(id) => answer(
                StatusCode::NOT_FOUND,
                "unknown-export",
                "There is no such export",
                format!("No export has the id {id}."),
            ),
            Self::UnknownDataset(name) => answer(
                StatusCode::NOT_FOUND,
                "unknown-dataset",
                "There is no such dataset",
                format!("No dataset has the name {}. GET /datasets lists them.", quoted(name)),
            ),
            Self::ExportNotFinished { status, .. } => answer(
                StatusCode::CONFLICT,
                "export-not-finished",
                "The export has not finished",
                format!("The export is {status}. Its manifest is written when it is completed."),
            ),
            Self::NoManifest(_) => answer(
                StatusCode::NOT_FOUND,
                "no-manifest",
                "The export has no manifest",
                "The export was completed by a version that wrote no manifests. Submit it again for one.".to_owned(),
            ),
            Self::ExportFailed { message, .. } => answer(
                StatusCode::CONFLICT,
                "export-failed",
                "The export has failed and has no file",
                message.clone().unwrap_or_else(|| "The export failed.".to_owned()),
            ),
            Self::ExportGone(status) => answer(
                StatusCode::GONE,
                "export-gone",
                "The export has no file any more",
                format!("The export is {status}. Submit it again for a new file."),
            ),
            Self::SeveralFiles(id) => answer(
                StatusCode::CONFLICT,
                "several-files",
                "The export's result is several files",
                format!(
                    "The export was asked for with the layout \"files\". GET /exports/{id}/manifest lists its files, each \
                     with a link."
                ),
            ),
            Self::RangeOutside { size } => answer(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range-outside",
                "The range is outside of the file",
                format!("The file has {size} bytes."),
            ),
            Self::FileMissing { .. } => answer(
                StatusCode::BAD_GATEWAY,
                "file-missing",
                "The file is missing from the object store",
                "The export was completed, but the object store has lost its file. Submit it again.".to_owned(),
            ),
            Self::DatasetUnavailable { dataset, .. } => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "dataset-unavailable",
                "The dataset cannot be read at the moment",
                format!(
                    "What the dataset {} stands for is not in the source database, may not be read, or is not \
                     as the service's configuration says.",
                    quoted(dataset)
                ),
            ),
            Self::Unavailable { what: Dependency::Ledger, .. } => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "ledger-unavailable",
                "The service's database is not available",
                "Nothing can be looked up or stored at the moment. Try again.".to_owned(),
            ),
            Self::Unavailable { what: Dependency::Source, .. } => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "source-unavailable",
                "The source database is not available",
                "Datasets, columns and values cannot be looked up at the moment. Try again.".to_owned(),
            ),
            Self::Unavailable { what: Dependency::Store, .. } => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "store-unavailable",
                "The object store is not available",
                "Files cannot be reached at the moment. Try again.".to_owned(),
            ),
            Self::BenchmarkRunning => answer(
                StatusCode::CONFLICT,
                "benchmark-running",
                "A benchmark is running",
                "Only one benchmark runs at a time. Try again when it has ended.".to_owned(),
            ),
            Self::BenchmarkFailed { format, message } => answer(
                StatusCode::BAD_GATEWAY,
                "benchmark-failed",
                "An export of the benchmark ended without a file",
                format!("{format}: {message}"),
            ),
            Self::NoWorker => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "no-worker",
                "No worker took the export",
                "The workers are busy, or none is running. Try again.".to_owned(),
            ),
            Self::Stopping => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                "This server is stopping",
                "Another one takes its place. Try again.".to_owned(),
            ),
            Self::PreviewTooSlow => answer(
                StatusCode::UNPROCESSABLE_ENTITY,
                "preview-too-slow",
                "The first rows take too long",
                "The database did not find the first rows in a few seconds: the filters or the order make it read much \
                 of the dataset, or it is busy. An export has the time that it takes."
                    .to_owned(),
            ),
            Self::PreviewFailed { sql_state } => answer(
                StatusCode::UNPROCESSABLE_ENTITY,
                "preview-failed",
                "The first rows cannot be read",
                format!("The database failed at one of the rows (SQLSTATE {sql_state}); an export would fail as well."),
            ),
            Self::TooManyStreams => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-streams",
                "Too many clients follow events",
                "This server has as many streams of events as it takes. Try again, or ask for the export now and then."
                    .to_owned(),
            ),
            Self::Internal(_) | Self::Panicked => answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something went wrong on our side",
                "The request id says where to look in the server's log.".to_owned(),
            ),
        }
    }

    /// Logs what only the operator can do something about. The panic hook has logged a panic.
    pub(crate) fn log(&self) {
        match self {
            Self::Internal(_) | Self::FileMissing { .. } | Self::DatasetUnavailable { .. } => {
                tracing::error!(error = chain(self), "request failed");
            }
            Self::Unavailable { .. } | Self::BenchmarkFailed { .. } | Self::NoWorker => {
                tracing::warn!(error = chain(self), "request failed");
            }
            Self::Invalid(_)
            | Self::KeyReused
            | Self::KeyInProgress
            | Self::NoSuchRoute
            | Self::MethodNotAllowed
            | Self::BodyTooSlow
            | Self::BodyTooLarge { .. }
            | Self::UnknownExport(_)
            | Self::UnknownDataset(_)
            | Self::ExportNotFinished { .. }
            | Self::NoManifest(_)
            | Self::ExportFailed { .. }
            | Self::ExportGone(_)
            | Self::SeveralFiles(_)
            | Self::RangeOutside { .. }
            | Self::BenchmarkRunning
            | Self::Stopping
            | Self::PreviewTooSlow
            | Self::PreviewFailed { .. }
            | Self::TooManyStreams
            | Self::Panicked => {}
        }
    }

    /// The document. `instance` is the path that was asked for.
    pub(crate) fn document(&self, instance: &str, request_id: &str) -> Body {
        Body::from(self.described(instance, request_id).document.to_string())
    }

    /// The answer in parts, as it is made and as the API's description shows it.
    pub(crate) fn described(&self, instance: &str, request_id: &str) -> Described {
        let Answer { status, name, title, detail } = self.answer();
        let document = Problem {
            kind: format!("urn:polyglot:problem:{name}"),
            title,
            status: status.as_u16(),
            error: &detail,
            detail: &detail,
            instance,
            request_id,
            errors: if let Self::Invalid(errors) = self { Some(errors) } else { None },
            error_code: if let Self::ExportFailed { code, .. } = self { code.as_deref() } else { None },
        };
        Described {
            status: status.as_u16(),
            name,
            title,
            document: serde_json::to_value(document).expect("a struct of strings serializes"),
            retry_after: self.retry_after().is_some(),
        }
    }

    /// Seconds after which another try may help.
    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::KeyInProgress => Some(1),
            Self::ExportNotFinished { retry_after, .. } => Some(*retry_after),
            other => (other.answer().status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECONDS),
        }
    }
}

/// An error as a client gets it.
pub(crate) struct Described {
    pub(crate) status: u16,
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) document: serde_json::Value,
    /// Whether the answer says when to come back.
    pub(crate) retry_after: bool,
}

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem<'a> {
    /// `urn:polyglot:problem:` and a name that stays the same.
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    /// What happened, in words.
    detail: &'a str,
    /// The path that was asked for.
    instance: &'a str,
    /// As in the header X-Request-Id, and in the server's log.
    request_id: &'a str,
    /// The same words as `detail`, for clients that were written before there was a problem document.
    error: &'a str,
    /// Each mistake of a request that is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    errors: Option<&'a [FieldError]>,
    /// Of an export that has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    error_code: Option<&'a str>,
}

/// Without a body: only `request_id::track`, around every route, knows the path and the id that go into it.
impl IntoResponse for RouteError {
    fn into_response(self) -> Response {
        let status = self.answer().status;
        let mut response = status.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Self::RangeOutside { size } = self {
            let range = HeaderValue::try_from(format!("bytes */{size}")).expect("digits and ASCII are a header value");
            headers.insert(header::CONTENT_RANGE, range);
        }
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// The first few errors in one line.
fn summary(errors: &[FieldError]) -> String {
    const SHOWN: usize = 5;
    let shown = errors.iter().take(SHOWN).map(|error| format!("{}: {}", error.field, error.message));
    let more = (errors.len() > SHOWN).then(|| format!("and {} more", errors.len() - SHOWN));
    shown.chain(more).collect::<Vec<_>>().join("; ")
}

/// A client's own text inside a message: quoted, control characters escaped, cut to a bearable length.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// `a, b, c`, for messages that say what there is to choose from.
pub(crate) fn listed<T: Display>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internals_stay_inside() {
        let error = RouteError::from(LedgerError::Refused(sqlx::Error::ColumnNotFound("password".to_owned())));
        assert!(chain(&error).contains("password"));
        let answer = error.answer();
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!answer.detail.contains("password"), "{}", answer.detail);
    }

    #[test]
    fn a_client_s_text_is_cut_at_a_character() {
        assert_eq!(quoted("a\"\u{0}b"), "\"a\\\"\\0b\"");
        assert_eq!(quoted(&"ü".repeat(200)), format!("\"{}\"…", "ü".repeat(80)));
    }

    #[test]
    fn an_export_that_is_under_way_says_when_to_come_back() {
        let response = RouteError::ExportNotFinished { status: Status::Running, retry_after: 7 }.into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
    }

    #[test]
    fn who_asks_for_one_file_of_several_is_sent_to_the_manifest() {
        let answer = RouteError::SeveralFiles(Uuid::nil()).answer();
        assert_eq!((answer.status, answer.name), (StatusCode::CONFLICT, "several-files"));
        assert!(answer.detail.contains("/exports/00000000-0000-0000-0000-000000000000/manifest"), "{}", answer.detail);
    }

    #[test]
    fn a_range_that_cannot_be_had_says_the_size() {
        let response = RouteError::RangeOutside { size: 17 }.into_response();
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(response.headers()[header::CONTENT_RANGE], "bytes */17");
    }
}
