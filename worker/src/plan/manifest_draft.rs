//! The part of a manifest that is known before a row is read. The planner makes it. For a sharded export it is stored
//! in the ledger, because the worker that finishes the export has no connection to the source.

use polyglot_core::manifest::{Manifest, ManifestColumn, ManifestOrder, SnapshotPoint};
use polyglot_core::request::ExportRequest;
use serde::{Deserialize, Serialize};

use super::read_plan::Plan;

/// A manifest without what depends on the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestDraft {
    columns: Vec<ManifestColumn>,
    order: ManifestOrder,
    snapshot: SnapshotPoint,
    /// The relation's partitions when the snapshot was taken. A partition that is attached later is seen by every
    /// transaction that begins to read after that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    partitions: Vec<i64>,
}

impl ManifestDraft {
    pub(crate) fn new(plan: &Plan, request: &ExportRequest, snapshot: SnapshotPoint) -> Self {
        let columns = request.columns.iter().zip(&plan.sources).map(|(mapping, source)| ManifestColumn {
            name: mapping.target.clone(),
            source: mapping.source.clone(),
            source_type: source.sql_type.clone(),
            output_type: plan.format.output_type(source, &request.options),
        });
        Self {
            columns: columns.collect(),
            order: ManifestOrder { by: plan.order.shown(request), promised: plan.order.total },
            snapshot,
            partitions: Vec::new(),
        }
    }

    pub(crate) fn with_partitions(self, partitions: Vec<i64>) -> Self {
        Self { partitions, ..self }
    }

    /// Returns whether the relation's partitions are still those of the plan.
    pub(crate) fn has_partitions(&self, partitions: &[i64]) -> bool {
        self.partitions == partitions
    }

    /// Returns a manifest without what depends on the rows.
    pub(crate) fn manifest(self) -> Manifest {
        Manifest { columns: self.columns, order: self.order, snapshot: self.snapshot, ..Manifest::default() }
    }
}
