//! The publication of a finished file, and its record in the ledger.

use polyglot_core::failure::chain;
use polyglot_core::manifest::Manifest;
use polyglot_ledger::{Claim, Finished, JobKind, LedgerError, Renewal};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::lease::{keep_lease_while, retry_within_lease};
use super::outcome::record_end;
use crate::context::WorkerContext;
use crate::metrics::Outcome;
use crate::progress::Progress;
use crate::upload::{Interruption, StagedObject, Upload};
use crate::work_error::WorkError;
use crate::{memory, metrics};

/// Publishes the file and records the export as completed. From here on nothing may interrupt the work halfway,
/// except while it waits for a store that is away.
pub(super) async fn publish(
    context: &WorkerContext,
    claim: &Claim,
    mut upload: Upload<'_>,
    progress: &Progress,
    staged: StagedObject,
    manifest: Manifest,
    aborting: &CancellationToken,
) -> Outcome {
    let finishing = async {
        match retry_within_lease(context, || context.ledger.finishing(claim)).await {
            Ok(Renewal::Held) => {}
            Ok(Renewal::CancelRequested) => {
                return end_without_file(context, claim, upload, WorkError::Cancelled).await;
            }
            Err(error) => return end_without_file(context, claim, upload, error.into()).await,
        }
        let interruption = Interruption { ledger: &context.ledger, claim, aborting };
        let etag = match upload.publish(staged, &manifest, &interruption).await {
            Ok(etag) => etag,
            Err(error) => return end_without_file(context, claim, upload, error.into()).await,
        };
        let finished = Finished {
            object_key: upload.object_key().to_owned(),
            etag,
            peak_memory_bytes: memory::peak_bytes(),
            manifest,
        };
        let (rows, bytes) = (finished.manifest.rows, finished.manifest.bytes);
        let keep = context.settings.keep;
        match retry_within_lease(context, || context.ledger.complete(claim, &finished, keep)).await {
            Ok(Renewal::Held) => {
                tracing::info!(rows, bytes, peak_memory_bytes = finished.peak_memory_bytes, "export completed");
                // The shards of a sharded export were counted one by one.
                if matches!(claim.work, JobKind::Start { .. }) {
                    metrics::stored(claim, rows, bytes);
                }
                Outcome::Done
            }
            Ok(Renewal::CancelRequested) => end_without_file(context, claim, upload, WorkError::Cancelled).await,
            // The ledger refused: the export has gone on without this worker, unless this call repeated one whose
            // answer was lost. The ledger knows whose file it has.
            Err(LedgerError::LeaseLost) if !owns_file(context, claim, upload.object_key()).await => {
                end_without_file(context, claim, upload, WorkError::Lost).await
            }
            // It is unknown here whether the ledger recorded it, so the object stays. If it did not, the object is in
            // the ledger's list of uploads, and the sweeper removes it once another attempt has begun.
            Err(error) => {
                tracing::warn!(error = chain(&error), "the finished export could not be recorded in the ledger");
                Outcome::Lost
            }
        }
    };
    let finishing = finishing.instrument(tracing::info_span!("complete"));
    keep_lease_while(context, claim, progress, Box::pin(finishing)).await
}

/// Ends work without a file. An upload that several claims share is left to the sweeper, which knows whether the
/// attempt continues.
async fn end_without_file(context: &WorkerContext, claim: &Claim, upload: Upload<'_>, error: WorkError) -> Outcome {
    if matches!(claim.work, JobKind::Start { .. }) {
        upload.discard().await;
    }
    record_end(context, claim, error).await
}

/// Returns whether the ledger may have `key` as the export's file: true also if the ledger does not answer.
async fn owns_file(context: &WorkerContext, claim: &Claim, key: &str) -> bool {
    match retry_within_lease(context, || context.ledger.find(claim.export_id)).await {
        Ok(export) => export.is_some_and(|export| export.object_key.as_deref() == Some(key)),
        Err(_) => true,
    }
}
