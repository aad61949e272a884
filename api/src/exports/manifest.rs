//! `GET /exports/{id}/manifest`: what the file holds, in numbers that can be checked against it, beside what was asked
//! for. It outlives the file.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use polyglot_export::format::Compression;
use polyglot_export::ledger::Export;
use polyglot_export::manifest::Manifest;
use polyglot_export::selection::{Filter, FilterOp};
use polyglot_export::status::Status;
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{ExportId, find, options, retry_after};
use crate::patience;
use crate::problem::RouteError;
use crate::server::App;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    export_id: Uuid,
    dataset: String,
    format: &'static str,
    compression: Option<&'static str>,
    filters: Vec<Value>,
    options: Map<String, Value>,
    #[serde(flatten)]
    manifest: Manifest,
}

pub(crate) async fn manifest(
    State(app): State<Arc<App>>,
    ExportId(id): ExportId,
) -> Result<Json<Document>, RouteError> {
    let export = find(&app, id).await?;
    match export.status {
        Status::Pending | Status::Planning | Status::Running | Status::Finishing => {
            Err(RouteError::ExportNotFinished { status: export.status, retry_after: retry_after(&export) })
        }
        Status::Failed => Err(RouteError::ExportFailed { code: export.error_code, message: export.error }),
        Status::Cancelled => Err(RouteError::ExportGone(export.status)),
        Status::Completed | Status::Expired => {
            // An export that completed before manifests were written has none.
            let manifest = patience::ledger(app.ledger.manifest(id)).await?.ok_or(RouteError::NoManifest(id))?;
            Ok(Json(Document::new(&export, manifest)))
        }
    }
}

impl Document {
    fn new(export: &Export, manifest: Manifest) -> Self {
        let request = &export.request;
        Self {
            export_id: export.id,
            dataset: request.dataset.clone(),
            format: request.format.name(),
            compression: request.compression.map(Compression::name),
            filters: request.filters.iter().map(filter).collect(),
            options: options::document(&request.options, request.format),
            manifest,
        }
    }
}

/// As a submission has it. Values are the text that the server got.
fn filter(filter: &Filter) -> Value {
    let mut document = json!({ "column": filter.column, "op": filter.op.name() });
    match (filter.op, filter.values.first()) {
        (FilterOp::In, _) => document["value"] = json!(filter.values),
        (_, Some(value)) => document["value"] = json!(value),
        (_, None) => {}
    }
    document
}

#[cfg(test)]
mod tests {
    use polyglot_export::manifest::{ManifestOrder, SnapshotPoint};
    use polyglot_export::request::ExportRequest;
    use polyglot_export::selection::OrderKey;

    use super::super::document::tests::running;
    use super::*;

    #[test]
    fn the_document_says_what_was_asked_for_and_what_came_of_it() {
        let filter = |op, values: &[&str]| Filter {
            column: "id".to_owned(),
            op,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let filters =
            vec![filter(FilterOp::In, &["1"]), filter(FilterOp::Less, &["0.10"]), filter(FilterOp::IsNotNull, &[])];
        let export = running();
        let request = ExportRequest { filters, exposed: Some(vec!["id".to_owned()]), ..export.request };
        let export = Export { request, status: Status::Completed, ..running() };
        let manifest = Manifest {
            rows: 3,
            bytes: 40,
            uncompressed_bytes: 50,
            crc32: "0000abcd".to_owned(),
            columns: Vec::new(),
            order: ManifestOrder { by: vec![OrderKey::ascending("id")], promised: true },
            snapshot: SnapshotPoint { time: "2026-01-02T03:04:05Z".to_owned(), wal_position: None },
            parts: Vec::new(),
            replaced: Vec::new(),
        };
        let document = serde_json::to_value(Document::new(&export, manifest)).unwrap();
        let expected = json!({
            "exportId": export.id, "dataset": "records", "format": "csv", "compression": "gzip",
            "filters": [
                {"column": "id", "op": "in", "value": ["1"]},
                {"column": "id", "op": "<", "value": "0.10"},
                {"column": "id", "op": "is_not_null"},
            ],
            "options": {
                "onUnrepresentable": "fail", "delimiter": ",", "header": true, "null": "", "bom": false, "lineEnding": "lf",
            },
            "rows": 3, "bytes": 40, "uncompressedBytes": 50, "crc32": "0000abcd", "columns": [],
            "order": {"by": [{"column": "id", "direction": "asc"}], "promised": true},
            "snapshot": {"time": "2026-01-02T03:04:05Z", "walPosition": null}, "parts": [], "replaced": [],
        });
        assert_eq!(document, expected);
    }
}
