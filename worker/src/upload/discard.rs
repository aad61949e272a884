//! Removing what an attempt that failed has put into the store.

use std::time::Duration;

use polyglot_core::failure::chain;
use polyglot_ledger::OrphanedUpload;
use polyglot_storage::OrphanedObject;

use super::{Target, Upload};

/// Time that the removal may take before it is left to the sweeper.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

impl Upload<'_> {
    /// Removes whatever this attempt put into the store. What cannot be removed now stays in the ledger for the
    /// sweeper.
    pub(crate) async fn discard(self) {
        let Self { target: Target { storage, ledger, .. }, claim, object_key, key, .. } = self;
        if !self.may_be_recorded {
            return;
        }
        let upload_id = self.multipart.map(|upload| upload.id);
        let orphaned = OrphanedUpload {
            export_id: claim.export_id,
            attempt: claim.attempt,
            object: OrphanedObject { object_key, upload_id, upload_key: key, owned: false },
            cleanup_passes: 0,
        };
        let removal = async {
            // The sweeper checks again: what was on the wire when the attempt was stopped may still arrive, and a session
            // on the source may not have noticed.
            let recorded = ledger.abandon_upload(&orphaned).await;
            if self.may_be_stored {
                storage.remove_orphaned(&orphaned.object).await.map_err(|error| chain(&error))?;
            }
            recorded.map_err(|error| chain(&error))
        };
        let problem = match tokio::time::timeout(DISCARD_TIMEOUT, removal).await {
            Ok(Ok(())) => return,
            Ok(Err(problem)) => problem,
            Err(_) => "it took too long".to_owned(),
        };
        tracing::warn!(problem, "the attempt's upload could not be removed, the sweeper will");
    }
}
