//! Work under a lease: the lease is renewed while the work runs, and a reason to stop the work is noticed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use polyglot_core::failure::{Failure, chain};
use polyglot_ledger::{
    Claim, JobKind, Ledger, LedgerError, Renewal, deadline_failure, retry_while_unavailable, snapshot_age_failure,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::WorkerContext;
use crate::outage::explain;
use crate::progress::Progress;
use crate::work_error::WorkError;

/// Interval at which the lease is renewed, the progress is recorded and a cancellation is noticed.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Repeats a ledger call while the ledger is unavailable or does not answer, for at most the length of the lease.
pub(super) async fn retry_within_lease<T, F>(context: &WorkerContext, call: impl Fn() -> F) -> Result<T, LedgerError>
where
    F: Future<Output = Result<T, LedgerError>>,
{
    retry_while_unavailable(context.settings.lease, call).await
}

/// Runs `work` until it is done or there is a reason to stop it.
pub(super) async fn run_guarded<T>(
    context: &WorkerContext,
    claim: &Claim,
    progress: &Progress,
    aborting: &CancellationToken,
    work: impl Future<Output = Result<T, WorkError>> + Unpin,
) -> Result<T, WorkError> {
    tokio::select! {
        done = work => done,
        error = heartbeat(context, claim, progress) => Err(error),
        failure = deadline(claim) => Err(WorkError::Failed(explain(failure))),
        () = aborting.cancelled() => Err(WorkError::ShuttingDown),
    }
}

/// Renews the lease until there is a reason to stop the work.
async fn heartbeat(context: &WorkerContext, claim: &Claim, progress: &Progress) -> WorkError {
    let lease = context.settings.lease;
    let mut held_until = Instant::now() + lease;
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let asked = Instant::now();
        match tokio::time::timeout(lease / 3, renew(&context.ledger, claim, lease, progress)).await {
            Ok(Ok(Renewal::Held)) => held_until = asked + lease,
            Ok(Ok(Renewal::CancelRequested)) => return WorkError::Cancelled,
            Ok(Err(LedgerError::LeaseLost)) => return WorkError::Lost,
            Ok(Err(error)) if Instant::now() < held_until => {
                tracing::warn!(error = chain(&error), "lease not renewed, trying again");
            }
            Err(_) if Instant::now() < held_until => {
                tracing::warn!("lease not renewed in time, trying again");
            }
            Ok(Err(_)) | Err(_) => return WorkError::Lost,
        }
    }
}

async fn renew(ledger: &Ledger, claim: &Claim, lease: Duration, progress: &Progress) -> Result<Renewal, LedgerError> {
    let rows = progress.rows.load(Ordering::Relaxed);
    let bytes = progress.bytes.load(Ordering::Relaxed);
    ledger.renew(claim, lease, rows, bytes).await
}

/// Runs `work` to its end and renews the lease meanwhile. `work` itself notices a lost lease or a cancellation, because
/// each of its ledger calls reports it.
pub(super) async fn keep_lease_while<T>(
    context: &WorkerContext,
    claim: &Claim,
    progress: &Progress,
    work: impl Future<Output = T>,
) -> T {
    let renewing = async {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if let Err(error) = renew(&context.ledger, claim, context.settings.lease, progress).await {
                tracing::debug!(error = chain(&error), "lease not renewed at the end");
            }
        }
    };
    tokio::select! {
        done = work => done,
        never = renewing => never,
    }
}

/// Waits for the deadline of the export or of its snapshot, whichever is first, and returns the failure. Never returns
/// if neither has a deadline.
async fn deadline(claim: &Claim) -> Failure {
    let snapshot = claim.snapshot_until.filter(|_| !matches!(claim.work, JobKind::Finish(_)));
    let (at, failure) = match (claim.deadline, snapshot) {
        (Some(deadline), Some(snapshot)) if snapshot < deadline => (snapshot, snapshot_age_failure()),
        (Some(deadline), _) => (deadline, deadline_failure()),
        (None, Some(snapshot)) => (snapshot, snapshot_age_failure()),
        (None, None) => return std::future::pending().await,
    };
    // A deadline that has passed leaves no time to wait.
    let left = (at - chrono::Utc::now()).to_std().unwrap_or(Duration::ZERO);
    tokio::time::sleep(left).await;
    failure
}
