//! What a client asked for, after validation, as the ledger stores it and the worker reads it. Validation
//! itself (and its 400s) lives in the api.

use serde::{Deserialize, Serialize};

use crate::format::{Compression, Format};

/// One output column: a column of the dataset and the name it gets in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnMapping {
    pub source: String,
    pub target: String,
}

/// A validated export request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportRequest {
    pub dataset: String,
    pub format: Format,
    pub columns: Vec<ColumnMapping>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Exports only the first so many rows in order. Set by the benchmark alone, never by `POST /exports`: a
    /// client's file is never cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_limit: Option<u64>,
}

impl ExportRequest {
    /// The name a browser saves the file under: `export-{id}.{ext}`. The body of a compressed download is
    /// declared with `Content-Encoding`, so clients unpack it on the way and the name stays without `.gz`.
    #[must_use]
    pub fn file_name(&self, id: uuid::Uuid) -> String {
        format!("export-{id}.{}", self.format.name())
    }

    /// The `Content-Disposition` of the file.
    #[must_use]
    pub fn content_disposition(&self, id: uuid::Uuid) -> String {
        format!("attachment; filename=\"{}\"", self.file_name(id))
    }
}
