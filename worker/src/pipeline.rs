//! The stages put together: source → encode → compress → part → upload, with a bounded channel between every
//! two, the CPU work on a thread of its own, and one error out of it all. A stage that was cut off stays silent,
//! so the error that comes out is the one that came first.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use polyglot_export::failure::{Failure, FailureKind};
use polyglot_export::ledger::{Claim, Ledger, LedgerError, Renewal, persist};
use polyglot_export::manifest::{Manifest, ManifestColumn, ManifestOrder, Replaced, SnapshotPoint};
use polyglot_export::representation::output_type;
use polyglot_export::request::ExportRequest;
use polyglot_export::source::session_name;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::encode::{Out, RELIEF_BYTES, Replacement, encoder};
use crate::output::{Output, OutputStop, Written};
use crate::source::{Connected, FieldIndex, FromSource, Plan, Watch, read_all};
use crate::upload::{Staged, Upload, UploadError};

/// How far an attempt is; read by the heartbeat.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub rows: AtomicI64,
    pub bytes: AtomicI64,
}

/// Why an attempt ends without a file.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(Failure),
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
            UploadError::Ledger(error) => error.into(),
            UploadError::Lost | UploadError::CutOff => Self::Lost,
        }
    }
}

/// What a worker needs to run attempts.
pub(crate) struct Stages<'a> {
    pub source_url: &'a str,
    pub ledger: &'a Ledger,
    /// How long a ledger that is away is waited for.
    pub ledger_patience: Duration,
    pub max_batch_rows: usize,
    /// Connections that one export reads on, 1 or 2.
    pub readers: u8,
    /// Bytes of parts in memory at a time, for one attempt.
    pub part_budget: usize,
    pub max_row_bytes: u64,
}

pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::caused(FailureKind::Internal, "The export failed for an internal reason.", error)
}

/// Reads, encodes and uploads everything; nothing is visible when this returns. Dropping the future stops all
/// stages.
pub(crate) async fn run(
    stages: &Stages<'_>,
    claim: &Claim,
    upload: &mut Upload<'_>,
    progress: &Arc<Progress>,
) -> Result<(Staged, Manifest), Stop> {
    let request = &claim.request;
    // In the ledger before anything is begun outside of it, so that whatever dies is cleaned up behind.
    upload.begin().await?;
    let session = session_name(claim.export_id, claim.attempt);
    let connected = Connected::to(stages.source_url, &session).await?;
    let mut watch = Watch::new(stages.source_url);
    let mut source = watch.over(progress, connected.begin(request)).await?;
    watch.backend = Some(source.backend.clone());
    let (plan, ranges) = watch.over(progress, source.plan(request, stages.max_row_bytes, stages.readers)).await?;
    tracing::info!(export_id = %claim.export_id, attempt = claim.attempt, ranges = ranges.len(), "export planned");
    let second =
        if ranges.len() > 1 { watch.over(progress, source.second(stages.source_url, &session)).await? } else { None };
    let snapshot = source.snapshot.clone();
    let estimate = plan.estimated_rows.and_then(|rows| i64::try_from(rows).ok());
    let running = persist(stages.ledger_patience, || stages.ledger.running(claim, estimate)).await?;
    if running == Renewal::CancelRequested {
        return Err(Stop::Cancelled);
    }
    let (to_encoder, from_source) = mpsc::channel(2);
    let (to_upload, from_encoder) = mpsc::channel(1);
    let encoding = Encoding {
        plan: plan.clone(),
        request: request.clone(),
        output: Output::new(to_upload, Handle::current(), stages.part_budget, plan.estimated_bytes),
        progress: Arc::clone(progress),
    };
    let encoding = tokio::task::spawn_blocking(move || encoding.run(from_source));
    let reading = async {
        let reading = read_all(source.into_reader(), second, &plan, &ranges, stages.max_batch_rows, to_encoder);
        watch.over(progress, reading).await.map_err(Stop::from)
    };
    let encoding = async {
        match encoding.await {
            Ok(Ok(written)) => Ok(written),
            Ok(Err(OutputStop::Failed(failure))) => Err(Stop::Failed(failure)),
            Ok(Err(OutputStop::CutOff)) => std::future::pending().await,
            Err(panicked) => Err(Stop::Failed(internal(&panicked))),
        }
    };
    let uploading = async {
        match upload.stage(from_encoder, &progress.bytes).await {
            Err(UploadError::CutOff) => std::future::pending().await,
            other => other.map_err(Stop::from),
        }
    };
    let ((), (written, replacements), staged) = tokio::try_join!(reading, encoding, uploading)?;
    Ok((staged, manifest(&plan, request, snapshot, written, &replacements)))
}

fn manifest(
    plan: &Plan,
    request: &ExportRequest,
    snapshot: SnapshotPoint,
    written: Written,
    replacements: &[Replacement],
) -> Manifest {
    let columns = request.columns.iter().zip(&plan.sources).map(|(mapping, source)| ManifestColumn {
        name: mapping.target.clone(),
        source: mapping.source.clone(),
        source_type: source.sql_type.clone(),
        output_type: output_type(source, request.format, &request.options),
    });
    let replaced = replacements.iter().map(|it| Replaced {
        column: plan.columns.get(it.column).map(|column| column.name.clone()).unwrap_or_default(),
        count: it.count,
        problem: it.problem.to_owned(),
        with: it.with.to_owned(),
    });
    Manifest {
        rows: written.rows,
        bytes: written.bytes,
        uncompressed_bytes: written.raw_bytes,
        crc32: written.crc32,
        columns: columns.collect(),
        order: ManifestOrder { by: plan.order.shown(request), promised: plan.order.total },
        snapshot,
        parts: written.parts,
        files: Vec::new(),
        replaced: replaced.collect(),
    }
}

/// The encoding thread's work.
struct Encoding {
    plan: Plan,
    request: ExportRequest,
    output: Output,
    progress: Arc<Progress>,
}

impl Encoding {
    fn run(mut self, mut batches: mpsc::Receiver<FromSource>) -> Result<(Written, Vec<Replacement>), OutputStop> {
        let (plan, output) = (&self.plan, &mut self.output);
        let fields = plan.fields();
        output.start(self.request.compression)?;
        let mut encoder =
            encoder(self.request.format, &self.request.options, &plan.columns).map_err(|error| internal(&error))?;
        let mut scratch = Vec::with_capacity(RELIEF_BYTES * 2);
        let begun = encoder.begin(&mut Out::new(&mut scratch, output));
        begun.map_err(|error| output.stop_of(&error, || "The file's frame".to_owned()))?;
        let mut index = FieldIndex::default();
        let mut rows: i64 = 0;
        loop {
            let batch = match batches.blocking_recv() {
                Some(FromSource::Batch(batch)) => batch,
                Some(FromSource::End) => break,
                None => return Err(OutputStop::CutOff),
            };
            let mut rest = &batch.bytes[..];
            for _ in 0..batch.rows {
                let (row, length) = index.read(rest, fields).map_err(|error| {
                    Failure::caused(
                        FailureKind::Undecodable,
                        "The source database sent data that cannot be read.",
                        &error,
                    )
                })?;
                rest = &rest[length..];
                rows += 1;
                plan.check_size(rows, row)?;
                // A long value goes on in the middle of its row, which is not written then.
                output.rows = rows - 1;
                let encoded = encoder.row(row, &mut Out::new(&mut scratch, output));
                encoded.map_err(|error| output.stop_of(&error, || plan.names.name(rows, row)))?;
                if scratch.len() >= RELIEF_BYTES {
                    output.rows = rows;
                    output.write_scratch(&mut scratch)?;
                }
            }
            output.write_finished(&mut *encoder)?;
            self.progress.rows.store(rows, Ordering::Relaxed);
        }
        let ended = encoder.end(&mut Out::new(&mut scratch, output));
        ended.map_err(|error| output.stop_of(&error, || "The end of the file".to_owned()))?;
        output.rows = rows;
        output.write_scratch(&mut scratch)?;
        output.write_finished(&mut *encoder)?;
        let replacements = encoder.replacements().to_vec();
        Ok((self.output.finish(rows)?, replacements))
    }
}
