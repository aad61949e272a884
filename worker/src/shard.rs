//! One shard of an export that is cut: read under the shared snapshot, encoded, sent as one part, committed.

use std::sync::Arc;

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::request::Layout;
use polyglot_ledger::{Attempt, Claim, ShardWork, StoredShard};

use crate::encoding::{Encoded, Encoding, Extent};
use crate::manifest_draft::ManifestDraft;
use crate::output::{Body, Output, WrittenBody};
use crate::pipeline::{Progress, Stop, encode, internal, replaced};
use crate::source::{Plan, Range, Watch};
use crate::upload::{Buffers, MIN_PART_BYTES, PART_SLACK, PartBody, Upload};
use crate::worker::Worker;

/// Reads and stores the shard that was claimed; it is still to be committed.
pub(crate) async fn run(
    worker: &Worker,
    claim: &Claim,
    work: &ShardWork,
    progress: &Arc<Progress>,
) -> Result<StoredShard, Stop> {
    let range: Range = serde_json::from_value(work.bounds.clone()).map_err(|error| Stop::Failed(internal(&error)))?;
    let attempt = Attempt::from(claim);
    let session = worker.sessions.of(&attempt).await?;
    let mut source = worker.sessions.reader(&session, &attempt).await?;
    let mut watch = Watch::new(&worker.connections.source_database_url);
    watch.backend = Some(source.backend.clone());
    let limit = worker.settings.part_budget();
    let buffers = worker.buffers.of(claim.export_id);
    let last = claim.shard == work.cut.shards;
    let encoding = Encoding {
        plan: session.plan.clone(),
        request: claim.request.clone(),
        extent: match claim.request.layout {
            Layout::File => Extent::Shard { number: claim.shard, of: work.cut.shards },
            Layout::Files => Extent::Whole,
        },
        rows_of: format!("shard {} of the export", claim.shard),
        // All the room there may be, which costs nothing until it is written to: a buffer that grows is copied, and for that
        // moment in memory twice.
        output: Output::new(Body::new(buffers.take(limit + PART_SLACK), limit)),
        progress: Arc::clone(progress),
    };
    let encoded = encode(encoding, &mut source, &range, worker.settings.max_batch_rows, &watch).await?;
    let file: ManifestDraft = serde_json::from_value(work.cut.plan.clone()).map_err(|error| internal(&error))?;
    if !file.is_over(&watch.over(progress, source.partitions(&claim.request)).await?) {
        let message = "A partition was attached to the table, or detached, while its shards were read.";
        return Err(Stop::FailedAttempt(Failure::new(
            FailureKind::SnapshotLost,
            message,
            "other partitions than planned",
        )));
    }
    session.give_back(source);
    if is_too_small(claim, &encoded, last) {
        return Err(Stop::TooSmall);
    }
    store(worker, claim, work, encoded, &session.plan, &buffers).await
}

/// The store refuses a part that is too small unless it is the last one; and behind the last shard of some formats there is
/// a part that ends the file.
fn is_too_small(claim: &Claim, encoded: &Encoded<WrittenBody>, last: bool) -> bool {
    let has_part_behind = !last || encoded.row_groups.is_some() || encoded.written.raw_crc32.is_some();
    let bytes = usize::try_from(encoded.written.stored.bytes).unwrap_or(usize::MAX);
    claim.request.layout == Layout::File && has_part_behind && bytes < MIN_PART_BYTES
}

async fn store(
    worker: &Worker,
    claim: &Claim,
    work: &ShardWork,
    encoded: Encoded<WrittenBody>,
    plan: &Plan,
    buffers: &Buffers,
) -> Result<StoredShard, Stop> {
    let Encoded { written, replacements, row_groups } = encoded;
    let (bytes, crc32) = (written.stored.bytes, written.stored.crc32);
    let body = PartBody::of(written.stored, buffers);
    let upload = Upload::resume(worker.target(), claim, &work.cut);
    let etag = match claim.request.layout {
        Layout::File => upload.send(claim.shard, body, crc32).await?.e_tag,
        Layout::Files => upload.put_part(claim.shard, body, crc32).await?,
    };
    let replaced = replaced(plan, &replacements);
    let replaced = if replaced.is_empty() { None } else { Some(serde_json::to_value(replaced)) };
    let replaced = replaced.transpose().map_err(|error| internal(&error))?;
    Ok(StoredShard {
        number: claim.shard,
        rows: written.rows,
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        crc32,
        raw_bytes: written.raw_bytes,
        raw_crc32: written.raw_crc32,
        etag,
        row_groups,
        replaced,
    })
}
