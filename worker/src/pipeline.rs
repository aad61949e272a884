//! The stages put together: source → encode → compress → part → upload, with a bounded channel between every
//! two, the CPU work on a thread of its own, and one error out of it all. A stage that was cut off stays silent,
//! so the error that comes out is the one that came first.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use polyglot_export::failure::{Failure, FailureKind};
use polyglot_export::format::{Compression, Format};
use polyglot_export::ledger::{Claim, Ledger, LedgerError, Renewal};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::compress::Gzip;
use crate::encode::{Encode, EncodeError, encoder};
use crate::source::{FieldIndex, FromSource, OutputColumn, Source};
use crate::upload::{
    FromEncoder, MAX_PARTS, PART_SLACK, Part, PartBudget, PartSizes, Room, Staged, Upload, UploadError,
};

/// Encoded bytes that are gathered before they move on to compression and parts.
const SCRATCH_BYTES: usize = 64 * 1024;

/// How far an attempt is; read by the heartbeat.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub rows: AtomicI64,
    pub bytes: AtomicI64,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub rows: i64,
    /// Before compression.
    pub raw_bytes: i64,
    pub bytes: i64,
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

/// What a worker needs to run attempts.
pub(crate) struct Stages<'a> {
    pub source_url: &'a str,
    pub datasets: &'a polyglot_export::dataset::Datasets,
    pub ledger: &'a Ledger,
    pub max_batch_rows: usize,
    /// Bytes of parts in memory at a time, for one attempt.
    pub part_budget: usize,
}

fn internal(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::caused(FailureKind::Internal, "The export failed for an internal reason.", error)
}

/// Reads, encodes and uploads everything; nothing is visible when this returns. Dropping the future stops all
/// stages.
pub(crate) async fn run(
    stages: &Stages<'_>,
    claim: &Claim,
    upload: &mut Upload<'_>,
    progress: &Arc<Progress>,
) -> Result<(Staged, Totals), Stop> {
    let request = &claim.request;
    let dataset = stages.datasets.find(&request.dataset).ok_or_else(|| {
        let message = format!("The dataset {} is not exposed any more.", request.dataset);
        Failure::new(FailureKind::DatasetChanged, message, "not in the worker's datasets")
    })?;
    let mut source = Source::open(stages.source_url).await?;
    let plan = source.plan(dataset, request).await?;
    let estimate = plan.estimated_rows.and_then(|rows| i64::try_from(rows).ok());
    if stages.ledger.running(claim, estimate).await? == Renewal::CancelRequested {
        return Err(Stop::Cancelled);
    }
    let (to_encoder, from_source) = mpsc::channel(2);
    let (to_upload, from_encoder) = mpsc::channel(1);
    let encoding = Encoding {
        columns: plan.columns.clone(),
        format: request.format,
        compression: request.compression,
        output: Output {
            to: to_upload,
            handle: Handle::current(),
            budget: PartBudget::new(stages.part_budget),
            sizes: PartSizes::new(plan.estimated_bytes, stages.part_budget),
            gzip: None,
            room: None,
            number: 0,
            totals: Totals::default(),
        },
        progress: Arc::clone(progress),
    };
    let encoding = tokio::task::spawn_blocking(move || encoding.run(from_source));
    let reading = async { source.read(&plan, stages.max_batch_rows, to_encoder).await.map_err(Stop::from) };
    let encoding = async {
        match encoding.await {
            Ok(Ok(totals)) => Ok(totals),
            Ok(Err(EncodeStop::Failed(failure))) => Err(Stop::Failed(failure)),
            Ok(Err(EncodeStop::CutOff)) => std::future::pending().await,
            Err(panicked) => Err(Stop::Failed(internal(&panicked))),
        }
    };
    let uploading = async {
        match upload.stage(from_encoder, &progress.bytes).await {
            Ok(staged) => Ok(staged),
            Err(UploadError::Failed(failure)) => Err(Stop::Failed(failure)),
            Err(UploadError::Lost) => Err(Stop::Lost),
            Err(UploadError::Ledger(error)) => Err(error.into()),
            Err(UploadError::CutOff) => std::future::pending().await,
        }
    };
    let ((), totals, staged) = tokio::try_join!(reading, encoding, uploading)?;
    Ok((staged, totals))
}

/// The encoding thread's work.
struct Encoding {
    columns: Vec<OutputColumn>,
    format: Format,
    compression: Option<Compression>,
    output: Output,
    progress: Arc<Progress>,
}

enum EncodeStop {
    Failed(Failure),
    CutOff,
}

impl From<Failure> for EncodeStop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn encode_failure(error: &EncodeError, row: i64) -> Failure {
    let kind = match error {
        EncodeError::Undecodable { .. } => FailureKind::Undecodable,
        EncodeError::Unrepresentable { .. } => FailureKind::Unrepresentable,
        EncodeError::Parquet(_) => return internal(error),
    };
    Failure::new(kind, format!("Row {row} of the export: {error}."), polyglot_export::failure::chain(error))
}

impl Encoding {
    fn run(mut self, mut batches: mpsc::Receiver<FromSource>) -> Result<Totals, EncodeStop> {
        let failed = |error: EncodeError, row: i64| EncodeStop::Failed(encode_failure(&error, row));
        let output = &mut self.output;
        output.start(self.compression);
        let mut encoder = encoder(self.format, &self.columns).map_err(|error| failed(error, 0))?;
        let mut scratch = Vec::with_capacity(SCRATCH_BYTES * 2);
        encoder.begin(&mut scratch).map_err(|error| failed(error, 0))?;
        let mut index = FieldIndex::default();
        let mut rows: i64 = 0;
        loop {
            let batch = match batches.blocking_recv() {
                Some(FromSource::Batch(batch)) => batch,
                Some(FromSource::End) => break,
                None => return Err(EncodeStop::CutOff),
            };
            let mut rest = &batch.bytes[..];
            for _ in 0..batch.rows {
                let (row, length) = index.read(rest, self.columns.len()).map_err(|error| {
                    Failure::caused(
                        FailureKind::Undecodable,
                        "The source database sent data that cannot be read.",
                        &error,
                    )
                })?;
                rows += 1;
                encoder.row(row, &mut scratch).map_err(|error| failed(error, rows))?;
                rest = &rest[length..];
                if scratch.len() >= SCRATCH_BYTES {
                    output.write(&scratch)?;
                    scratch.clear();
                    // After a very wide row, the room it took is given back.
                    scratch.shrink_to(SCRATCH_BYTES * 2);
                }
            }
            output.write_finished(&mut *encoder)?;
            self.progress.rows.store(rows, Ordering::Relaxed);
        }
        encoder.end(&mut scratch).map_err(|error| failed(error, rows))?;
        output.write(&scratch)?;
        output.write_finished(&mut *encoder)?;
        output.totals.rows = rows;
        self.output.finish()
    }
}

/// Encoded bytes into parts.
struct Output {
    to: mpsc::Sender<FromEncoder>,
    handle: Handle,
    budget: PartBudget,
    sizes: PartSizes,
    gzip: Option<Gzip>,
    /// The part that is being filled.
    room: Option<Room>,
    number: u32,
    totals: Totals,
}

impl Output {
    fn start(&mut self, compression: Option<Compression>) {
        let mut room = self.next_room();
        self.gzip = match compression {
            Some(Compression::Gzip) => Some(Gzip::start(&mut room.buffer)),
            None => None,
        };
        self.room = Some(room);
    }

    /// Makes room for another part; waits while the budget is used up.
    fn next_room(&mut self) -> Room {
        self.number += 1;
        let size = self.sizes.of(self.number) + PART_SLACK;
        self.handle.block_on(self.budget.reserve(size))
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), EncodeStop> {
        self.totals.raw_bytes += i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        while !bytes.is_empty() {
            let mut room = match self.room.take() {
                Some(room) if room.buffer.len() < self.sizes.of(self.number) => room,
                Some(full) => {
                    self.send_part(full)?;
                    self.next_room()
                }
                None => self.next_room(),
            };
            // A step is well below the slack, which has to take what the deflater gives out for it.
            let step = bytes.len().min(SCRATCH_BYTES);
            let taken = if let Some(gzip) = &mut self.gzip {
                gzip.write(&bytes[..step], &mut room.buffer).map_err(|error| internal(&error))?;
                step
            } else {
                let step = step.min(self.sizes.of(self.number) - room.buffer.len());
                room.buffer.extend_from_slice(&bytes[..step]);
                step
            };
            bytes = &bytes[taken..];
            self.room = Some(room);
        }
        Ok(())
    }

    fn write_finished(&mut self, encoder: &mut dyn Encode) -> Result<(), EncodeStop> {
        while let Some(piece) = encoder.finished() {
            self.write(&piece)?;
        }
        Ok(())
    }

    fn send_part(&mut self, room: Room) -> Result<(), EncodeStop> {
        if self.number > MAX_PARTS {
            let capacity = self.sizes.capacity() >> 30;
            let message = format!(
                "The file would be larger than {capacity} GiB, the most that {MAX_PARTS} parts hold with this worker's memory budget."
            );
            let detail = format!("more than {MAX_PARTS} parts; raise MEMORY_BUDGET_MB");
            return Err(Failure::new(FailureKind::TooLarge, message, detail).into());
        }
        self.totals.bytes += i64::try_from(room.buffer.len()).unwrap_or(i64::MAX);
        let part = Part::new(self.number, room);
        self.to.blocking_send(FromEncoder::Part(part)).map_err(|_| EncodeStop::CutOff)
    }

    fn finish(mut self) -> Result<Totals, EncodeStop> {
        let mut room = match self.room.take() {
            Some(room) => room,
            None => self.next_room(),
        };
        if let Some(gzip) = self.gzip.take() {
            gzip.finish(&mut room.buffer).map_err(|error| internal(&error))?;
        }
        // An empty file is one empty part; behind other parts an empty one is left out.
        if !room.buffer.is_empty() || self.number == 1 {
            self.send_part(room)?;
        }
        self.to.blocking_send(FromEncoder::End).map_err(|_| EncodeStop::CutOff)?;
        Ok(self.totals)
    }
}
