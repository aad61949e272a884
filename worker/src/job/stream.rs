//! An export that one worker reads as one stream: source → encode → compress → part → upload. Bounded channels connect
//! the stages, and the CPU work runs on a thread of its own. A stage whose channel was closed reports no error, so that
//! the error that is returned is the first one.

use std::sync::Arc;

use polyglot_core::manifest::{Manifest, ManifestFile};
use polyglot_core::request::{ExportRequest, Layout};
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_ledger::{Claim, Renewal, retry_while_unavailable};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::context::WorkerContext;
use crate::dataset_limit;
use crate::encode_task::{EncodeTask, Encoded, Extent, encode, replaced};
use crate::part::{Output, Parts, Written, WrittenParts};
use crate::plan::{ManifestDraft, Plan, Range};
use crate::progress::Progress;
use crate::read::{LivenessProbe, Source};
use crate::upload::{StagedObject, Upload, UploadError};
use crate::work_error::WorkError;

/// An export that was planned as one stream.
pub(super) struct Stream<'a> {
    pub claim: &'a Claim,
    pub source: Source,
    pub plan: Plan,
    pub file: ManifestDraft,
    pub reason: SingleStreamReason,
    pub probe: LivenessProbe<'a>,
}

/// Reads, encodes and uploads all rows. Nothing is visible when this returns. Dropping the future stops all stages.
pub(super) async fn run(
    context: &WorkerContext,
    stream: Stream<'_>,
    upload: &mut Upload<'_>,
    progress: &Arc<Progress>,
) -> Result<(StagedObject, Manifest), WorkError> {
    let Stream { claim, mut source, plan, file, reason, probe } = stream;
    let (ledger, settings) = (&context.ledger, &context.settings);
    let running =
        retry_while_unavailable(settings.lease, || ledger.streaming(claim, plan.rows_estimate(), reason)).await?;
    if running == Renewal::CancelRequested {
        return Err(WorkError::Cancelled);
    }
    let (to_upload, from_encoder) = mpsc::channel(1);
    let task = EncodeTask {
        plan: plan.clone(),
        request: claim.request.clone(),
        extent: Extent::Whole,
        rows_of: "the export".to_owned(),
        output: Output::new(Parts::new(to_upload, Handle::current(), settings.part_budget(), plan.estimated_bytes)),
        mask_key: settings.mask_key.clone(),
        progress: Arc::clone(progress),
    };
    let encoding = async {
        let range = Range::default();
        let encoded = encode(task, &mut source, &range, settings.max_batch_rows, &probe).await?;
        context.connection_cache.keep(source.commit().await?);
        Ok(encoded)
    };
    let uploading = async {
        match upload.send_parts(from_encoder, &progress.bytes).await {
            Err(UploadError::PipelineClosed) => std::future::pending().await,
            other => other.map_err(WorkError::from),
        }
    };
    let (encoded, staged) = tokio::try_join!(encoding, uploading)?;
    let manifest = manifest(&plan, &claim.request, file, encoded);
    dataset_limit::check(&claim.request.grant, manifest.rows, manifest.bytes)?;
    Ok((staged, manifest))
}

fn manifest(plan: &Plan, request: &ExportRequest, file: ManifestDraft, encoded: Encoded<WrittenParts>) -> Manifest {
    let replaced = replaced(plan, &encoded.replacements);
    let Written { rows, uncompressed_bytes, stored: WrittenParts { bytes, crc32, parts }, .. } = encoded.written;
    let whole = Manifest { rows, bytes, uncompressed_bytes, crc32, replaced, ..file.manifest() };
    match request.layout {
        Layout::File => Manifest { parts, ..whole },
        Layout::Files => {
            let (name, crc32) = (plan.format.part_name(1, request.compression), whole.crc32.clone());
            Manifest { files: vec![ManifestFile { name, rows, bytes, uncompressed_bytes, crc32 }], ..whole }
        }
    }
}
