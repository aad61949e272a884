//! The table of problems: for each `RouteError` its status, type, title, detail, headers, extra members and log level.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::StatusCode;
use polyglot_core::tenant_limits::{LimitReached, TenantLimit};
use tracing::Level;

use super::field_error::{FieldError, summary};
use super::message::quoted;
use super::route_error::{Dependency, RouteError};
use crate::limited_use::LimitedUse;

/// `Retry-After` of a 503. How long a server stays away is not known.
const UNAVAILABLE_RETRY_SECONDS: u32 = 5;

/// Everything that a response, the API's description and the log say about one problem.
pub(crate) struct Answer<'e> {
    pub(crate) status: StatusCode,
    /// Last part of the type URI. It never changes.
    pub(crate) slug: &'static str,
    pub(crate) title: &'static str,
    pub(crate) detail: Cow<'e, str>,
    /// Seconds after which another try may succeed (`Retry-After`).
    pub(crate) retry_after: Option<u32>,
    /// Size of the file that a requested range is outside of (`Content-Range`).
    pub(crate) file_size: Option<u64>,
    /// How a client can say who it is (`WWW-Authenticate`).
    pub(crate) challenge: Option<String>,
    /// The member `errors`.
    pub(crate) errors: Option<&'e [FieldError]>,
    /// The member `errorCode`.
    pub(crate) error_code: Option<&'e str>,
    /// The member `limit`.
    pub(crate) limit: Option<LimitReached>,
    /// Level of the log line; `None` where the operator can do nothing about the problem.
    pub(crate) log_level: Option<Level>,
}

impl<'e> Answer<'e> {
    fn new(status: StatusCode, slug: &'static str, title: &'static str, detail: impl Into<Cow<'e, str>>) -> Self {
        Self {
            status,
            slug,
            title,
            detail: detail.into(),
            retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(UNAVAILABLE_RETRY_SECONDS),
            file_size: None,
            challenge: None,
            errors: None,
            error_code: None,
            limit: None,
            log_level: None,
        }
    }

    fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    fn logged(self, level: Level) -> Self {
        Self { log_level: Some(level), ..self }
    }

    /// The answer to `error`.
    pub(crate) fn to(error: &'e RouteError) -> Self {
        match error {
            RouteError::Invalid(errors) => Self {
                errors: Some(errors),
                ..Self::new(StatusCode::BAD_REQUEST, "invalid-request", "The request is not valid", summary(errors))
            },
            RouteError::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The idempotency key was used before",
                "An earlier request with this Idempotency-Key had another body. A new request takes a new key.",
            ),
            RouteError::KeyInProgress => Self::new(
                StatusCode::CONFLICT,
                "idempotency-key-in-progress",
                "The first request with the idempotency key is not answered yet",
                "Try again in a moment; the answer will be the first request's.",
            )
            .retry_after(1),
            RouteError::NoSuchRoute => Self::new(
                StatusCode::NOT_FOUND,
                "no-such-route",
                "There is nothing here",
                "This path is not part of the API.",
            ),
            RouteError::MethodNotAllowed => Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "The method is not allowed here",
                "The Allow header says which methods this path takes.",
            ),
            RouteError::BodyTooSlow => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "body-too-slow",
                "The body did not arrive in time",
                "Send the whole body without long pauses.",
            ),
            RouteError::BodyTooLarge { limit } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "The body is too large",
                format!("A body may have at most {limit} bytes."),
            ),
            RouteError::TooManyBodies => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-bodies",
                "Too many request bodies at once",
                "This server reads as many request bodies as it has memory for. Try again in a moment.",
            )
            .retry_after(1)
            .logged(Level::WARN),
            RouteError::HostNotAllowed { host } => Self::new(
                StatusCode::MISDIRECTED_REQUEST,
                "host-not-allowed",
                "This server does not answer for the host",
                format!(
                    "The request is for the host {}. The operator says in ALLOWED_HOSTS which ones the service has.",
                    quoted(host)
                ),
            ),
            RouteError::NotAuthenticated { presented } => Self {
                challenge: Some(challenge(if *presented { ", error=\"invalid_token\"" } else { "" })),
                ..Self::new(
                    StatusCode::UNAUTHORIZED,
                    "not-authenticated",
                    "Say who you are",
                    if *presented {
                        "The API key, token or session is not known here, has expired, or was revoked. `polyglot-api keys create` \
                         makes a key."
                    } else {
                        "Send an API key in the header Authorization, as \"Bearer polyglot_…\". `polyglot-api keys create` makes \
                         one."
                    },
                )
            },
            RouteError::MissingScope { scope } => Self {
                challenge: Some(challenge(&format!(", error=\"insufficient_scope\", scope=\"{scope}\""))),
                ..Self::new(
                    StatusCode::FORBIDDEN,
                    "missing-scope",
                    "The API key may not do this",
                    format!("This needs the scope {scope}, which the key or session does not have."),
                )
            },
            RouteError::NoRequestHeader => Self::new(
                StatusCode::FORBIDDEN,
                "no-request-header",
                "The header X-Polyglot-Request is missing",
                "A request that changes something by the page's cookie needs the header X-Polyglot-Request, with any value: a page \
                 of another site cannot send it.",
            ),
            RouteError::IssuerUnavailable { retry_after } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "issuer-unavailable",
                "Tokens cannot be verified at the moment",
                "The keys of the tokens' issuer could not be fetched. API keys work all the same.",
            )
            .retry_after(u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX).max(1))
            .logged(Level::WARN),
            RouteError::TooManySignIns => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-sign-ins",
                "Too many API keys are being looked up",
                "This server looks up a few unknown keys at a time. Try again in a moment.",
            )
            .retry_after(1)
            .logged(Level::WARN),
            RouteError::UnknownExport(id) => Self::new(
                StatusCode::NOT_FOUND,
                "unknown-export",
                "There is no such export",
                format!("No export has the id {id}."),
            ),
            RouteError::UnknownDataset(name) => Self::new(
                StatusCode::NOT_FOUND,
                "unknown-dataset",
                "There is no such dataset",
                format!("No dataset has the name {}. GET /datasets lists them.", quoted(name)),
            ),
            RouteError::ExportNotFinished { status, retry_after } => Self::new(
                StatusCode::CONFLICT,
                "export-not-finished",
                "The export has not finished",
                format!("The export is {status}. Its manifest is written when it is completed."),
            )
            .retry_after(*retry_after),
            RouteError::FileNotReady { status, retry_after } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "file-not-ready",
                "The file is not ready yet",
                format!(
                    "The export is {status}, and this request has waited for as long as one may. Ask again after \
                     Retry-After seconds, or with Prefer: respond-async for a status instead of the file."
                ),
            )
            .retry_after(*retry_after),
            RouteError::NoManifest(_) => Self::new(
                StatusCode::NOT_FOUND,
                "no-manifest",
                "The export has no manifest",
                "The export was completed by a version that wrote no manifests. Submit it again for one.",
            ),
            RouteError::ExportFailed { code, message } => Self {
                error_code: code.as_deref(),
                ..Self::new(
                    StatusCode::CONFLICT,
                    "export-failed",
                    "The export has failed and has no file",
                    message.as_deref().unwrap_or("The export failed."),
                )
            },
            RouteError::ExportGone(status) => Self::new(
                StatusCode::GONE,
                "export-gone",
                "The export has no file any more",
                format!("The export is {status}. Submit it again for a new file."),
            ),
            RouteError::SeveralFiles(id) => Self::new(
                StatusCode::CONFLICT,
                "several-files",
                "The export's result is several files",
                format!(
                    "The export was asked for with the layout \"files\". GET /exports/{id}/manifest lists its files, each \
                     with a link."
                ),
            ),
            RouteError::RangeOutside { size } => Self {
                file_size: Some(*size),
                ..Self::new(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "range-outside",
                    "The range is outside of the file",
                    format!("The file has {size} bytes."),
                )
            },
            RouteError::FileMissing { .. } => Self::new(
                StatusCode::BAD_GATEWAY,
                "file-missing",
                "The file is missing from the object store",
                "The export was completed, but the object store has lost its file. Submit it again.",
            )
            .logged(Level::ERROR),
            RouteError::DatasetUnavailable { dataset, .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "dataset-unavailable",
                "The dataset cannot be read at the moment",
                format!(
                    "What the dataset {} stands for is not in the source database, may not be read, or is not \
                     as the service's configuration says.",
                    quoted(dataset)
                ),
            )
            .logged(Level::ERROR),
            RouteError::PolicyNotApplicable { dataset, .. } => Self::new(
                StatusCode::FORBIDDEN,
                "policy-not-applicable",
                "The dataset's policy cannot be applied to you",
                format!(
                    "The operator has limited the rows of the dataset {} by something that your key or token does not say, or not \
                     in a form that fits. The server's log has what is missing.",
                    quoted(dataset)
                ),
            )
            .logged(Level::WARN),
            RouteError::DatasetLocked { dataset } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "dataset-locked",
                "The dataset is locked",
                format!(
                    "Another session of the source database has locked what the dataset {} stands for, so that nobody can \
                     read it: a change of its definition, TRUNCATE, VACUUM FULL or LOCK TABLE. Try again when that has ended.",
                    quoted(dataset)
                ),
            )
            .logged(Level::WARN),
            RouteError::SourceRole { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "source-role-refused",
                "The service's role in the source database is refused",
                "The role may do more than read, and whoever owns an object in the database could use its rights. The operator \
                 finds them in the log, and what to do about it.",
            )
            .logged(Level::ERROR),
            RouteError::Unavailable { what: Dependency::Ledger, .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ledger-unavailable",
                "The service's database is not available",
                "Nothing can be looked up or stored at the moment. Try again.",
            )
            .logged(Level::WARN),
            RouteError::Unavailable { what: Dependency::Source, .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "source-unavailable",
                "The source database is not available",
                "Datasets, columns and values cannot be looked up at the moment. Try again.",
            )
            .logged(Level::WARN),
            RouteError::Unavailable { what: Dependency::Store, .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store-unavailable",
                "The object store is not available",
                "Files cannot be reached at the moment. Try again.",
            )
            .logged(Level::WARN),
            RouteError::BenchmarkOff => Self::new(
                StatusCode::FORBIDDEN,
                "benchmark-off",
                "Benchmarks are off",
                "A benchmark makes the workers export the whole dataset several times. It runs where the api is started with \
                 BENCHMARK=on.",
            ),
            RouteError::CrossSite => Self::new(
                StatusCode::FORBIDDEN,
                "cross-site",
                "The request comes from a page of another site",
                "A browser sent this request for a page of another origin. The service's own page and programs that are not \
                 browsers may make it; what is no benchmark, also the pages of the origins in CORS_ORIGINS.",
            ),
            RouteError::BenchmarkRunning => Self::new(
                StatusCode::CONFLICT,
                "benchmark-running",
                "A benchmark is running",
                "Only one benchmark runs at a time. Try again when it has ended.",
            ),
            RouteError::BenchmarkFailed { format, message } => Self::new(
                StatusCode::BAD_GATEWAY,
                "benchmark-failed",
                "An export of the benchmark ended without a file",
                format!("{format}: {message}"),
            )
            .logged(Level::WARN),
            RouteError::NoWorker => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "no-worker",
                "No worker took the export",
                "The workers are busy, or none is running. Try again.",
            )
            .logged(Level::WARN),
            RouteError::Stopping => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                "This server is stopping",
                "Another one takes its place. Try again.",
            ),
            RouteError::PreviewTooSlow => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "preview-too-slow",
                "The first rows take too long",
                "The database did not find the first rows in a few seconds: the filters or the order make it read much \
                 of the dataset, or it is busy. An export has the time that it takes.",
            ),
            RouteError::PreviewFailed { sql_state } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "preview-failed",
                "The first rows cannot be read",
                format!("The database failed at one of the rows (SQLSTATE {sql_state}); an export would fail as well."),
            ),
            RouteError::PreviewUnrepresentable { row, problem } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "preview-failed",
                "The first rows cannot be written",
                format!(
                    "Row {row} of the preview: {problem}. An export would fail as well. Ask for options.onUnrepresentable \
                     \"replace\", another format, or leave the row out by a filter."
                ),
            ),
            RouteError::TooMany { what, exceeded } => {
                let (slug, title, detail) = match what {
                    LimitedUse::EventStream => (
                        "too-many-streams",
                        "Too many streams of events",
                        "Follow all exports with one stream (GET /events), or ask for the export now and then.",
                    ),
                    LimitedUse::WaitingDownload => (
                        "too-many-waiting-downloads",
                        "Too many downloads wait for their exports",
                        "Ask with Prefer: wait=0, which answers at once, or follow the export's events.",
                    ),
                    LimitedUse::ProxiedDownload => (
                        "too-many-proxied-downloads",
                        "Too many downloads pass through this server",
                        "Ask with delivery=redirect for a link to the file, or wait until other downloads have ended.",
                    ),
                };
                Self::new(exceeded.status(), slug, title, detail).retry_after(UNAVAILABLE_RETRY_SECONDS)
            }
            RouteError::TenantLimit(reached) => Self {
                limit: Some(*reached),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "tenant-limit",
                    "A limit of the tenant is reached",
                    limit_detail(*reached),
                )
                .retry_after(whole_seconds(reached.retry_after))
            },
            RouteError::QueryTooCostly { cost, max } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "query-too-costly",
                "The query would cost too much",
                format!(
                    "PostgreSQL estimates the cost of the export's query {}above the tenant's limit of {max}. Ask for fewer rows, by \
                     filters that an index serves, or without an order of your own.",
                    cost.map(|cost| format!("at {cost}, ")).unwrap_or_default()
                ),
            ),
            RouteError::Internal(_) => internal().logged(Level::ERROR),
            // The panic hook has logged it.
            RouteError::Panicked => internal(),
        }
    }
}

/// What is used of a limit, and what to do.
fn limit_detail(LimitReached { limit, max, used, .. }: LimitReached) -> String {
    match limit {
        TenantLimit::Queued => {
            format!(
                "{used} exports of the tenant have not ended, of at most {max}. Wait for the end of one, or cancel one."
            )
        }
        TenantLimit::RowsPerDay => format!(
            "The exports of the tenant that were completed in the last 24 hours have {used} rows, of at most {max}. Try again when \
             older ones of them no longer count."
        ),
        TenantLimit::BytesPerDay => format!(
            "The exports of the tenant that were completed in the last 24 hours have {used} bytes, of at most {max}. Try again when \
             older ones of them no longer count."
        ),
        TenantLimit::RequestsPerSecond => format!(
            "The tenant may make {max} requests a second. The header fields RateLimit and RateLimit-Policy say how many are left."
        ),
        TenantLimit::Streams => format!(
            "{used} streams of events of the tenant are open, of at most {max}. Close one, or follow all exports with one stream \
             (GET /events)."
        ),
    }
}

/// Seconds of a `Retry-After`, which has no parts of them.
fn whole_seconds(time: Duration) -> u32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

/// A challenge for a bearer token (RFC 6750).
fn challenge(parameters: &str) -> String {
    format!("Bearer realm=\"polyglot\"{parameters}")
}

fn internal() -> Answer<'static> {
    Answer::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "Something went wrong on our side",
        "The request id says where to look in the server's log.",
    )
}

#[cfg(test)]
mod tests {
    use polyglot_core::failure::chain;
    use polyglot_ledger::LedgerError;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn internals_stay_inside() {
        let error = RouteError::from(LedgerError::Refused(sqlx::Error::ColumnNotFound("password".to_owned())));
        assert!(chain(&error).contains("password"));
        let answer = Answer::to(&error);
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!answer.detail.contains("password"), "{}", answer.detail);
    }

    #[test]
    fn who_asks_for_one_file_of_several_is_sent_to_the_manifest() {
        let error = RouteError::SeveralFiles(Uuid::nil());
        let answer = Answer::to(&error);
        assert_eq!((answer.status, answer.slug), (StatusCode::CONFLICT, "several-files"));
        assert!(answer.detail.contains("/exports/00000000-0000-0000-0000-000000000000/manifest"), "{}", answer.detail);
    }
}
