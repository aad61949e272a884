//! One claim from beginning to end: the pipeline under its lease, the switch that makes the file visible, and
//! what is written down when there is no file. Nothing here decides what work there is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use polyglot_export::failure::{Failure, chain};
use polyglot_export::ledger::{self, Claim, Finished, Ledger, LedgerError, Renewal, deadline_failure};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::memory;
use crate::pipeline::{self, Progress, Stages, Stop};
use crate::upload::Upload;
use crate::worker::Worker;

/// How often the lease is renewed, the progress written down and a cancellation noticed.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Does the claimed work and writes down how it ended. Returns when nothing of it is left to do here.
pub(crate) async fn perform(worker: &Worker, claim: &Claim, aborting: &CancellationToken) {
    let progress = Arc::new(Progress::default());
    let mut upload = Upload::new(&worker.storage, &worker.ledger, worker.settings.lease, claim);
    let stages = Stages {
        source_url: &worker.connections.source_database_url,
        ledger: &worker.ledger,
        ledger_patience: worker.settings.lease,
        max_batch_rows: worker.settings.max_batch_rows,
        readers: worker.settings.readers,
        part_budget: worker.settings.part_budget(),
        max_row_bytes: worker.settings.max_row_bytes,
    };
    let written = tokio::select! {
        // Boxed, as below: these futures hold the driver's and the SDK's state and are moved around otherwise.
        written = Box::pin(pipeline::run(&stages, claim, &mut upload, &progress)) => written,
        stop = heartbeat(worker, claim, &progress) => Err(stop),
        failure = deadline(claim) => Err(Stop::Failed(failure)),
        () = aborting.cancelled() => Err(Stop::GiveBack),
    };
    let (staged, manifest) = match written {
        Ok(written) => written,
        // Nothing of this attempt can be visible yet, so all of it can go, whoever holds the export by now.
        Err(stop) => {
            let ending = async {
                upload.discard().await;
                end(worker, claim, stop).await;
            };
            return keep_lease_while(worker, claim, &progress, Box::pin(ending)).await;
        }
    };
    // From here on the file may become visible, so nothing may interrupt what follows halfway.
    let finishing = async {
        match persist(worker, || worker.ledger.finishing(claim)).await {
            Ok(Renewal::Held) => {}
            Ok(Renewal::CancelRequested) => {
                upload.discard().await;
                return end(worker, claim, Stop::Cancelled).await;
            }
            Err(error) => {
                upload.discard().await;
                return end(worker, claim, error.into()).await;
            }
        }
        let etag = match upload.publish(staged, manifest.bytes).await {
            Ok(etag) => etag,
            Err(error) => {
                upload.discard().await;
                return end(worker, claim, error.into()).await;
            }
        };
        let finished =
            Finished { object_key: upload.key().to_owned(), etag, peak_memory_bytes: memory::peak_bytes(), manifest };
        let (rows, bytes) = (finished.manifest.rows, finished.manifest.bytes);
        let keep = worker.settings.keep;
        match persist(worker, || worker.ledger.complete(claim, &finished, keep)).await {
            Ok(Renewal::Held) => tracing::info!(
                export_id = %claim.export_id, attempt = claim.attempt, rows, bytes,
                peak_memory_bytes = finished.peak_memory_bytes, "export completed"
            ),
            Ok(Renewal::CancelRequested) => {
                upload.discard().await;
                end(worker, claim, Stop::Cancelled).await;
            }
            // Refused: the export went on without this worker, unless it was a repeat of a call whose answer was
            // lost. The ledger knows whose file it has.
            Err(LedgerError::LeaseLost) if !owns_file(worker, claim, upload.key()).await => {
                upload.discard().await;
                end(worker, claim, Stop::Lost).await;
            }
            // Whether the ledger took it is not known here, so the object stays. If it did not, the object is
            // in the ledger's list of uploads, and the sweeper removes it once another attempt has begun.
            Err(error) => tracing::warn!(
                export_id = %claim.export_id, attempt = claim.attempt, error = chain(&error),
                "the finished export could not be written down"
            ),
        }
    };
    keep_lease_while(worker, claim, &progress, Box::pin(finishing)).await;
}

/// Writes down how an attempt without a file ended.
async fn end(worker: &Worker, claim: &Claim, stop: Stop) {
    let (export_id, attempt) = (claim.export_id, claim.attempt);
    let written = match &stop {
        Stop::Failed(failure) => {
            let retry = worker.settings.retry;
            let again = persist(worker, || worker.ledger.fail(claim, failure, retry)).await;
            if let Ok(again) = again {
                tracing::warn!(
                    %export_id, attempt, code = failure.kind.code(), message = failure.message,
                    detail = failure.detail, again, "attempt failed"
                );
            }
            again.map(|_| ())
        }
        Stop::Cancelled => {
            tracing::info!(%export_id, attempt, "export cancelled");
            persist(worker, || worker.ledger.cancelled(claim)).await
        }
        Stop::GiveBack => {
            tracing::info!(%export_id, attempt, "shutting down, export given back");
            persist(worker, || worker.ledger.give_back(claim)).await
        }
        Stop::Lost => {
            tracing::warn!(%export_id, attempt, "the lease was lost, attempt dropped");
            Ok(())
        }
    };
    if let Err(error) = written {
        // The lease runs out, and the sweeper has the export tried again.
        tracing::warn!(%export_id, attempt, error = chain(&error), "the attempt's end could not be written down");
    }
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
    ledger::persist(worker.settings.lease, call).await
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
                tracing::warn!(export_id = %claim.export_id, error = chain(&error), "lease not renewed, trying again");
            }
            Err(_) if Instant::now() < held_until => {
                tracing::warn!(export_id = %claim.export_id, "lease not renewed in time, trying again");
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
async fn keep_lease_while(worker: &Worker, claim: &Claim, progress: &Progress, work: impl Future<Output = ()>) {
    let renewing = async {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if let Err(error) = renew(&worker.ledger, claim, worker.settings.lease, progress).await {
                tracing::debug!(export_id = %claim.export_id, error = chain(&error), "lease not renewed at the end");
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = renewing => {}
    }
}

/// Ends when the export's time is up; never, if it has no limit.
async fn deadline(claim: &Claim) -> Failure {
    let Some(at) = claim.deadline else { return std::future::pending().await };
    // A deadline that has passed waits for no time at all.
    let left = (at - chrono::Utc::now()).to_std().unwrap_or(Duration::ZERO);
    tokio::time::sleep(left).await;
    deadline_failure()
}
