//! Taking work: a permit first, then a message, then the claim in the ledger. What is done with a claim is
//! `attempt.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use polyglot_export::config::Connections;
use polyglot_export::failure::chain;
use polyglot_export::ledger::{Claim, Claimed, Ledger, LedgerError, in_time};
use polyglot_export::lifecycle::Lifecycle;
use polyglot_export::queue::{Incoming, Subscription};
use polyglot_export::storage::Storage;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::attempt;
use crate::config::Settings;
use crate::memory;

/// A message is acknowledged at the latest after so long: RabbitMQ closes the channel of a consumer that holds
/// one for half an hour. The lease, not the message, protects the work.
const HOLD_MESSAGE: Duration = Duration::from_mins(15);

/// How long giving back may take once the grace is over.
const GIVE_BACK: Duration = Duration::from_secs(15);

/// What every attempt of this process shares.
pub(crate) struct Worker {
    pub connections: Connections,
    pub settings: Settings,
    pub ledger: Ledger,
    pub storage: Storage,
    /// Shown in the ledger as the owner of leases.
    pub name: String,
    active: AtomicUsize,
}

impl Worker {
    pub(crate) fn new(
        connections: Connections,
        settings: Settings,
        ledger: Ledger,
        storage: Storage,
        name: String,
    ) -> Self {
        Self { connections, settings, ledger, storage, name, active: AtomicUsize::new(0) }
    }
}

/// Takes and does work until the lifecycle stops, then drains: what is running may end within the grace, and is
/// given back after it.
pub(crate) async fn run(worker: Arc<Worker>, mut subscription: Subscription, lifecycle: &Lifecycle) {
    let slots = Arc::new(Semaphore::new(usize::from(worker.settings.slots)));
    loop {
        let permit = tokio::select! {
            () = lifecycle.stopping.cancelled() => break,
            permit = Arc::clone(&slots).acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        let incoming = tokio::select! {
            () = lifecycle.stopping.cancelled() => break,
            incoming = subscription.next() => incoming,
        };
        lifecycle.tasks.spawn(take(Arc::clone(&worker), incoming, permit, lifecycle.clone()));
    }
    lifecycle.tasks.close();
    tracing::info!(running = slots_in_use(&worker), "no more work is taken");
    tokio::select! {
        () = lifecycle.tasks.wait() => {}
        () = lifecycle.aborting.cancelled() => {}
        () = tokio::time::sleep(worker.settings.grace) => {}
    }
    lifecycle.aborting.cancel();
    if tokio::time::timeout(GIVE_BACK, lifecycle.tasks.wait()).await.is_err() {
        tracing::warn!(running = slots_in_use(&worker), "not everything could be given back, leases will run out");
    }
    subscription.close().await;
}

fn slots_in_use(worker: &Worker) -> usize {
    worker.active.load(Ordering::Relaxed)
}

/// One message: claims what it announces, does it, acknowledges.
async fn take(worker: Arc<Worker>, incoming: Incoming, permit: OwnedSemaphorePermit, lifecycle: Lifecycle) {
    let export_id = incoming.token.export_id;
    let settings = &worker.settings;
    let claim =
        || in_time(worker.ledger.claim(export_id, &worker.name, settings.lease, settings.timeout, settings.retry));
    // While the ledger is away the message is kept: each time it were put back would count towards the broker's
    // delivery limit, and an outage of a minute would make dead letters of good messages.
    let claimed = loop {
        match claim().await {
            Err(error @ LedgerError::Unavailable(_)) if !lifecycle.stopping.is_cancelled() => {
                tracing::warn!(%export_id, error = chain(&error), "the ledger is away, trying again");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    () = lifecycle.stopping.cancelled() => {}
                }
            }
            other => break other,
        }
    };
    match claimed {
        Ok(Claimed::Work(claim)) => {
            tracing::info!(
                %export_id, attempt = claim.attempt, fence = claim.fence, format = %claim.request.format, "export claimed"
            );
            let mut incoming = Some(incoming);
            let work = counted(&worker, &claim, &lifecycle);
            tokio::pin!(work);
            tokio::select! {
                () = &mut work => {}
                () = tokio::time::sleep(HOLD_MESSAGE) => {
                    if let Some(incoming) = incoming.take() {
                        incoming.acknowledge().await;
                    }
                    work.await;
                }
            }
            if let Some(incoming) = incoming {
                incoming.acknowledge().await;
            }
        }
        Ok(Claimed::Nothing) => {
            tracing::debug!(%export_id, "no work for this message");
            incoming.acknowledge().await;
        }
        Err(error) => {
            tracing::warn!(%export_id, error = chain(&error), "the ledger gave no answer, message put back");
            incoming.put_back().await;
        }
    }
    drop(permit);
}

async fn counted(worker: &Worker, claim: &Claim, lifecycle: &Lifecycle) {
    if worker.active.fetch_add(1, Ordering::Relaxed) == 0 {
        // The peak that is reported with an export is its own, as long as no other one runs beside it.
        memory::reset_peak();
    }
    Box::pin(attempt::perform(worker, claim, &lifecycle.aborting)).await;
    worker.active.fetch_sub(1, Ordering::Relaxed);
}
