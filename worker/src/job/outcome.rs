//! The end of work that was not completed: what is recorded in the ledger and in the log.

use polyglot_core::failure::{Failure, chain};
use polyglot_core::status::Status;
use polyglot_ledger::{Claim, LedgerError, with_timeout};

use super::lease::retry_within_lease;
use crate::context::WorkerContext;
use crate::metrics::{self, Outcome};
use crate::work_error::WorkError;

/// Records in the ledger why the work was not completed.
pub(super) async fn record_end(context: &WorkerContext, claim: &Claim, error: WorkError) -> Outcome {
    let retry = context.settings.retry;
    let failed = |failure: &Failure, again: bool| {
        tracing::warn!(
            code = failure.kind.code(),
            reason = failure.message,
            detail = failure.detail,
            again,
            "attempt failed"
        );
        if again { Outcome::Again } else { Outcome::Failed }
    };
    let written = match &error {
        WorkError::Failed(failure) => {
            let again = retry_within_lease(context, || context.ledger.fail(claim, failure, retry)).await;
            again.map(|again| failed(failure, again))
        }
        WorkError::FailedAttempt(failure) => {
            let again = retry_within_lease(context, || context.ledger.fail_attempt(claim, failure, retry)).await;
            again.map(|again| failed(failure, again))
        }
        WorkError::Blocked(failure) => {
            let again = retry_within_lease(context, || context.ledger.blocked(claim, failure, retry)).await;
            again.map(|again| failed(failure, again))
        }
        WorkError::TooSmall => {
            tracing::warn!("the shard is smaller than the store accepts, planning again");
            let ended = retry_within_lease(context, || context.ledger.too_small(claim)).await;
            context.relay.wake();
            ended.map(|()| Outcome::TooSmall)
        }
        WorkError::NoPlace => {
            tracing::info!("no place for another snapshot, the export waits");
            retry_within_lease(context, || context.ledger.wait_for_place(claim)).await.map(|()| Outcome::Waits)
        }
        WorkError::Cancelled => {
            tracing::info!("export cancelled");
            retry_within_lease(context, || context.ledger.cancelled(claim)).await.map(|()| Outcome::Cancelled)
        }
        WorkError::NoConnection => {
            tracing::info!("no connection to the source is free for another snapshot, work given back");
            retry_within_lease(context, || context.ledger.give_back(claim)).await.map(|()| Outcome::GivenBack)
        }
        WorkError::ShuttingDown => {
            tracing::info!("shutting down, work given back");
            retry_within_lease(context, || context.ledger.give_back(claim)).await.map(|()| Outcome::GivenBack)
        }
        WorkError::Lost => Err(LedgerError::LeaseLost),
    };
    match written {
        Ok(outcome) => outcome,
        Err(LedgerError::LeaseLost) => lease_lost(context, claim).await,
        Err(error) => {
            // The lease expires, and the sweeper then queues the export again.
            tracing::warn!(error = chain(&error), "the end of the attempt could not be recorded in the ledger");
            Outcome::Lost
        }
    }
}

/// The first holder of a shard that sees a wish to cancel ends the export for all of them, which is nothing to worry about.
async fn lease_lost(context: &WorkerContext, claim: &Claim) -> Outcome {
    if let Ok(Some(Status::Cancelled)) = with_timeout(context.ledger.status(claim.export_id)).await {
        tracing::info!("export cancelled, work dropped");
        return Outcome::Cancelled;
    }
    tracing::warn!("the lease was lost, work dropped");
    metrics::lease_lost();
    Outcome::Lost
}
