//! One shard of an export: read under the shared snapshot, encoded, stored as one part of the file or as a file of its own, committed.

use std::sync::Arc;

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::request::Layout;
use polyglot_ledger::{Attempt, Claim, Committed, ShardWork, StoredShard};
use tokio_util::sync::CancellationToken;

use super::lease::{retry_within_lease, run_guarded};
use super::outcome::record_end;
use crate::context::WorkerContext;
use crate::dataset_limit;
use crate::encode_task::{EncodeTask, Encoded, Extent, encode, replaced};
use crate::metrics::Outcome;
use crate::part::{BufferPool, MIN_PART_BYTES, Output, PART_SLACK, ShardBody, WrittenBody};
use crate::plan::{ManifestDraft, Plan, Range};
use crate::progress::Progress;
use crate::read::LivenessProbe;
use crate::upload::{Upload, part_number};
use crate::work_error::{WorkError, internal};
use crate::{memory, metrics};

/// Reads, stores and commits one shard.
pub(super) async fn perform(
    context: &WorkerContext,
    claim: &Claim,
    work: &ShardWork,
    aborting: &CancellationToken,
) -> Outcome {
    let progress = Arc::new(Progress::default());
    let storing = Box::pin(run(context, claim, work, &progress));
    let stored = match run_guarded(context, claim, &progress, aborting, storing).await {
        Ok(stored) => stored,
        Err(error) => return record_end(context, claim, error).await,
    };
    let (rows, bytes) = (stored.rows, stored.bytes);
    match retry_within_lease(context, || context.ledger.commit(claim, &stored, memory::peak_bytes())).await {
        Ok(committed @ (Committed::More | Committed::All)) => {
            let all = committed == Committed::All;
            tracing::info!(rows, bytes, all, "shard committed");
            metrics::stored(claim, rows, bytes);
            context.relay.wake();
            Outcome::Done
        }
        Ok(Committed::CancelRequested) => record_end(context, claim, WorkError::Cancelled).await,
        Err(error) => record_end(context, claim, error.into()).await,
    }
}

/// Reads and stores the claimed shard. It is not committed yet when this returns.
async fn run(
    context: &WorkerContext,
    claim: &Claim,
    work: &ShardWork,
    progress: &Arc<Progress>,
) -> Result<StoredShard, WorkError> {
    let range: Range =
        serde_json::from_value(work.bounds.clone()).map_err(|error| WorkError::Failed(internal(&error)))?;
    let attempt = Attempt::from(claim);
    let session = context.snapshots.get_or_join(&attempt).await?;
    let mut source = context.snapshots.reader(&session, &attempt).await?;
    let mut probe = LivenessProbe::new(&context.connections.source_database_url, &context.connection_limit);
    probe.backend = Some(source.backend.clone());
    let limit = context.settings.part_budget();
    let buffers = context.buffers.for_export(claim.export_id);
    let last = claim.shard == work.attempt.shards;
    let task = EncodeTask {
        plan: session.plan.clone(),
        request: claim.request.clone(),
        extent: match claim.request.layout {
            Layout::File => Extent::Shard { number: claim.shard, of: work.attempt.shards },
            Layout::Files => Extent::Whole,
        },
        rows_of: format!("shard {} of the export", claim.shard),
        // The buffer is as large as it may become, which costs no memory until it is written to. A buffer that grows is
        // copied, and is in memory twice for that moment.
        output: Output::new(ShardBody::new(buffers.take(limit + PART_SLACK), limit)),
        mask_key: context.settings.mask_key.clone(),
        progress: Arc::clone(progress),
    };
    let encoded = encode(task, &mut source, &range, context.settings.max_batch_rows, &probe).await?;
    let file: ManifestDraft = serde_json::from_value(work.attempt.plan.clone()).map_err(|error| internal(&error))?;
    if !file.has_partitions(&probe.run_while_alive(progress, source.partitions(&claim.request)).await?) {
        let message = "A partition was attached to the table, or detached, while its shards were read.";
        return Err(WorkError::FailedAttempt(Failure::new(
            FailureKind::SnapshotLost,
            message,
            "other partitions than planned",
        )));
    }
    session.give_back(source);
    if is_too_small(claim, &encoded, last) {
        return Err(WorkError::TooSmall);
    }
    check_limits(context, claim, &encoded).await?;
    store(context, claim, work, encoded, &session.plan, &buffers).await
}

/// Fails if the shard and those that are committed are more than the dataset gives out. Shards that are read at the same time do not
/// see each other; the finish looks at all of them.
async fn check_limits(context: &WorkerContext, claim: &Claim, encoded: &Encoded<WrittenBody>) -> Result<(), WorkError> {
    let grant = &claim.request.grant;
    if !grant.has_limits() {
        return Ok(());
    }
    let (rows, bytes) = retry_within_lease(context, || context.ledger.committed_totals(claim.export_id)).await?;
    let own_bytes = i64::try_from(encoded.written.stored.bytes).unwrap_or(i64::MAX);
    let (rows, bytes) = (rows.saturating_add(encoded.written.rows), bytes.saturating_add(own_bytes));
    Ok(dataset_limit::check(grant, rows, bytes)?)
}

/// Returns whether the store would refuse the part. The store accepts a small part only as the last one of an upload,
/// and after the last shard comes the footer of Parquet or the trailer of gzip.
fn is_too_small(claim: &Claim, encoded: &Encoded<WrittenBody>, last: bool) -> bool {
    let is_followed = !last || encoded.row_groups.is_some() || encoded.written.uncompressed_crc32.is_some();
    let bytes = usize::try_from(encoded.written.stored.bytes).unwrap_or(usize::MAX);
    claim.request.layout == Layout::File && is_followed && bytes < MIN_PART_BYTES
}

/// Sends the encoded shard to the object store.
async fn store(
    context: &WorkerContext,
    claim: &Claim,
    work: &ShardWork,
    encoded: Encoded<WrittenBody>,
    plan: &Plan,
    buffers: &BufferPool,
) -> Result<StoredShard, WorkError> {
    let Encoded { written, replacements, row_groups } = encoded;
    let (bytes, crc32) = (written.stored.bytes, written.stored.crc32);
    let body = written.stored.into_object_body(buffers);
    let upload = Upload::continue_attempt(context.target(), claim, plan.format, &work.attempt);
    let etag = match claim.request.layout {
        Layout::File => upload.send_part(part_number(claim.shard), &body, crc32).await?.etag,
        Layout::Files => upload.put_file(claim.shard, &body, crc32).await?,
    };
    let replaced = replaced(plan, &replacements);
    let replaced = if replaced.is_empty() { None } else { Some(serde_json::to_value(replaced)) };
    let replaced = replaced.transpose().map_err(|error| internal(&error))?;
    Ok(StoredShard {
        number: claim.shard,
        rows: written.rows,
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        crc32,
        uncompressed_bytes: written.uncompressed_bytes,
        uncompressed_crc32: written.uncompressed_crc32,
        etag,
        row_groups,
        replaced,
    })
}
