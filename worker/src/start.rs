//! The beginning of an attempt: the snapshot, the plan, and whether the export is cut into shards.

use std::sync::Arc;

use polyglot_core::request::Layout;
use polyglot_ledger::{Attempt, Claim, LedgerError, Planned, Renewal, persist};
use polyglot_source::session::session_name;

use crate::manifest_draft::ManifestDraft;
use crate::pipeline::{Progress, Stop, Stream, internal};
use crate::source::{Cut, Plan, Range, Source, Watch};
use crate::upload::Upload;
use crate::worker::Worker;

/// What an export becomes.
pub(crate) enum Begun<'a> {
    /// To be read here and now.
    Stream(Box<Stream<'a>>),
    /// To be stored as shards.
    Cut(Box<NewCut>),
}

/// Shards, before anybody else knows of them.
pub(crate) struct NewCut {
    keeper: Source,
    plan: Plan,
    planned: Planned,
}

/// Takes the snapshot and plans. Nothing that others rely on has changed when this returns.
pub(crate) async fn begin<'a>(
    worker: &'a Worker,
    claim: &'a Claim,
    coarser: u8,
    upload: &mut Upload<'_>,
    progress: &Arc<Progress>,
) -> Result<Begun<'a>, Stop> {
    // In the ledger before anything is begun outside of it, so that whatever dies is cleaned up behind.
    upload.begin().await?;
    let (url, request) = (&worker.connections.source_database_url, &claim.request);
    let connected = worker.idle.connect(url, &session_name(claim.export_id, claim.attempt)).await?;
    let mut watch = Watch::new(url);
    let (mut source, snapshot) = watch.over(progress, connected.begin(request)).await?;
    watch.backend = Some(source.backend.clone());
    let plan = watch.over(progress, source.plan(request, worker.settings.max_row_bytes)).await?;
    let cut = watch.over(progress, source.cut(&plan, request, coarser)).await?;
    let file = ManifestDraft::new(&plan, request, snapshot);
    let ranges = match cut {
        Cut::Ranges(ranges) => ranges,
        Cut::One(uncut) => {
            tracing::info!(uncut = uncut.code(), "export planned");
            return Ok(Begun::Stream(Box::new(Stream { claim, source, plan, file, uncut, watch })));
        }
    };
    tracing::info!(shards = ranges.len(), "export planned");
    let file = file.over(watch.over(progress, source.partitions(request)).await?);
    let planned = planned(worker, claim, &plan, &file, &ranges)?;
    if request.layout == Layout::File {
        upload.create().await?;
    }
    Ok(Begun::Cut(Box::new(NewCut { keeper: source, plan, planned })))
}

fn planned(
    worker: &Worker,
    claim: &Claim,
    plan: &Plan,
    file: &ManifestDraft,
    ranges: &[Range],
) -> Result<Planned, Stop> {
    let bounds: Result<Vec<_>, _> = ranges.iter().map(serde_json::to_value).collect();
    let cap = worker.settings.max_parallelism;
    Ok(Planned {
        plan: serde_json::to_value(file).map_err(|error| Stop::Failed(internal(&error)))?,
        bounds: bounds.map_err(|error| Stop::Failed(internal(&error)))?,
        rows_estimate: plan.rows_estimate(),
        parallelism: claim.request.parallelism.map_or(cap, |wanted| wanted.min(cap)),
    })
}

/// Gives the shards to whoever wants them; from then on this process keeps their snapshot.
pub(crate) async fn hand_out(worker: &Worker, claim: &Claim, cut: NewCut) -> Result<(), Stop> {
    let NewCut { keeper, plan, planned } = cut;
    let snapshot = worker.sessions.found(&Attempt::from(claim), keeper, plan).await?;
    let call = || worker.ledger.planned(claim, &planned, worker.sessions.keeper(&snapshot));
    match persist(worker.settings.lease, call).await {
        Ok(Renewal::Held) => {}
        Ok(Renewal::CancelRequested) => return Err(Stop::Cancelled),
        // Perhaps by a repeat of the call, whose first answer was lost.
        Err(LedgerError::LeaseLost) => {
            let known =
                persist(worker.settings.lease, || worker.ledger.snapshots(claim.export_id, claim.attempt)).await?;
            if !known.contains(&snapshot) {
                return Err(Stop::Lost);
            }
        }
        Err(error) => return Err(error.into()),
    }
    worker.relay.wake();
    Ok(())
}
