//! What a client asked for, after validation, as the ledger stores it and the worker reads it. Validation
//! itself (and its 400s) lives in the api.

use serde::{Deserialize, Serialize};

use crate::compression::Compression;
use crate::format::FormatName;
use crate::format_options::FormatOptions;
use crate::grant::Grant;
use crate::relation::RelationName;
use crate::selection::{Filter, OrderKey};

/// One output column: a column of the dataset and the name it gets in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnMapping {
    pub source: String,
    pub target: String,
}

/// How the result lies in the object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One object.
    #[default]
    File,
    /// One object for each shard, each a whole file of the format, under one prefix.
    Files,
}

impl Layout {
    pub const ALL: [Self; 2] = [Self::File, Self::Files];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Files => "files",
        }
    }

    /// The layout of that name, or `None`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.name() == name)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde wants")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The headers of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHeaders {
    pub content_type: &'static str,
    pub content_encoding: Option<&'static str>,
    pub content_disposition: String,
}

/// A validated export request. It names the relation itself, so a worker needs no list of datasets, and what was
/// exposed when the export was accepted is what is exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportRequest {
    pub dataset: String,
    /// Requests of versions that knew one dataset have none.
    #[serde(default = "RelationName::records")]
    pub relation: RelationName,
    /// What the operator lets clients have of the relation.
    #[serde(rename = "exposed", default, skip_serializing_if = "Grant::is_default")]
    pub grant: Grant,
    pub format: FormatName,
    pub columns: Vec<ColumnMapping>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// All of them must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// How many of the filters, the first ones, the operator's policy has added. Clients are not shown these.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub policy_filters: usize,
    /// Empty: the primary key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order_by: Vec<OrderKey>,
    #[serde(default)]
    pub options: FormatOptions,
    /// Shards of it that are worked on at a time; `None`: as many as the operator allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u16>,
    #[serde(default, skip_serializing_if = "Layout::is_default")]
    pub layout: Layout,
    /// Exports only the first so many rows in order. Set by the benchmark alone, never by `POST /exports`: a
    /// client's file is never cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_limit: Option<u64>,
}

impl ExportRequest {
    /// A request for `columns` of a relation, with every choice left at its default.
    #[must_use]
    pub fn new(
        dataset: impl Into<String>,
        relation: RelationName,
        format: impl Into<FormatName>,
        columns: Vec<ColumnMapping>,
    ) -> Self {
        Self {
            dataset: dataset.into(),
            relation,
            grant: Grant::default(),
            format: format.into(),
            columns,
            compression: None,
            filters: Vec::new(),
            policy_filters: 0,
            order_by: Vec::new(),
            options: FormatOptions::default(),
            parallelism: None,
            layout: Layout::File,
            row_limit: None,
        }
    }

    /// The filters that the client has asked for.
    #[must_use]
    pub fn own_filters(&self) -> &[Filter] {
        self.filters.get(self.policy_filters..).unwrap_or_default()
    }

    /// Whether the operator keeps rows or values back.
    #[must_use]
    pub fn has_policy(&self) -> bool {
        self.policy_filters > 0 || self.grant.has_policy()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde wants")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_the_first_version_is_still_read() {
        let stored = r#"{"dataset": "records", "format": "csv", "columns": [{"source": "id", "target": "a"}]}"#;
        let columns = vec![ColumnMapping { source: "id".to_owned(), target: "a".to_owned() }];
        let expected = ExportRequest::new("records", RelationName::records(), "csv", columns);
        assert_eq!(serde_json::from_str::<ExportRequest>(stored).unwrap(), expected);
    }
}
