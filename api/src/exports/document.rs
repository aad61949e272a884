//! The JSON document of an export, with its estimates.

use chrono::{DateTime, Utc};
use polyglot_core::compression::Compression;
use polyglot_core::request::Layout;
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_core::status::Status;
use polyglot_core::tenant::BENCHMARK_TENANT;
use polyglot_ledger::{Export, WaitReason};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::timestamp::timestamp;

/// An export, as far as it is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportDocument {
    export_id: Uuid,
    #[schema(value_type = Status)]
    status: &'static str,
    /// While it is pending and could begin: what it waits for. Left out otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Waiting)]
    waiting: Option<Waiting>,
    dataset: String,
    #[schema(value_type = crate::openapi::submission::FormatSchema)]
    format: String,
    #[schema(value_type = Option<Compression>)]
    compression: Option<&'static str>,
    #[schema(value_type = Layout)]
    layout: &'static str,
    /// As the request has it; null: as many shards at a time as the operator allows.
    parallelism: Option<u16>,
    /// Why one worker reads all of it, once that is decided.
    single_stream: Option<SingleStream>,
    /// How often a worker has started it.
    attempt: i32,
    progress: Progress,
    /// Its file was deleted by `DELETE`, before it was due to expire. Its status is `expired`, too.
    deleted: bool,
    /// It belongs to a benchmark (`GET /exports/benchmark`), which deletes its file.
    benchmark: bool,
    /// Why it failed, in words for the user; `errorCode` is the same for programs.
    error: Option<String>,
    error_code: Option<String>,
    /// Why its work failed last, while it is tried again. Left out otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = LastFailure)]
    last_failure: Option<LastFailure>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    started_at: Option<String>,
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    /// When the file is deleted; null: it is kept.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    links: Links,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Progress {
    rows: i64,
    /// An estimate until the export is completed; unknown until a worker has looked at the relation.
    rows_total: Option<i64>,
    /// Of the file, compressed.
    bytes: i64,
    shards_done: i32,
    shards: i32,
    eta_seconds: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Waiting {
    /// `places`: for another export that keeps a snapshot open to end (MAX_OPEN_SNAPSHOTS); `workers`: for a free worker;
    /// `tenant`: for another export of the tenant to end, which has as many begun as it may.
    #[schema(example = "places")]
    reason: &'static str,
    /// How many exports of the same tenant wait for the same and were accepted earlier; 100 stands for 100 or more. Exports of
    /// other tenants take turns with them.
    before: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LastFailure {
    /// Failures one after the other, without progress in between; the export fails with the one of number MAX_ATTEMPTS.
    failures: i32,
    /// Those of a failed export.
    #[schema(example = "source_unavailable")]
    error_code: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct SingleStream {
    code: &'static str,
    reason: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExportLinks)]
struct Links {
    #[serde(rename = "self")]
    itself: String,
    /// While there is a file, or may yet be one. Several files are linked by the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = String)]
    download: Option<String>,
    /// Once there is, or has been, a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = String)]
    manifest: Option<String>,
}

impl ExportDocument {
    pub(crate) fn now(export: &Export) -> Self {
        Self::at(export, Utc::now())
    }

    fn at(export: &Export, now: DateTime<Utc>) -> Self {
        let itself = format!("/exports/{}", export.id);
        let has_future = export.status.is_active() || export.status == Status::Completed;
        let is_one_file = export.layout == Layout::File;
        let was_written = matches!(export.status, Status::Completed | Status::Expired);
        let failed = export.status == Status::Failed;
        Self {
            export_id: export.id,
            status: export.status.name(),
            waiting: export.waiting.map(Waiting::of),
            dataset: export.dataset.clone(),
            format: export.format.to_string(),
            compression: export.compression.map(Compression::name),
            layout: export.layout.name(),
            parallelism: export.requested_parallelism,
            single_stream: export.single_stream_reason.map(SingleStream::of),
            attempt: export.attempt,
            progress: Progress {
                rows: export.rows,
                rows_total: rows_total(export),
                bytes: export.bytes,
                shards_done: export.shards_done,
                shards: export.shards,
                eta_seconds: eta_seconds(export, now),
            },
            deleted: export.status == Status::Expired && export.cancel_requested,
            benchmark: export.tenant == BENCHMARK_TENANT,
            error: export.error.clone().filter(|_| failed),
            error_code: export.error_code.clone().filter(|_| failed),
            last_failure: LastFailure::of(export),
            created_at: timestamp(export.created_at),
            started_at: export.started_at.map(timestamp),
            finished_at: export.finished_at.map(timestamp),
            expires_at: export.expires_at.map(timestamp),
            links: Links {
                download: (has_future && is_one_file).then(|| format!("{itself}/download")),
                manifest: was_written.then(|| format!("{itself}/manifest")),
                itself,
            },
        }
    }
}

impl Waiting {
    fn of(waiting: polyglot_ledger::Waiting) -> Self {
        let reason = match waiting.reason {
            WaitReason::Places => "places",
            WaitReason::Workers => "workers",
            WaitReason::TenantLimit => "tenant",
        };
        Self { reason, before: waiting.before }
    }
}

impl LastFailure {
    fn of(export: &Export) -> Option<Self> {
        (export.status.is_active() && export.failures > 0).then(|| Self {
            failures: export.failures,
            error_code: export.error_code.clone(),
            error: export.error.clone(),
        })
    }
}

impl SingleStream {
    fn of(reason: SingleStreamReason) -> Self {
        Self { code: reason.code(), reason: reason.message() }
    }
}

/// Seconds after which a client should ask again.
pub(crate) fn retry_after(export: &Export) -> u32 {
    eta_seconds(export, Utc::now()).map_or(2, |eta| u32::try_from(eta.clamp(1, 30)).unwrap_or(30))
}

fn rows_total(export: &Export) -> Option<i64> {
    match export.status {
        Status::Completed | Status::Expired => Some(export.rows),
        // An estimate below the rows written so far is known to be too low.
        _ => export.rows_estimate.map(|estimate| estimate.max(export.rows)),
    }
}

/// Estimate of the remaining time, from the rate since the export was started. It is too long if an attempt has failed since.
fn eta_seconds(export: &Export, now: DateTime<Utc>) -> Option<i64> {
    let (Status::Running, Some(total), Some(started)) = (export.status, rows_total(export), export.started_at) else {
        return None;
    };
    let elapsed = (now - started).num_milliseconds();
    if export.rows <= 0 || elapsed <= 0 {
        return None;
    }
    let left = i128::from(total - export.rows) * i128::from(elapsed) / i128::from(export.rows);
    i64::try_from((left + 999) / 1000).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    pub(in crate::exports) fn running() -> Export {
        Export {
            id: Uuid::nil(),
            tenant: "default".to_owned(),
            owner: None,
            dataset: "records".to_owned(),
            format: "csv".into(),
            compression: Some(Compression::Gzip),
            layout: Layout::File,
            requested_parallelism: None,
            status: Status::Running,
            waiting: None,
            attempt: 2,
            rows_estimate: Some(1000),
            rows: 250,
            bytes: 5000,
            object_key: None,
            failures: 1,
            error_code: Some("source_unavailable".to_owned()),
            error: Some("The source database could not be reached.".to_owned()),
            cancel_requested: false,
            shards: 1,
            shards_done: 0,
            single_stream_reason: None,
            peak_memory_bytes: None,
            created_at: at("2026-01-02T03:04:05.123456Z"),
            started_at: Some(at("2026-01-02T03:04:06Z")),
            finished_at: None,
            expires_at: None,
        }
    }

    #[test]
    fn the_document_is_the_contract_s() {
        let document = ExportDocument::at(&running(), at("2026-01-02T03:04:16Z"));
        let id = "00000000-0000-0000-0000-000000000000";
        let expected = json!({
            "exportId": id, "status": "running", "dataset": "records", "format": "csv", "compression": "gzip",
            "layout": "file", "parallelism": null, "singleStream": null, "attempt": 2,
            "progress": {"rows": 250, "rowsTotal": 1000, "bytes": 5000, "shardsDone": 0, "shards": 1, "etaSeconds": 30},
            "deleted": false, "benchmark": false, "error": null, "errorCode": null,
            "lastFailure": {"failures": 1, "errorCode": "source_unavailable", "error": "The source database could not be reached."},
            "createdAt": "2026-01-02T03:04:05.123Z", "startedAt": "2026-01-02T03:04:06.000Z",
            "finishedAt": null, "expiresAt": null,
            "links": {"self": format!("/exports/{id}"), "download": format!("/exports/{id}/download")},
        });
        assert_eq!(serde_json::to_value(document).unwrap(), expected);
    }

    #[test]
    fn a_wait_says_for_what_and_behind_how_many() {
        let waiting = polyglot_ledger::Waiting { reason: WaitReason::Places, before: 12 };
        let export = Export { status: Status::Pending, waiting: Some(waiting), ..running() };
        let document = serde_json::to_value(ExportDocument::now(&export)).unwrap();
        assert_eq!(document["waiting"], json!({"reason": "places", "before": 12}));
    }

    #[test]
    fn a_failure_is_the_last_one_while_it_is_tried_again_and_the_export_s_own_at_the_end() {
        let document = |status, failures| {
            let export = Export { status, failures, ..running() };
            let document = serde_json::to_value(ExportDocument::now(&export)).unwrap();
            (document["lastFailure"]["errorCode"].clone(), document["errorCode"].clone())
        };
        let code = json!("source_unavailable");
        assert_eq!(document(Status::Pending, 2), (code.clone(), json!(null)));
        assert_eq!(document(Status::Running, 0), (json!(null), json!(null)));
        assert_eq!(document(Status::Completed, 1), (json!(null), json!(null)));
        assert_eq!(document(Status::Failed, 5), (json!(null), code));
    }

    #[test]
    fn links_are_to_what_is_there() {
        for (status, download, manifest) in [
            (Status::Pending, true, false),
            (Status::Finishing, true, false),
            (Status::Completed, true, true),
            (Status::Expired, false, true),
            (Status::Failed, false, false),
            (Status::Cancelled, false, false),
        ] {
            let Links { download: file, manifest: about, .. } =
                ExportDocument::now(&Export { status, ..running() }).links;
            assert_eq!((file.is_some(), about.is_some()), (download, manifest), "{status}");
        }
        let files = Export { layout: Layout::Files, status: Status::Completed, ..running() };
        let Links { download, manifest, .. } = ExportDocument::now(&files).links;
        assert!(download.is_none() && manifest.is_some());
    }

    #[test]
    fn deleted_files_and_benchmarks_are_told_from_expired_ones() {
        for (status, cancel_requested, deleted) in [
            (Status::Expired, false, false),
            (Status::Expired, true, true),
            (Status::Cancelled, true, false),
            (Status::Completed, false, false),
        ] {
            let document = ExportDocument::now(&Export { status, cancel_requested, ..running() });
            assert_eq!((document.deleted, document.benchmark), (deleted, false), "{status}");
        }
        assert!(ExportDocument::now(&Export { tenant: BENCHMARK_TENANT.to_owned(), ..running() }).benchmark);
    }

    #[test]
    fn what_became_of_the_wish_to_be_cut_is_said() {
        let export = Export {
            layout: Layout::Files,
            requested_parallelism: Some(4),
            single_stream_reason: Some(SingleStreamReason::Small),
            ..running()
        };
        let document = serde_json::to_value(ExportDocument::now(&export)).unwrap();
        assert_eq!(document["layout"], "files");
        assert_eq!(document["parallelism"], 4);
        let reason = json!({"code": "small", "reason": "The result is small enough for one worker."});
        assert_eq!(document["singleStream"], reason);
    }

    #[test]
    fn guesses_stay_sane() {
        let now = at("2026-01-02T03:04:16Z");
        let low = Export { rows_estimate: Some(100), ..running() };
        let progress = ExportDocument::at(&low, now).progress;
        assert_eq!((progress.rows_total, progress.eta_seconds), (Some(250), Some(0)));
        let fresh = Export { rows: 0, ..running() };
        assert_eq!(ExportDocument::at(&fresh, now).progress.eta_seconds, None);
        let done = Export { status: Status::Completed, ..running() };
        let progress = ExportDocument::at(&done, now).progress;
        assert_eq!((progress.rows_total, progress.eta_seconds), (Some(250), None));
    }
}
