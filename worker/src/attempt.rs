//! One claim from beginning to end: the work under its lease, the switch that makes the file visible, and what is written
//! down when the work does not come to its end. Nothing here decides what work there is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use polyglot_core::failure::{Failure, chain};
use polyglot_core::manifest::Manifest;
use polyglot_ledger::{
    self, Claim, Committed, Cut, Finished, Ledger, LedgerError, Renewal, ShardWork, Work, deadline_failure,
    snapshot_age_failure,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::metrics::Outcome;
use crate::pipeline::{self, Progress, Stop};
use crate::start::{self, Begun};
use crate::upload::{Staged, Upload};
use crate::worker::Worker;
use crate::{finish, memory, metrics, shard};

/// How often the lease is renewed, the progress written down and a cancellation noticed.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Does the claimed work and writes down how it ended. Returns when nothing of it is left to do here.
pub(crate) async fn perform(worker: &Worker, claim: &Claim, aborting: &CancellationToken) -> Outcome {
    match &claim.work {
        // Boxed, as below: these futures hold the driver's and the SDK's state and are moved around otherwise.
        Work::Start { coarser } => Box::pin(start(worker, claim, *coarser, aborting)).await,
        Work::Shard(work) => Box::pin(one_shard(worker, claim, work, aborting)).await,
        Work::Finish(cut) => Box::pin(finish(worker, claim, cut, aborting)).await,
    }
}

/// Does `work` for as long as there is no reason to stop it.
async fn guarded<T>(
    worker: &Worker,
    claim: &Claim,
    progress: &Progress,
    aborting: &CancellationToken,
    work: impl Future<Output = Result<T, Stop>> + Unpin,
) -> Result<T, Stop> {
    tokio::select! {
        done = work => done,
        stop = heartbeat(worker, claim, progress) => Err(stop),
        failure = deadline(claim) => Err(Stop::Failed(failure)),
        () = aborting.cancelled() => Err(Stop::GiveBack),
    }
}

/// Plans, and hands the shards out or reads everything.
async fn start(worker: &Worker, claim: &Claim, coarser: u8, aborting: &CancellationToken) -> Outcome {
    let progress = Arc::new(Progress::default());
    let mut upload = Upload::new(worker.target(), claim);
    let planning = start::begin(worker, claim, coarser, &mut upload, &progress);
    let begun = Box::pin(planning.instrument(tracing::info_span!("plan")));
    let staged = match guarded(worker, claim, &progress, aborting, begun).await {
        Ok(Begun::Stream(stream)) => {
            let written = Box::pin(pipeline::run(worker, *stream, &mut upload, &progress));
            guarded(worker, claim, &progress, aborting, written).await
        }
        // Not under the heartbeat: the claim ends with the hand-out.
        Ok(Begun::Cut(cut)) => match start::hand_out(worker, claim, *cut).await {
            Ok(()) => return Outcome::Done,
            // Whether others know of the upload by now may be unknown here: it is the sweeper's.
            Err(stop) => {
                worker.sessions.forget(claim.export_id, claim.attempt);
                return end(worker, claim, stop).await;
            }
        },
        Err(stop) => Err(stop),
    };
    match staged {
        Ok((staged, manifest)) => publish(worker, claim, upload, &progress, staged, manifest).await,
        // Nothing of this attempt can be visible yet, so all of it can go, whoever holds the export by now.
        Err(stop) => {
            let ending = async {
                upload.discard().await;
                end(worker, claim, stop).await
            };
            keep_lease_while(worker, claim, &progress, Box::pin(ending)).await
        }
    }
}

async fn one_shard(worker: &Worker, claim: &Claim, work: &ShardWork, aborting: &CancellationToken) -> Outcome {
    let progress = Arc::new(Progress::default());
    let storing = Box::pin(shard::run(worker, claim, work, &progress));
    let stored = match guarded(worker, claim, &progress, aborting, storing).await {
        Ok(stored) => stored,
        Err(stop) => return end(worker, claim, stop).await,
    };
    let (rows, bytes) = (stored.rows, stored.bytes);
    match persist(worker, || worker.ledger.commit(claim, &stored, memory::peak_bytes())).await {
        Ok(committed @ (Committed::More | Committed::All)) => {
            let all = committed == Committed::All;
            tracing::info!(rows, bytes, all, "shard committed");
            metrics::stored(claim.request.format, rows, bytes);
            worker.relay.wake();
            Outcome::Done
        }
        Ok(Committed::CancelRequested) => end(worker, claim, Stop::Cancelled).await,
        Err(error) => end(worker, claim, error.into()).await,
    }
}

async fn finish(worker: &Worker, claim: &Claim, cut: &Cut, aborting: &CancellationToken) -> Outcome {
    let progress = Arc::new(Progress::default());
    let upload = Upload::resume(worker.target(), claim, cut);
    let staged = Box::pin(finish::run(&worker.ledger, worker.settings.lease, claim, cut, &upload));
    match guarded(worker, claim, &progress, aborting, staged).await {
        Ok((staged, manifest)) => publish(worker, claim, upload, &progress, staged, manifest).await,
        Err(stop) => end(worker, claim, stop).await,
    }
}

/// The switch that makes the file visible. From here on nothing may interrupt what follows halfway.
async fn publish(
    worker: &Worker,
    claim: &Claim,
    mut upload: Upload<'_>,
    progress: &Progress,
    staged: Staged,
    manifest: Manifest,
) -> Outcome {
    let finishing = async {
        match persist(worker, || worker.ledger.finishing(claim)).await {
            Ok(Renewal::Held) => {}
            Ok(Renewal::CancelRequested) => return without_file(worker, claim, upload, Stop::Cancelled).await,
            Err(error) => return without_file(worker, claim, upload, error.into()).await,
        }
        let etag = match upload.publish(staged, &manifest).await {
            Ok(etag) => etag,
            Err(error) => return without_file(worker, claim, upload, error.into()).await,
        };
        let finished =
            Finished { object_key: upload.owned().to_owned(), etag, peak_memory_bytes: memory::peak_bytes(), manifest };
        let (rows, bytes) = (finished.manifest.rows, finished.manifest.bytes);
        let keep = worker.settings.keep;
        match persist(worker, || worker.ledger.complete(claim, &finished, keep)).await {
            Ok(Renewal::Held) => {
                tracing::info!(rows, bytes, peak_memory_bytes = finished.peak_memory_bytes, "export completed");
                // Of an export that was cut, each shard was counted by itself.
                if matches!(claim.work, Work::Start { .. }) {
                    metrics::stored(claim.request.format, rows, bytes);
                }
                Outcome::Done
            }
            Ok(Renewal::CancelRequested) => without_file(worker, claim, upload, Stop::Cancelled).await,
            // Refused: the export went on without this worker, unless it was a repeat of a call whose answer was
            // lost. The ledger knows whose file it has.
            Err(LedgerError::LeaseLost) if !owns_file(worker, claim, upload.owned()).await => {
                without_file(worker, claim, upload, Stop::Lost).await
            }
            // Whether the ledger took it is not known here, so the object stays. If it did not, the object is
            // in the ledger's list of uploads, and the sweeper removes it once another attempt has begun.
            Err(error) => {
                tracing::warn!(error = chain(&error), "the finished export could not be written down");
                Outcome::Lost
            }
        }
    };
    let finishing = finishing.instrument(tracing::info_span!("complete"));
    keep_lease_while(worker, claim, progress, Box::pin(finishing)).await
}

/// Ends what did not become a file. An upload that several claims share is left to the sweeper, which knows whether the
/// attempt goes on.
async fn without_file(worker: &Worker, claim: &Claim, upload: Upload<'_>, stop: Stop) -> Outcome {
    if matches!(claim.work, Work::Start { .. }) {
        upload.discard().await;
    }
    end(worker, claim, stop).await
}

/// Writes down how work ended that did not come to its end.
async fn end(worker: &Worker, claim: &Claim, stop: Stop) -> Outcome {
    let retry = worker.settings.retry;
    let told = |failure: &Failure, again: bool| {
        tracing::warn!(
            code = failure.kind.code(),
            reason = failure.message,
            detail = failure.detail,
            again,
            "attempt failed"
        );
        if again { Outcome::Again } else { Outcome::Failed }
    };
    let written = match &stop {
        Stop::Failed(failure) => {
            let again = persist(worker, || worker.ledger.fail(claim, failure, retry)).await;
            again.map(|again| told(failure, again))
        }
        Stop::FailedAttempt(failure) => {
            let again = persist(worker, || worker.ledger.fail_attempt(claim, failure, retry)).await;
            again.map(|again| told(failure, again))
        }
        Stop::Blocked(failure) => {
            let again = persist(worker, || worker.ledger.blocked(claim, failure, retry)).await;
            again.map(|again| told(failure, again))
        }
        Stop::TooSmall => {
            tracing::warn!("the shard is smaller than the store takes, planned again");
            let ended = persist(worker, || worker.ledger.too_small(claim)).await;
            worker.relay.wake();
            ended.map(|()| Outcome::TooSmall)
        }
        Stop::Cancelled => {
            tracing::info!("export cancelled");
            persist(worker, || worker.ledger.cancelled(claim)).await.map(|()| Outcome::Cancelled)
        }
        Stop::GiveBack => {
            tracing::info!("shutting down, work given back");
            persist(worker, || worker.ledger.give_back(claim)).await.map(|()| Outcome::GivenBack)
        }
        Stop::Lost => {
            tracing::warn!("the lease was lost, work dropped");
            metrics::lease_lost();
            Ok(Outcome::Lost)
        }
    };
    written.unwrap_or_else(|error| {
        // The lease runs out, and the sweeper has the export tried again.
        tracing::warn!(error = chain(&error), "the attempt's end could not be written down");
        if let LedgerError::LeaseLost = error {
            metrics::lease_lost();
        }
        Outcome::Lost
    })
}

/// Whether the ledger has `key` as the export's file; if it cannot be asked, it may have.
async fn owns_file(worker: &Worker, claim: &Claim, key: &str) -> bool {
    match persist(worker, || worker.ledger.find(claim.export_id)).await {
        Ok(export) => export.is_some_and(|export| export.object_key.as_deref() == Some(key)),
        Err(_) => true,
    }
}

/// Repeats a ledger call while the ledger is away or silent, for as long as the lease may hold.
async fn persist<T, F>(worker: &Worker, call: impl Fn() -> F) -> Result<T, LedgerError>
where
    F: Future<Output = Result<T, LedgerError>>,
{
    polyglot_ledger::persist(worker.settings.lease, call).await
}

/// Renews the lease until there is a reason to stop the work.
async fn heartbeat(worker: &Worker, claim: &Claim, progress: &Progress) -> Stop {
    let lease = worker.settings.lease;
    let mut held_until = Instant::now() + lease;
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let asked = Instant::now();
        match tokio::time::timeout(lease / 3, renew(&worker.ledger, claim, lease, progress)).await {
            Ok(Ok(Renewal::Held)) => held_until = asked + lease,
            Ok(Ok(Renewal::CancelRequested)) => return Stop::Cancelled,
            Ok(Err(LedgerError::LeaseLost)) => return Stop::Lost,
            Ok(Err(error)) if Instant::now() < held_until => {
                tracing::warn!(error = chain(&error), "lease not renewed, trying again");
            }
            Err(_) if Instant::now() < held_until => {
                tracing::warn!("lease not renewed in time, trying again");
            }
            Ok(Err(_)) | Err(_) => return Stop::Lost,
        }
    }
}

async fn renew(ledger: &Ledger, claim: &Claim, lease: Duration, progress: &Progress) -> Result<Renewal, LedgerError> {
    let rows = progress.rows.load(Ordering::Relaxed);
    let bytes = progress.bytes.load(Ordering::Relaxed);
    ledger.renew(claim, lease, rows, bytes).await
}

/// Runs `work` to its end with the lease renewed meanwhile. That the lease is lost, or a cancellation wanted, is
/// for `work` to find out: every ledger call of it says so.
async fn keep_lease_while<T>(worker: &Worker, claim: &Claim, progress: &Progress, work: impl Future<Output = T>) -> T {
    let renewing = async {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if let Err(error) = renew(&worker.ledger, claim, worker.settings.lease, progress).await {
                tracing::debug!(error = chain(&error), "lease not renewed at the end");
            }
        }
    };
    tokio::select! {
        done = work => done,
        never = renewing => never,
    }
}

/// Ends when the time of the export, or of its snapshot, is up; never, if neither has a limit.
async fn deadline(claim: &Claim) -> Failure {
    let snapshot = claim.snapshot_until.filter(|_| !matches!(claim.work, Work::Finish(_)));
    let (at, failure) = match (claim.deadline, snapshot) {
        (Some(deadline), Some(snapshot)) if snapshot < deadline => (snapshot, snapshot_age_failure()),
        (Some(deadline), _) => (deadline, deadline_failure()),
        (None, Some(snapshot)) => (snapshot, snapshot_age_failure()),
        (None, None) => return std::future::pending().await,
    };
    // A moment that has passed waits for no time at all.
    let left = (at - chrono::Utc::now()).to_std().unwrap_or(Duration::ZERO);
    tokio::time::sleep(left).await;
    failure
}
