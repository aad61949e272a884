//! `GET /exports/{id}/manifest`: the contents of the file in numbers that can be checked against it, and the request that it
//! was made for. The manifest outlives the file. Of a result of several files it has the links.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use polyglot_core::compression::Compression;
use polyglot_core::manifest::{Manifest, ManifestFile};
use polyglot_core::request::ExportRequest;
use polyglot_core::status::Status;
use polyglot_formats::Format;
use polyglot_ledger::{AuditAction, Export};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::document::retry_after;
use super::id::ExportId;
use super::inspect::find;
use super::{options, request_document};
use crate::audit;
use crate::download::presigned::Signer;
use crate::identity::Caller;
use crate::problem::RouteError;
use crate::state::AppState;
use crate::timeout;
use crate::timestamp::timestamp;

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ManifestDocument {
    export_id: Uuid,
    dataset: String,
    #[schema(value_type = crate::openapi::submission::FormatSchema)]
    format: String,
    #[schema(value_type = Option<Compression>)]
    compression: Option<&'static str>,
    /// As in the submission; values as text. Of an export that was deleted, without the values.
    #[schema(value_type = Vec<Object>)]
    filters: Vec<Value>,
    /// The operator keeps some of the rows from this client, or masks values.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    policy_applied: bool,
    /// Those that the format has, each with its value.
    #[schema(value_type = Object)]
    options: Map<String, Value>,
    /// Without its files.
    #[serde(flatten)]
    manifest: Manifest,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    files: Vec<LinkedFile>,
    /// When the links of the files cease to work.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = String)]
    url_expires_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct LinkedFile {
    #[serde(flatten)]
    file: ManifestFile,
    /// While the file is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = String)]
    url: Option<String>,
}

/// Get the manifest of the file.
///
/// In numbers that can be checked against it, beside what was asked for. Of a result that is several files it has the links.
#[utoipa::path(
    get, path = "/exports/{id}/manifest", operation_id = "manifest_of_export", tag = "exports",
    params(("id" = Uuid, Path, description = "As POST /exports answers it.")),
    responses((status = 200, description = "It outlives the file.", body = ManifestDocument)),
)]
pub(crate) async fn manifest(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    ExportId(id): ExportId,
) -> Result<Response, RouteError> {
    let export = find(&app, &caller, id).await?;
    match export.status {
        Status::Pending | Status::Planning | Status::Running | Status::Finishing => {
            Err(RouteError::ExportNotFinished { status: export.status, retry_after: retry_after(&export) })
        }
        Status::Failed => Err(RouteError::ExportFailed { code: export.error_code, message: export.error }),
        Status::Cancelled => Err(RouteError::ExportGone(export.status)),
        Status::Completed | Status::Expired => {
            // Exports that completed under a version without manifests have none.
            let manifest = timeout::ledger(app.ledger.manifest(id)).await?.ok_or(RouteError::NoManifest(id))?;
            let request = timeout::ledger(app.ledger.request(id)).await?.ok_or(RouteError::UnknownExport(id))?;
            let mut document = ManifestDocument::new(&export, &request, manifest);
            audit::record(&app, audit::of_export(AuditAction::Manifest, &caller, &export)).await?;
            document.add_links(&app, &export).await?;
            Ok(document.into_response())
        }
    }
}

impl ManifestDocument {
    fn new(export: &Export, request: &ExportRequest, mut manifest: Manifest) -> Self {
        let files = std::mem::take(&mut manifest.files);
        Self {
            export_id: export.id,
            dataset: request.dataset.clone(),
            format: request.format.to_string(),
            compression: request.compression.map(Compression::name),
            filters: request.own_filters().iter().map(request_document::filter).collect(),
            policy_applied: request.has_policy(),
            options: Format::of(request).map(|format| options::document(&request.options, format)).unwrap_or_default(),
            manifest,
            files: files.into_iter().map(|file| LinkedFile { file, url: None }).collect(),
            url_expires_at: None,
        }
    }

    /// Adds a link to each file of a result that is several, while the files are there.
    async fn add_links(&mut self, app: &AppState, export: &Export) -> Result<(), RouteError> {
        let (false, Status::Completed, Some(prefix)) = (self.files.is_empty(), export.status, &export.object_key)
        else {
            return Ok(());
        };
        let signer = Signer::new(app);
        for LinkedFile { file, url } in &mut self.files {
            *url = Some(signer.url_of_part(export, prefix, &file.name).await?);
        }
        // A link works until its signature expires or its file is deleted.
        let signed_until = signer.expires_at();
        self.url_expires_at = Some(timestamp(export.expires_at.map_or(signed_until, |at| at.min(signed_until))));
        Ok(())
    }
}

impl IntoResponse for ManifestDocument {
    fn into_response(self) -> Response {
        let has_links = self.url_expires_at.is_some();
        let mut response = Json(self).into_response();
        if has_links {
            // Whoever has a link can read the file.
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::Utc;
    use polyglot_core::grant::Grant;
    use polyglot_core::manifest::{ManifestOrder, SnapshotPoint};
    use polyglot_core::request::{ColumnMapping, Layout};
    use polyglot_core::selection::{Filter, FilterOp, OrderKey};
    use serde_json::json;

    use super::super::document::tests::running;
    use super::*;
    use crate::resolved_dataset::tests::records;
    use crate::state::tests::app_without_backends;

    fn request() -> ExportRequest {
        records(&["id"]).request("csv", vec![ColumnMapping { source: "id".to_owned(), target: "a".to_owned() }])
    }

    #[test]
    fn the_document_says_what_was_asked_for_and_what_came_of_it() {
        let filter = |op, values: &[&str]| Filter {
            column: "id".to_owned(),
            path: Vec::new(),
            op,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let filters = vec![
            filter(FilterOp::In, &["1"]),
            filter(FilterOp::Less, &["0.10"]),
            filter(FilterOp::IsNotNull, &[]),
            Filter { path: vec!["customer".to_owned(), "id".to_owned()], ..filter(FilterOp::Equal, &["17"]) },
            Filter { path: vec!["a".to_owned()], ..filter(FilterOp::In, &["\"x\"", "true", "0.1000000000000000055"]) },
            // As a deletion leaves them.
            filter(FilterOp::In, &[]),
            filter(FilterOp::Equal, &[]),
        ];
        let grant = Grant { columns: Some(vec!["id".to_owned()]), ..Grant::default() };
        let compression = Some(Compression::Gzip);
        let request = ExportRequest { filters, compression, grant, ..request() };
        let export = Export { status: Status::Completed, ..running() };
        let manifest = Manifest {
            rows: 3,
            bytes: 40,
            uncompressed_bytes: 50,
            crc32: "0000abcd".to_owned(),
            columns: Vec::new(),
            order: ManifestOrder { by: vec![OrderKey::ascending("id")], promised: true },
            snapshot: SnapshotPoint { time: "2026-01-02T03:04:05Z".to_owned(), wal_position: None, promised: true },
            parts: Vec::new(),
            files: Vec::new(),
            replaced: Vec::new(),
        };
        let document = serde_json::to_value(ManifestDocument::new(&export, &request, manifest)).unwrap();
        let expected = json!({
            "exportId": export.id, "dataset": "records", "format": "csv", "compression": "gzip",
            "filters": [
                {"column": "id", "op": "in", "value": ["1"]},
                {"column": "id", "op": "<", "value": "0.10"},
                {"column": "id", "op": "is_not_null"},
                {"column": "id", "path": ["customer", "id"], "op": "=", "value": 17},
                {"column": "id", "path": ["a"], "op": "in", "value": ["x", true, "0.1000000000000000055"]},
                {"column": "id", "op": "in"},
                {"column": "id", "op": "="},
            ],
            "options": {
                "onUnrepresentable": "fail", "delimiter": ",", "decimal": ".", "header": true, "null": "", "bom": false, "lineEnding": "lf",
            },
            "rows": 3, "bytes": 40, "uncompressedBytes": 50, "crc32": "0000abcd", "columns": [],
            "order": {"by": [{"column": "id", "direction": "asc"}], "promised": true},
            "snapshot": {"time": "2026-01-02T03:04:05Z", "walPosition": null, "promised": true}, "parts": [], "replaced": [],
        });
        assert_eq!(document, expected);
    }

    #[tokio::test]
    async fn each_file_has_a_link_until_the_export_has_expired() {
        let file = |name: &str| ManifestFile {
            name: name.to_owned(),
            rows: 1,
            bytes: 2,
            uncompressed_bytes: 3,
            crc32: "0000abcd".to_owned(),
        };
        let manifest =
            Manifest { files: vec![file("part-00001.csv.gz"), file("part-00002.csv.gz")], ..Manifest::default() };
        let request = request();
        let export = Export {
            layout: Layout::Files,
            status: Status::Completed,
            object_key: Some("some/prefix/1/".to_owned()),
            ..running()
        };
        let app = app_without_backends().await;
        let mut document = ManifestDocument::new(&export, &request, manifest.clone());
        document.add_links(&app, &export).await.unwrap();
        let document = serde_json::to_value(document).unwrap();
        assert_eq!(document["files"].as_array().unwrap().len(), 2);
        assert_eq!(document["files"][1]["name"], "part-00002.csv.gz");
        assert_eq!(document["files"][1]["uncompressedBytes"], 3);
        let url = document["files"][1]["url"].as_str().unwrap();
        for part in [
            "http://127.0.0.1:1/exports/some/prefix/1/part-00002.csv.gz?",
            "response-content-type=application%2Fgzip",
            "response-content-disposition=attachment%3B%20filename%3D%22part-00002.csv.gz%22",
            "X-Amz-Expires=900",
            "X-Amz-Signature=",
        ] {
            assert!(url.contains(part), "{part} is not in {url}");
        }
        assert!(document["urlExpiresAt"].is_string(), "{document}");

        // What is deleted sooner than the signature ends says so.
        let sooner = Utc::now() + Duration::from_secs(5);
        let short = Export { expires_at: Some(sooner), ..export.clone() };
        let mut document = ManifestDocument::new(&short, &request, manifest.clone());
        document.add_links(&app, &short).await.unwrap();
        assert_eq!(document.url_expires_at, Some(timestamp(sooner)));
        assert_eq!(document.into_response().headers()[header::CACHE_CONTROL], "no-store");

        let expired = Export { status: Status::Expired, ..export };
        let mut document = ManifestDocument::new(&expired, &request, manifest);
        document.add_links(&app, &expired).await.unwrap();
        let document = serde_json::to_value(document).unwrap();
        assert_eq!(document["files"][0]["name"], "part-00001.csv.gz");
        assert_eq!((document["files"][0].get("url"), document.get("urlExpiresAt")), (None, None));
    }
}
