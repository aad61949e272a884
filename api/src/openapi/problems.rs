//! The problems that each operation may answer, each with the document that a client would get as its example.

use std::collections::BTreeMap;
use std::time::Duration;

use polyglot_core::status::Status;
use polyglot_core::tenant_limits::{LimitReached, TenantLimit};
use polyglot_formats::Format;
use polyglot_runtime::quota::QuotaExceeded;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::security;
use crate::exports::limits;
use crate::identity::Access;
use crate::limited_use::LimitedUse;
use crate::problem::{Answer, Dependency, FieldError, RouteError, listed};

const EXAMPLE_ID: Uuid = Uuid::from_u128(0x0193_5f2c_8d1e_7c3a_9b4f_2a6d_8e0c_5b17);
const REQUEST_ID: &str = "5f0c8a52-7d0a-4a43-9c52-6a0f3f1f7f1e";

/// Examples of the problems of one operation; `None` if the operation is not listed here.
fn examples(operation: &str) -> Option<Vec<RouteError>> {
    use RouteError as E;
    let unavailable = |what| E::Unavailable { what, source: "example".into() };
    let (ledger, source, store) =
        (|| unavailable(Dependency::Ledger), || unavailable(Dependency::Source), || unavailable(Dependency::Store));
    let invalid = |field: &str, message: &str| E::Invalid(vec![FieldError::new(field, message)]);
    let id = || invalid("id", "expected a UUID, as POST /exports answers it");
    let unknown = || E::UnknownExport(EXAMPLE_ID);
    let failed = || E::ExportFailed {
        code: Some("unrepresentable_value".to_owned()),
        message: Some("Column \"note\" of the row with id = 7 holds U+0001, which XML 1.0 cannot.".to_owned()),
    };
    let gone = || E::ExportGone(Status::Expired);
    let dataset = || E::DatasetUnavailable { dataset: "orders".to_owned(), source: "example".into() };
    let policy = || E::PolicyNotApplicable { dataset: "orders".to_owned(), source: "example".into() };
    let role = || E::SourceRole { source: "example".into() };
    let locked = || E::DatasetLocked { dataset: "orders".to_owned() };
    let body = || {
        vec![
            invalid("columns[0].source", "there is no column \"idd\"; there is id, name, value, metadata, created_at"),
            E::BodyTooSlow,
            E::BodyTooLarge { limit: limits::BODY_BYTES },
            E::TooManyBodies,
            policy(),
            dataset(),
            locked(),
            role(),
            source(),
        ]
    };
    Some(match operation {
        "submit_export" => {
            let costly = E::QueryTooCostly { cost: Some(1_200_345.5), max: 1_000_000.0 };
            let own = vec![E::CrossSite, E::KeyInProgress, E::KeyReused, costly, ledger(), E::Stopping];
            let limited = [TenantLimit::Queued, TenantLimit::RowsPerDay, TenantLimit::BytesPerDay].map(reached);
            [body(), own, limited.into()].into_iter().flatten().collect()
        }
        "preview_export" => {
            let own = vec![E::CrossSite, E::UnknownDataset("orders".to_owned()), E::PreviewTooSlow, E::Stopping];
            let failed = E::PreviewFailed { sql_state: "22012".to_owned() };
            let problem = "column \"price\" holds NaN, which Parquet cannot hold".to_owned();
            let unrepresentable = E::PreviewUnrepresentable { row: 3, problem };
            [body(), own, vec![failed, unrepresentable]].into_iter().flatten().collect()
        }
        "list_exports" => vec![invalid("limit", "expected a whole number from 1 to 200, but it is \"0\""), ledger()],
        "inspect_export" => vec![id(), unknown(), ledger()],
        "delete_export" => vec![E::CrossSite, id(), unknown(), ledger(), store()],
        "download_export" => vec![
            id(),
            invalid("wait", "expected a whole number from 0 to 120, but it is \"soon\""),
            unknown(),
            E::FileNotReady { status: Status::Running, retry_after: 7 },
            failed(),
            E::SeveralFiles(EXAMPLE_ID),
            gone(),
            E::RangeOutside { size: 1024 },
            E::FileMissing { id: EXAMPLE_ID },
            E::TooMany { what: LimitedUse::WaitingDownload, exceeded: QuotaExceeded::Peer },
            E::TooMany { what: LimitedUse::WaitingDownload, exceeded: QuotaExceeded::Total },
            E::TooMany { what: LimitedUse::ProxiedDownload, exceeded: QuotaExceeded::Peer },
            E::TooMany { what: LimitedUse::ProxiedDownload, exceeded: QuotaExceeded::Total },
            ledger(),
            store(),
        ],
        "manifest_of_export" => vec![
            id(),
            unknown(),
            E::NoManifest(EXAMPLE_ID),
            E::ExportNotFinished { status: Status::Running, retry_after: 7 },
            failed(),
            E::ExportGone(Status::Cancelled),
            ledger(),
        ],
        "follow_export" => vec![
            invalid("Last-Event-ID", "expected the id of an event, but it is \"x\""),
            unknown(),
            ledger(),
            E::TooMany { what: LimitedUse::EventStream, exceeded: QuotaExceeded::Peer },
            E::TooMany { what: LimitedUse::EventStream, exceeded: QuotaExceeded::Total },
            reached(TenantLimit::Streams),
        ],
        "follow_all_exports" => {
            vec![
                invalid("Last-Event-ID", "expected the id of an event, but it is \"x\""),
                ledger(),
                E::TooMany { what: LimitedUse::EventStream, exceeded: QuotaExceeded::Peer },
                E::TooMany { what: LimitedUse::EventStream, exceeded: QuotaExceeded::Total },
                reached(TenantLimit::Streams),
            ]
        }
        "run_benchmark" => vec![
            invalid("formats", &format!("unknown format \"pdf\"; there is {}", listed(Format::all()))),
            E::BenchmarkOff,
            E::CrossSite,
            E::BenchmarkRunning,
            E::BenchmarkFailed {
                format: "csv".to_owned(),
                message: "The source database is not available.".to_owned(),
            },
            E::NoWorker,
            policy(),
            dataset(),
            role(),
            ledger(),
            source(),
            E::Stopping,
        ],
        "list_datasets" => vec![source()],
        "inspect_dataset" => vec![
            invalid("name", "expected the name of a dataset, percent-encoded UTF-8"),
            E::UnknownDataset("orders".to_owned()),
            dataset(),
            source(),
        ],
        "sign_in" => vec![
            invalid("key", "expected an API key, as a string"),
            E::NotAuthenticated { presented: true },
            E::CrossSite,
            E::NoRequestHeader,
            E::BodyTooSlow,
            E::BodyTooLarge { limit: 1024 },
            E::TooManySignIns,
            ledger(),
        ],
        "sign_out" => vec![E::CrossSite, E::NoRequestHeader, E::TooManySignIns, ledger()],
        "read_audit" => {
            vec![invalid("limit", "expected a whole number from 1 to 1000, but it is \"0\""), ledger()]
        }
        "inspect_limits" => vec![ledger()],
        "inspect_session" => {
            vec![E::TooManySignIns, E::IssuerUnavailable { retry_after: Duration::from_secs(10) }, ledger()]
        }
        "is_alive" | "is_ready" | "scrape_metrics" | "describe_api" => Vec::new(),
        _ => return None,
    })
}

/// The problem of a tenant that has as much as it may.
fn reached(limit: TenantLimit) -> RouteError {
    RouteError::TenantLimit(LimitReached { limit, max: 100, used: 100, retry_after: Duration::from_secs(5) })
}

/// The problems of one status.
#[derive(Default)]
struct StatusProblems {
    titles: Vec<&'static str>,
    examples: Map<String, Value>,
    /// Some of them have `Retry-After`.
    has_retry_after: bool,
}

/// The problems of a caller who may not do what the operation does.
fn access_problems(method: &str, path: &str) -> Vec<RouteError> {
    let needed = security::access(method, path);
    let mut problems = Vec::new();
    if needed != Access::Public {
        problems.push(RouteError::NotAuthenticated { presented: false });
        problems.push(reached(TenantLimit::RequestsPerSecond));
        problems.push(RouteError::TooManySignIns);
        problems.push(RouteError::IssuerUnavailable { retry_after: Duration::from_secs(10) });
    }
    if let Access::Scopes(scopes) = needed {
        problems.extend(scopes.iter().map(|scope| RouteError::MissingScope { scope: *scope }));
        if method != "get" {
            problems.push(RouteError::NoRequestHeader);
        }
    }
    problems
}

/// Adds its problems to each operation of the description, by status, each with an example.
///
/// # Panics
/// When an operation is not listed here.
pub(super) fn add(description: &mut Value) {
    let paths = description["paths"].as_object_mut().expect("a description has paths");
    for (path, operations) in paths {
        for (method, operation) in operations.as_object_mut().expect("a path has operations") {
            let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
            let mut problems = examples(&id).unwrap_or_else(|| panic!("{path}: the errors of {id:?} are not listed"));
            problems.extend(access_problems(method, path));
            problems.push(RouteError::Panicked);
            if !["is_alive", "is_ready"].contains(&id.as_str()) {
                problems.push(RouteError::HostNotAllowed { host: "other.example.com".to_owned() });
            }
            let instance = path.replace("{id}", &EXAMPLE_ID.to_string()).replace("{name}", "orders");
            let mut by_status: BTreeMap<u16, StatusProblems> = BTreeMap::new();
            for problem in &problems {
                let answer = Answer::to(problem);
                let status = by_status.entry(answer.status.as_u16()).or_default();
                if !status.titles.contains(&answer.title) {
                    status.titles.push(answer.title);
                }
                status.has_retry_after |= answer.retry_after.is_some();
                let example = json!({ "summary": answer.title, "value": answer.document(&instance, REQUEST_ID) });
                status.examples.insert(answer.slug.to_owned(), example);
            }
            for (status, StatusProblems { titles, examples, has_retry_after }) in by_status {
                let mut response = json!({
                    "description": titles.join("; "),
                    "content": {"application/problem+json": {
                        "schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples,
                    }},
                });
                if has_retry_after {
                    response["headers"] = json!({"Retry-After": {
                        "description": "Seconds after which another try may help; not with every error of this status.",
                        "schema": {"type": "integer"},
                    }});
                }
                let there = &mut operation["responses"][status.to_string()];
                if there.is_null() {
                    *there = response;
                } else {
                    // The 503 of readiness has a document of its own, beside the problems.
                    let other = response["content"]["application/problem+json"].take();
                    there["content"]["application/problem+json"] = other;
                }
            }
        }
    }
}
