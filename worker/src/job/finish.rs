//! The finish of a sharded export: the end of the file and the manifest, from the shards that the ledger has. No row is
//! read again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use polyglot_core::compression::Compression;
use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::manifest::{Manifest, ManifestFile, ManifestPart, Replaced, crc_text};
use polyglot_core::request::{ExportRequest, Layout};
use polyglot_ledger::{Claim, Ledger, ShardedAttempt, StoredShard, retry_while_unavailable};
use polyglot_storage::{CompletedPart, ObjectBody};
use tokio_util::sync::CancellationToken;

use super::lease::run_guarded;
use super::outcome::record_end;
use super::publish::publish;
use crate::context::WorkerContext;
use crate::dataset_limit;
use crate::metrics::Outcome;
use crate::plan::ManifestDraft;
use crate::progress::Progress;
use crate::upload::{StagedObject, Upload, UploadError, part_number};
use crate::work_error::{INTERNAL, WorkError, internal};
use polyglot_formats::Format;
use polyglot_formats::compress::gzip_trailer;

/// Number of shards that are fetched from the ledger at a time. With Parquet each has the description of its row
/// groups.
const PAGE: i64 = 200;

/// Sums and lists over all shards.
#[derive(Default)]
struct ShardTotals {
    rows: i64,
    bytes: i64,
    uncompressed_bytes: i64,
    crc: crc32fast::Hasher,
    uncompressed_crc: crc32fast::Hasher,
    parts: Vec<ManifestPart>,
    files: Vec<ManifestFile>,
    sent: Vec<CompletedPart>,
    replaced: Vec<Replaced>,
    /// For each shard its offset in the file in bytes and the description of its row groups.
    row_groups: VecDeque<(u64, Vec<u8>)>,
}

fn length(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

impl ShardTotals {
    /// Adds the next shard in the order of the file.
    fn add(&mut self, request: &ExportRequest, format: Format, shard: StoredShard) -> Result<(), Failure> {
        let crc32 = crc_text(shard.crc32);
        let number = part_number(shard.number);
        match request.layout {
            Layout::File => {
                self.parts.push(ManifestPart {
                    number,
                    offset: self.bytes,
                    bytes: shard.bytes,
                    rows: shard.rows,
                    crc32,
                });
                self.sent.push(CompletedPart { number, etag: shard.etag, crc32: shard.crc32 });
            }
            Layout::Files => self.files.push(ManifestFile {
                name: format.part_name(shard.number, request.compression),
                rows: shard.rows,
                bytes: shard.bytes,
                uncompressed_bytes: shard.uncompressed_bytes,
                crc32,
            }),
        }
        if let Some(row_groups) = shard.row_groups {
            self.row_groups.push_back((length(self.bytes), row_groups));
        }
        self.crc.combine(&crc32fast::Hasher::new_with_initial_len(shard.crc32, length(shard.bytes)));
        if let Some(crc) = shard.uncompressed_crc32 {
            let uncompressed = crc32fast::Hasher::new_with_initial_len(crc, length(shard.uncompressed_bytes));
            self.uncompressed_crc.combine(&uncompressed);
        }
        self.rows += shard.rows;
        self.bytes += shard.bytes;
        self.uncompressed_bytes += shard.uncompressed_bytes;
        let replaced = shard.replaced.map(serde_json::from_value::<Vec<Replaced>>).transpose();
        for replaced in replaced.map_err(|error| internal(&error))?.into_iter().flatten() {
            let known = self.replaced.iter_mut().find(|known| {
                (&known.column, &known.problem, &known.with) == (&replaced.column, &replaced.problem, &replaced.with)
            });
            match known {
                Some(known) => known.count += replaced.count,
                None => self.replaced.push(replaced),
            }
        }
        Ok(())
    }

    /// Returns the bytes that follow the last shard, if there are any.
    fn end(&mut self, request: &ExportRequest, format: Format) -> Result<Option<Vec<u8>>, Failure> {
        if request.layout == Layout::Files {
            return Ok(None);
        }
        if let Some(footer) = &format.footer {
            // Each description is freed as soon as it is read.
            let mut pieces = std::mem::take(&mut self.row_groups);
            let footer = footer.assemble(std::iter::from_fn(|| pieces.pop_front()));
            return footer.map(Some).map_err(|error| internal(&error));
        }
        Ok(match request.compression {
            Some(Compression::Gzip) => {
                Some(gzip_trailer(self.uncompressed_crc.clone().finalize(), length(self.uncompressed_bytes)))
            }
            Some(Compression::Zstd) | None => None,
        })
    }
}

/// Reads all shards of the attempt from the ledger and adds them up.
async fn shard_totals(
    ledger: &Ledger,
    timeout: Duration,
    claim: &Claim,
    format: Format,
    sharded: &ShardedAttempt,
) -> Result<ShardTotals, WorkError> {
    let (mut totals, mut number) = (ShardTotals::default(), 0);
    loop {
        let shards = retry_while_unavailable(timeout, || ledger.stored_shards(claim.export_id, number, PAGE)).await?;
        if shards.is_empty() {
            break;
        }
        for shard in shards {
            number += 1;
            if shard.number != number {
                return Err(WorkError::Failed(missing(number)));
            }
            totals.add(&claim.request, format, shard)?;
        }
    }
    if number == sharded.shards { Ok(totals) } else { Err(WorkError::Failed(missing(number + 1))) }
}

/// The end of a file: a manifest that has only its parts, and the number of bytes after the last shard.
pub struct EndOfFile {
    pub manifest: Manifest,
    pub bytes: usize,
}

/// Reads every stored shard from the ledger and adds them up: the cost of a finish without the object store, for
/// measurements.
///
/// # Errors
/// The error as text.
pub async fn end_of_file(ledger: &Ledger, claim: &Claim, sharded: &ShardedAttempt) -> Result<EndOfFile, String> {
    let text = |error: WorkError| format!("{error:?}");
    let format = Format::of(&claim.request).map_err(|unknown| unknown.to_string())?;
    let mut totals = shard_totals(ledger, Duration::ZERO, claim, format, sharded).await.map_err(text)?;
    let end = totals.end(&claim.request, format).map_err(|failure| failure.detail)?;
    let manifest = Manifest { parts: totals.parts, ..Manifest::default() };
    Ok(EndOfFile { manifest, bytes: end.map_or(0, |end| end.len()) })
}

/// Returns the failure for a shard that is missing. It is a defect: a finish can be claimed only after every shard was
/// committed.
fn missing(number: i32) -> Failure {
    Failure::new(FailureKind::Internal, INTERNAL, format!("shard {number} is not among the committed ones"))
}

/// Completes the file and publishes it.
pub(super) async fn perform(
    context: &WorkerContext,
    claim: &Claim,
    format: Format,
    sharded: &ShardedAttempt,
    aborting: &CancellationToken,
) -> Outcome {
    let progress = Arc::new(Progress::default());
    let upload = Upload::continue_attempt(context.target(), claim, format, sharded);
    let staged = Box::pin(run(&context.ledger, context.settings.lease, claim, format, sharded, &upload));
    match run_guarded(context, claim, &progress, aborting, staged).await {
        Ok((staged, manifest)) => publish(context, claim, upload, &progress, staged, manifest, aborting).await,
        Err(error) => record_end(context, claim, error).await,
    }
}

/// Completes the file. Nothing is visible when this returns, except shards that are files of their own.
async fn run(
    ledger: &Ledger,
    timeout: Duration,
    claim: &Claim,
    format: Format,
    sharded: &ShardedAttempt,
    upload: &Upload<'_>,
) -> Result<(StagedObject, Manifest), WorkError> {
    let file: ManifestDraft =
        serde_json::from_value(sharded.plan.clone()).map_err(|error| WorkError::Failed(internal(&error)))?;
    let mut totals = shard_totals(ledger, timeout, claim, format, sharded).await?;
    let request = claim.request.clone();
    // On a thread for blocking work: reading and writing thousands of descriptions takes a while.
    let span = tracing::Span::current();
    let ended = tokio::task::spawn_blocking(move || span.in_scope(|| (totals.end(&request, format), totals))).await;
    let (end, mut totals) = ended.map_err(|error| internal(&error))?;
    let end = end?;
    let bytes = totals.bytes.saturating_add(end.as_ref().map_or(0, |end| i64::try_from(end.len()).unwrap_or(i64::MAX)));
    dataset_limit::check(&claim.request.grant, totals.rows, bytes)?;
    if let Some(end) = end {
        let number = part_number(sharded.shards + 1);
        let crc32 = crc32fast::hash(&end);
        let bytes = i64::try_from(end.len()).unwrap_or(i64::MAX);
        totals.parts.push(ManifestPart { number, offset: totals.bytes, bytes, rows: 0, crc32: crc_text(crc32) });
        totals.crc.update(&end);
        if format.footer.is_some() {
            totals.uncompressed_bytes += bytes;
        }
        totals.bytes += bytes;
        match upload.send_part(number, &ObjectBody::from(bytes::Bytes::from(end)), crc32).await {
            Ok(part) => totals.sent.push(part),
            // Another finisher may have completed the upload before it lost its claim. The object exists then, and
            // publishing it checks that it is the whole file.
            Err(UploadError::UploadLost(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let manifest = Manifest {
        rows: totals.rows,
        bytes: totals.bytes,
        uncompressed_bytes: totals.uncompressed_bytes,
        crc32: crc_text(totals.crc.finalize()),
        parts: totals.parts,
        files: totals.files,
        replaced: totals.replaced,
        ..file.manifest()
    };
    let staged = match claim.request.layout {
        Layout::File => StagedObject::Multipart(totals.sent),
        Layout::Files => StagedObject::Several,
    };
    Ok((staged, manifest))
}
