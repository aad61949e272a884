//! What a manifest says of a file before a row of it is read: made by the planner, and for an export that is cut kept in the
//! ledger, for who finishes it has no connection to the source.

use polyglot_core::manifest::{Manifest, ManifestColumn, ManifestOrder, SnapshotPoint};
use polyglot_core::request::ExportRequest;
use serde::{Deserialize, Serialize};

use super::read_plan::Plan;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestDraft {
    columns: Vec<ManifestColumn>,
    order: ManifestOrder,
    snapshot: SnapshotPoint,
    /// Of the relation, when the snapshot was taken. One that is attached later is seen by whoever reads from then on.
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

    /// Whether the relation still has the partitions that it had.
    pub(crate) fn has_partitions(&self, partitions: &[i64]) -> bool {
        self.partitions == partitions
    }

    /// Without what only the rows tell.
    pub(crate) fn manifest(self) -> Manifest {
        Manifest { columns: self.columns, order: self.order, snapshot: self.snapshot, ..Manifest::default() }
    }
}
