//! The start of an attempt: the snapshot, the plan, and the decision whether the export is sharded.

use std::sync::Arc;

use polyglot_core::request::Layout;
use polyglot_formats::Format;
use polyglot_ledger::{Attempt, Claim, LedgerError, PlaceRequest, Planned, Renewal, retry_while_unavailable};
use polyglot_source::SnapshotPermit;
use polyglot_source::session::session_name;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::lease::{keep_lease_while, run_guarded};
use super::outcome::record_end;
use super::publish::publish;
use super::stream::{self, Stream};
use crate::config::Settings;
use crate::context::WorkerContext;
use crate::metrics::Outcome;
use crate::plan::{ManifestDraft, Plan, Range, ShardPlan, expects_shards, is_promised, read_plan, shard_plan};
use crate::progress::Progress;
use crate::read::{LivenessProbe, Source};
use crate::upload::Upload;
use crate::work_error::{WorkError, internal};

/// Plans the export, and either makes its shards available to all workers or reads it as one stream.
pub(super) async fn perform(
    context: &WorkerContext,
    claim: &Claim,
    format: Format,
    size_step: u8,
    aborting: &CancellationToken,
) -> Outcome {
    let progress = Arc::new(Progress::default());
    let mut upload = Upload::new(context.target(), claim, format);
    let planning = plan_export(context, claim, size_step, &mut upload, &progress);
    let started = Box::pin(planning.instrument(tracing::info_span!("plan")));
    let staged = match run_guarded(context, claim, &progress, aborting, started).await {
        Ok(StartOutcome::Stream(stream)) => {
            let written = Box::pin(stream::run(context, *stream, &mut upload, &progress));
            run_guarded(context, claim, &progress, aborting, written).await
        }
        // Without the heartbeat, because the claim ends when the shards become available.
        Ok(StartOutcome::Sharded(shards)) => match publish_shards(context, claim, *shards).await {
            Ok(()) => return Outcome::Done,
            // Other workers may know of the upload by now, so it is left to the sweeper.
            Err(error) => {
                context.snapshots.forget(claim.export_id, claim.attempt);
                return record_end(context, claim, error).await;
            }
        },
        Err(error) => Err(error),
    };
    match staged {
        Ok((staged, manifest)) => publish(context, claim, upload, &progress, staged, manifest, aborting).await,
        // Nothing of this attempt is visible yet, so all of it can be removed, whoever holds the export by now.
        Err(error) => {
            let ending = async {
                upload.discard().await;
                record_end(context, claim, error).await
            };
            keep_lease_while(context, claim, &progress, Box::pin(ending)).await
        }
    }
}

/// The result of planning an export.
enum StartOutcome<'a> {
    /// The export is one stream, which this worker reads.
    Stream(Box<Stream<'a>>),
    /// The export is sharded.
    Sharded(Box<NewShards>),
}

/// Planned shards that the ledger does not have yet.
struct NewShards {
    transaction: Source,
    /// The right to go on holding the transaction's snapshot.
    permit: SnapshotPermit,
    plan: Plan,
    planned: Planned,
}

/// Takes the snapshot and plans. Nothing that other workers rely on has changed when this returns.
async fn plan_export<'a>(
    context: &'a WorkerContext,
    claim: &'a Claim,
    size_step: u8,
    upload: &mut Upload<'_>,
    progress: &Arc<Progress>,
) -> Result<StartOutcome<'a>, WorkError> {
    // Recorded in the ledger before anything is created outside of it, so that it is cleaned up if this process dies.
    upload.begin().await?;
    let (url, request) = (&context.connections.source_database_url, &claim.request);
    let connected = context.connection_cache.connect(url, &session_name(claim.export_id, claim.attempt)).await?;
    let mut probe = LivenessProbe::new(url, &context.connection_limit);
    let (mut source, mut snapshot) = probe.run_while_alive(progress, connected.begin(request)).await?;
    probe.backend = Some(source.backend.clone());
    let plan = probe.run_while_alive(progress, read_plan(&mut source, request, context.settings.max_row_bytes)).await?;
    snapshot.promised = probe.run_while_alive(progress, is_promised(&mut source, &plan.relation)).await?;
    // Before the table is sampled, which would have to be done again.
    let is_large = expects_shards(&plan, request, size_step);
    if is_large {
        source = take_place(context, claim, source).await?;
    }
    let shards = probe.run_while_alive(progress, shard_plan(&mut source, &plan, request, size_step)).await?;
    let file = ManifestDraft::new(&plan, request, snapshot);
    let ranges = match shards {
        ShardPlan::Sharded(ranges) => ranges,
        ShardPlan::SingleStream(reason) => {
            tracing::info!(single_stream_reason = reason.code(), "export planned");
            return Ok(StartOutcome::Stream(Box::new(Stream { claim, source, plan, file, reason, probe })));
        }
    };
    if !is_large {
        source = take_place(context, claim, source).await?;
    }
    tracing::info!(shards = ranges.len(), "export planned");
    let permit = match context.snapshots.permit().await {
        Ok(permit) => permit,
        Err(error) => {
            source.close();
            return Err(error);
        }
    };
    let file = file.with_partitions(probe.run_while_alive(progress, source.partitions(request)).await?);
    let planned = planned(context, claim, &plan, &file, &ranges)?;
    if request.layout == Layout::File {
        upload.create().await?;
    }
    Ok(StartOutcome::Sharded(Box::new(NewShards { transaction: source, permit, plan, planned })))
}

/// Takes a place for the snapshot of a sharded export, unless the claim came with one. If there is none, the transaction ends
/// and its connection is left for another export.
async fn take_place(context: &WorkerContext, claim: &Claim, source: Source) -> Result<Source, WorkError> {
    if claim.has_place {
        return Ok(source);
    }
    let Settings { lease, max_open_snapshots, .. } = context.settings;
    let call = || context.ledger.take_place(claim, max_open_snapshots);
    match retry_while_unavailable(lease, call).await? {
        PlaceRequest::Granted => Ok(source),
        PlaceRequest::Denied => {
            context.connection_cache.keep(source.commit().await?);
            Err(WorkError::NoPlace)
        }
        PlaceRequest::CancelRequested => Err(WorkError::Cancelled),
    }
}

/// Returns the plan as the ledger stores it.
fn planned(
    context: &WorkerContext,
    claim: &Claim,
    plan: &Plan,
    file: &ManifestDraft,
    ranges: &[Range],
) -> Result<Planned, WorkError> {
    let bounds: Result<Vec<_>, _> = ranges.iter().map(serde_json::to_value).collect();
    let cap = context.settings.max_parallelism;
    Ok(Planned {
        plan: serde_json::to_value(file).map_err(|error| WorkError::Failed(internal(&error)))?,
        bounds: bounds.map_err(|error| WorkError::Failed(internal(&error)))?,
        rows_estimate: plan.rows_estimate(),
        parallelism: claim.request.parallelism.map_or(cap, |wanted| wanted.min(cap)),
    })
}

/// Makes the shards available to all workers. From then on this process holds their snapshot.
async fn publish_shards(context: &WorkerContext, claim: &Claim, shards: NewShards) -> Result<(), WorkError> {
    let NewShards { transaction, permit, plan, planned } = shards;
    let snapshot = context.snapshots.register(&Attempt::from(claim), transaction, permit, plan).await?;
    let call = || context.ledger.planned(claim, &planned, context.snapshots.holder(&snapshot));
    match retry_while_unavailable(context.settings.lease, call).await {
        Ok(Renewal::Held) => {}
        Ok(Renewal::CancelRequested) => return Err(WorkError::Cancelled),
        // The call may have been repeated because its first answer was lost. The ledger then has the snapshot of this
        // process.
        Err(LedgerError::LeaseLost) => {
            let known = retry_while_unavailable(context.settings.lease, || {
                context.ledger.snapshots(claim.export_id, claim.attempt)
            })
            .await?;
            if !known.contains(&snapshot) {
                return Err(WorkError::Lost);
            }
        }
        Err(error) => return Err(error.into()),
    }
    context.relay.wake();
    Ok(())
}
