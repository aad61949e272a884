//! An update: what a stream sends of an export when something in it is new.

use polyglot_core::status::Status;
use polyglot_ledger::{Change, Export};
use uuid::Uuid;

use crate::exports::document::ExportDocument;
use crate::identity::Caller;

/// The current state of an export, and the changes that led there.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) export_id: Uuid,
    pub(super) tenant: String,
    /// The one caller of the tenant who may see the export, if it is one alone.
    pub(super) owner: Option<String>,
    pub(crate) status: Status,
    /// JSON, as `GET /exports/{id}` answers it.
    pub(crate) document: String,
    /// Changes since the previous update.
    pub(crate) changes: Vec<Change>,
    /// The number of the newest change, or of an earlier one where that is not known.
    pub(crate) change: i64,
    /// Every change up to this number, of any export, was broadcast before this update. 0 in an update that is not the feed's.
    pub(crate) settled: i64,
}

impl Update {
    /// `known_change` is the newest change that is known of the export, for an update without changes; 0 if there is none.
    pub(super) fn new(export: &Export, changes: Vec<Change>, known_change: i64) -> Self {
        Self {
            export_id: export.id,
            tenant: export.tenant.clone(),
            owner: export.owner.clone(),
            status: export.status,
            document: serde_json::to_string(&ExportDocument::now(export))
                .expect("ExportDocument has no map and no serializer that fails"),
            change: changes.last().map_or(known_change, |change| change.id),
            changes,
            settled: 0,
        }
    }

    /// Whether the export is one that the caller may see.
    pub(super) fn is_for(&self, caller: &Caller) -> bool {
        caller.visible_tenants.contains(&self.tenant) && self.owner.as_ref().is_none_or(|owner| *owner == caller.name)
    }
}
