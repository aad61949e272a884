//! The stages put together: source → encode → compress → part → upload, with a bounded channel between every
//! two, the CPU work on a thread of its own, and one error out of it all. A stage that was cut off stays silent,
//! so the error that comes out is the one that came first.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::manifest::{Manifest, ManifestFile, Replaced};
use polyglot_core::request::{ExportRequest, Layout};
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_ledger::{Claim, LedgerError, Renewal, persist};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::encoding::{Encoded, Encoding, Extent};
use crate::manifest_draft::ManifestDraft;
use crate::output::{Output, OutputStop, Parts, Sink, Written, WrittenParts};
use crate::source::{Plan, Range, Source, Watch};
use crate::upload::{Staged, Upload, UploadError};
use crate::worker::Worker;
use polyglot_formats::Replacement;

/// How far an attempt is; read by the heartbeat.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub rows: AtomicI64,
    pub bytes: AtomicI64,
}

/// Why work ends before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(Failure),
    /// What the attempt has so far is lost with it.
    FailedAttempt(Failure),
    /// The table cannot be read by another session for now.
    Blocked(Failure),
    /// The shard came out smaller than the object store takes.
    TooSmall,
    /// A client asked for it.
    Cancelled,
    /// The process is going down.
    GiveBack,
    /// The claim no longer holds, or the ledger was away for as long as the lease.
    Lost,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        match error {
            // The lease runs out, and another attempt starts when the ledger is back.
            LedgerError::LeaseLost | LedgerError::Unavailable(_) => Self::Lost,
            other => Self::Failed(internal(&other)),
        }
    }
}

impl From<UploadError> for Stop {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Failed(failure) => Self::Failed(failure),
            UploadError::Gone(failure) => Self::FailedAttempt(failure),
            UploadError::Ledger(error) => error.into(),
            UploadError::Lost | UploadError::CutOff => Self::Lost,
        }
    }
}

/// Of a defect, in words for the user.
pub(crate) const INTERNAL: &str = "The export failed for an internal reason.";

pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::caused(FailureKind::Internal, INTERNAL, error)
}

/// An export that was planned as one stream.
pub(crate) struct Stream<'a> {
    pub claim: &'a Claim,
    pub source: Source,
    pub plan: Plan,
    pub file: ManifestDraft,
    pub uncut: SingleStreamReason,
    pub watch: Watch<'a>,
}

/// Reads, encodes and uploads everything; nothing is visible when this returns. Dropping the future stops all
/// stages.
pub(crate) async fn run(
    worker: &Worker,
    stream: Stream<'_>,
    upload: &mut Upload<'_>,
    progress: &Arc<Progress>,
) -> Result<(Staged, Manifest), Stop> {
    let Stream { claim, mut source, plan, file, uncut, watch } = stream;
    let (ledger, settings) = (&worker.ledger, &worker.settings);
    let running = persist(settings.lease, || ledger.streaming(claim, plan.rows_estimate(), uncut)).await?;
    if running == Renewal::CancelRequested {
        return Err(Stop::Cancelled);
    }
    let (to_upload, from_encoder) = mpsc::channel(1);
    let encoding = Encoding {
        plan: plan.clone(),
        request: claim.request.clone(),
        extent: Extent::Whole,
        rows_of: "the export".to_owned(),
        output: Output::new(Parts::new(to_upload, Handle::current(), settings.part_budget(), plan.estimated_bytes)),
        progress: Arc::clone(progress),
    };
    let encoding = async {
        let range = Range::default();
        let encoded = encode(encoding, &mut source, &range, settings.max_batch_rows, &watch).await?;
        worker.idle.keep(source.commit().await?);
        Ok(encoded)
    };
    let uploading = async {
        match upload.stage(from_encoder, &progress.bytes).await {
            Err(UploadError::CutOff) => std::future::pending().await,
            other => other.map_err(Stop::from),
        }
    };
    let (encoded, staged) = tokio::try_join!(encoding, uploading)?;
    Ok((staged, manifest(&plan, &claim.request, file, encoded)))
}

/// Reads a range and encodes it, side by side.
pub(crate) async fn encode<S: Sink + 'static>(
    encoding: Encoding<S>,
    source: &mut Source,
    range: &Range,
    max_batch_rows: usize,
    watch: &Watch<'_>,
) -> Result<Encoded<S::Written>, Stop> {
    let (plan, progress) = (encoding.plan.clone(), Arc::clone(&encoding.progress));
    let (to_encoder, from_source) = mpsc::channel(2);
    // The thread's log lines are of the same work.
    let span = tracing::Span::current();
    let encoding = tokio::task::spawn_blocking(move || span.in_scope(|| encoding.run(from_source)));
    let reading = async {
        let reading = source.read(&plan, range, max_batch_rows, to_encoder);
        watch.over(&progress, reading).await.map_err(Stop::from)
    };
    let encoding = async {
        match encoding.await {
            Ok(Ok(encoded)) => Ok(encoded),
            Ok(Err(OutputStop::Failed(failure))) => Err(Stop::Failed(failure)),
            Ok(Err(OutputStop::CutOff)) => std::future::pending().await,
            Err(panicked) => Err(Stop::Failed(internal(&panicked))),
        }
    };
    let ((), encoded) = tokio::try_join!(reading, encoding)?;
    Ok(encoded)
}

/// What was written as something else, by the names that clients know.
pub(crate) fn replaced(plan: &Plan, replacements: &[Replacement]) -> Vec<Replaced> {
    let name = |column: usize| plan.columns.get(column).map(|column| column.name.clone()).unwrap_or_default();
    replacements
        .iter()
        .map(|it| Replaced {
            column: name(it.column),
            count: it.count,
            problem: it.problem.to_owned(),
            with: it.with.to_owned(),
        })
        .collect()
}

fn manifest(plan: &Plan, request: &ExportRequest, file: ManifestDraft, encoded: Encoded<WrittenParts>) -> Manifest {
    let replaced = replaced(plan, &encoded.replacements);
    let Written { rows, raw_bytes: uncompressed_bytes, stored: WrittenParts { bytes, crc32, parts }, .. } =
        encoded.written;
    let whole = Manifest { rows, bytes, uncompressed_bytes, crc32, replaced, ..file.manifest() };
    match request.layout {
        Layout::File => Manifest { parts, ..whole },
        Layout::Files => {
            let (name, crc32) = (request.part_name(1), whole.crc32.clone());
            Manifest { files: vec![ManifestFile { name, rows, bytes, uncompressed_bytes, crc32 }], ..whole }
        }
    }
}
