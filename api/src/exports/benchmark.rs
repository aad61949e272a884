//! `GET /exports/benchmark`: exports of the default dataset, one format after the other, through the same queue, workers and
//! object store as any export. The measured time is the time that a client would have waited.

use std::sync::Arc;
use std::time::Duration;

use crate::dataset_config::DEFAULT_DATASET;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use chrono::{DateTime, Utc};
use polyglot_core::failure::chain;
use polyglot_core::request::{ColumnMapping, ExportRequest};
use polyglot_core::status::Status;
use polyglot_core::tenant::BENCHMARK_TENANT;
use polyglot_formats::Format;
use polyglot_ledger::{Deletion, Export};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::cross_site::is_cross_site;
use crate::problem::{RouteError, listed, quoted};
use crate::query::Parameters;
use crate::resolved_dataset::ResolvedDataset;
use crate::state::AppState;
use crate::timeout;

const DEFAULT_FORMATS: [&str; 4] = ["csv", "json", "xml", "parquet"];

/// Time that a worker may take to claim an export.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BenchmarkReport)]
pub(crate) struct Report {
    dataset_row_count: u64,
    results: Vec<Measurement>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Measurement {
    #[schema(value_type = crate::openapi::submission::FormatSchema)]
    format: String,
    /// From the acceptance of the export to its completion, to the millisecond.
    duration_seconds: f64,
    file_size_bytes: i64,
    /// Peak resident set of the worker in MiB; null where its system does not tell.
    #[serde(rename = "peakMemoryMB")]
    peak_memory_mb: Option<f64>,
}

/// The parameters of a benchmark.
struct Plan {
    formats: Vec<Format>,
    /// Limit of the rows of each export.
    rows: Option<u64>,
}

/// Run a benchmark.
///
/// Exports of the default dataset, one format after the other, through the real queue, workers and object store. The answer
/// comes when the last one has ended; a client that hangs up stops it. One runs at a time, and only where the operator has set
/// `BENCHMARK=on`. Its exports take turns with those of clients, as those of another tenant.
#[utoipa::path(
    get, path = "/exports/benchmark", operation_id = "run_benchmark", tag = "operation",
    params(
        ("rows" = Option<u64>, Query, minimum = 1, maximum = 9_223_372_036_854_775_807_u64,
            description = "The first so many rows; all of them unless told."),
        ("formats" = Option<String>, Query, example = "csv,parquet",
            description = "Separated by commas; csv, json, xml and parquet unless told."),
    ),
    responses((status = 200, description = "What each export took.", body = Report)),
)]
pub(crate) async fn benchmark(
    State(app): State<Arc<AppState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Report>, RouteError> {
    if !app.access.benchmark {
        return Err(RouteError::BenchmarkOff);
    }
    // It is a GET with an effect, which a page of another site can have a browser send.
    if is_cross_site(&uri, &headers) {
        return Err(RouteError::CrossSite);
    }
    let plan = Plan::read(&uri)?;
    // In a task of its own: the handler is dropped when the client disconnects, and the export has to be deleted then.
    let cancelled = app.lifecycle.stopping.child_token();
    let _cancel_on_drop = cancelled.clone().drop_guard();
    let run = run(Arc::clone(&app), plan, cancelled).in_current_span();
    app.lifecycle.tasks.spawn(run).await.map_err(|_| RouteError::Panicked)?.map(Json)
}

impl Plan {
    fn read(uri: &Uri) -> Result<Self, RouteError> {
        let parameters = Parameters::read(uri, &["rows", "formats"])?;
        let rows = parameters.number("rows", 1..=i64::MAX.unsigned_abs())?;
        let Some(names) = parameters.get("formats") else {
            return Ok(Self { formats: DEFAULT_FORMATS.into_iter().filter_map(Format::by_name).collect(), rows });
        };
        let mut formats = Vec::new();
        for name in names.split(',') {
            let format = Format::by_name(name).filter(|format| !formats.contains(format)).ok_or_else(|| {
                let message = format!("expected different ones of {}, not {}", listed(Format::all()), quoted(name));
                RouteError::invalid("formats", message)
            })?;
            formats.push(format);
        }
        Ok(Self { formats, rows })
    }
}

/// Runs the plan under a lock of the ledger, so that one benchmark runs at a time in the whole service. Ends soon after
/// `cancelled`, and deletes its exports.
async fn run(app: Arc<AppState>, plan: Plan, cancelled: CancellationToken) -> Result<Report, RouteError> {
    let lock = timeout::ledger(app.ledger.try_benchmark_lock()).await?.ok_or(RouteError::BenchmarkRunning)?;
    let report = measure_all(&app, &plan, &cancelled).await;
    // A dropped lock is released too, but only when the server notices the closed connection.
    if let Err(error) = timeout::ledger(lock.release()).await {
        tracing::warn!(error = chain(&error), "the benchmark's lock could not be released");
    }
    report
}

async fn measure_all(app: &AppState, plan: &Plan, cancelled: &CancellationToken) -> Result<Report, RouteError> {
    let unknown = || RouteError::UnknownDataset(DEFAULT_DATASET.to_owned());
    app.source.check_role().await?;
    let resolved = app.source.resolve(DEFAULT_DATASET, Duration::ZERO).await?.ok_or_else(unknown)?;
    if !resolved.dataset.policy.is_default() {
        let source = "a benchmark exports every row, and the dataset has a policy".into();
        return Err(RouteError::PolicyNotApplicable { dataset: DEFAULT_DATASET.to_owned(), source });
    }
    let dataset_row_count = tokio::select! {
        count = app.source.count(&resolved.dataset) => count?,
        () = cancelled.cancelled() => return Err(RouteError::Stopping),
    };
    let mut results = Vec::with_capacity(plan.formats.len());
    for &format in &plan.formats {
        let request = ExportRequest { row_limit: plan.rows, ..resolved.request(format, all_columns(&resolved)) };
        let id = timeout::ledger(app.ledger.submit(BENCHMARK_TENANT, &request)).await?;
        app.relay.wake();
        tracing::info!(export_id = %id, format = format.name, "benchmark export submitted");
        let export = wait_for_end(app, id, cancelled).await;
        delete(app, id).await;
        results.push(measurement(&export?)?);
    }
    Ok(Report { dataset_row_count, results })
}

fn all_columns(resolved: &ResolvedDataset) -> Vec<ColumnMapping> {
    let mapping = |name: &String| ColumnMapping { source: name.clone(), target: name.clone() };
    resolved.columns().map(|column| mapping(&column.name)).collect()
}

async fn wait_for_end(app: &AppState, id: Uuid, cancelled: &CancellationToken) -> Result<Export, RouteError> {
    let submitted = Instant::now();
    loop {
        let export = timeout::ledger(app.ledger.find(id)).await?.ok_or(RouteError::UnknownExport(id))?;
        if !export.status.is_active() {
            return Ok(export);
        }
        if export.attempt == 0 && submitted.elapsed() > CLAIM_TIMEOUT {
            return Err(RouteError::NoWorker);
        }
        tokio::select! {
            () = sleep(POLL_INTERVAL) => {}
            () = cancelled.cancelled() => return Err(RouteError::Stopping),
        }
    }
}

/// Cancels the export or deletes its file. If that fails, the sweeper does it later.
async fn delete(app: &AppState, id: Uuid) {
    let deletion = async {
        if let Deletion::Ended { object_key: Some(key) } = timeout::ledger(app.ledger.delete(id)).await? {
            timeout::store(app.storage.delete_result(&key)).await?;
            timeout::ledger(app.ledger.object_deleted(id)).await?;
        }
        Ok::<_, RouteError>(())
    };
    if let Err(error) = deletion.await {
        tracing::warn!(error = chain(&error), export_id = %id, "a benchmark's file is left to the sweeper");
    }
}

fn measurement(export: &Export) -> Result<Measurement, RouteError> {
    let format = export.format.to_string();
    match (export.status, export.finished_at) {
        (Status::Completed, Some(finished)) => Ok(Measurement {
            format,
            duration_seconds: seconds_between(export.created_at, finished),
            file_size_bytes: export.bytes,
            peak_memory_mb: export.peak_memory_bytes.map(mebibytes),
        }),
        (status, _) => {
            let message = export.error.clone().unwrap_or_else(|| format!("it is {status}"));
            Err(RouteError::BenchmarkFailed { format, message })
        }
    }
}

fn seconds_between(start: DateTime<Utc>, end: DateTime<Utc>) -> f64 {
    ((end - start).as_seconds_f64() * 1000.0).round() / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a size in memory, shown to one decimal of a MiB")]
fn mebibytes(bytes: i64) -> f64 {
    (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_as_documented() {
        let start: DateTime<Utc> = "2026-01-02T03:04:05.000400Z".parse().unwrap();
        assert!((seconds_between(start, start + Duration::from_micros(12_345_678)) - 12.346).abs() < 1e-9);
        assert!((mebibytes(96 * 1024 * 1024 + 60_000) - 96.1).abs() < 1e-9);
    }

    #[test]
    fn plans_are_read() {
        let plan = Plan::read(&Uri::from_static("/exports/benchmark?rows=1000&formats=parquet,jsonl")).unwrap();
        assert_eq!((plan.rows, listed(plan.formats)), (Some(1000), "parquet, jsonl".to_owned()));
        assert_eq!(listed(Plan::read(&Uri::from_static("/x")).unwrap().formats), listed(DEFAULT_FORMATS));
        for bad in ["/x?formats=", "/x?formats=csv,csv", "/x?formats=csv,", "/x?rows=-1", "/x?rows=1e3"] {
            assert!(Plan::read(&Uri::from_static(bad)).is_err(), "{bad}");
        }
    }
}
