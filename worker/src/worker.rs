//! Taking work: a permit first, then a message or a look into the ledger, then the claim. What is done with a claim is
//! `attempt.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use polyglot_core::failure::chain;
use polyglot_ledger::queue::{Incoming, Relay, Subscription};
use polyglot_ledger::{Claim, Claimed, Ledger, LedgerError, in_time};
use polyglot_runtime::lifecycle::Lifecycle;
use polyglot_runtime::telemetry::{self, ClaimTimer, TraceContext};
use polyglot_storage::Storage;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use uuid::Uuid;

use crate::config::Settings;
use crate::session::Sessions;
use crate::source::Idle;
use crate::upload::{Buffers, Target};
use crate::{attempt, memory, metrics};
use polyglot_ledger::Connections;

/// A message whose work has begun is acknowledged at the latest after so long: RabbitMQ closes the channel of a consumer
/// that holds one for half an hour. The lease, not the message, protects the work.
const HOLD_MESSAGE: Duration = Duration::from_mins(15);

/// How often a worker with a free slot looks into the ledger for work that no message told it of.
const LOOK: Duration = Duration::from_secs(2);
const LOOK_WITHOUT_BROKER: Duration = Duration::from_millis(500);

/// How many exports a look considers: others may be looking at the same ones.
const CANDIDATES: i64 = 8;

/// How long giving back may take once the grace is over.
const GIVE_BACK: Duration = Duration::from_secs(15);

/// What every attempt of this process shares.
pub(crate) struct Worker {
    pub connections: Connections,
    pub settings: Settings,
    pub ledger: Ledger,
    pub storage: Storage,
    pub relay: Relay,
    /// Shown in the ledger as the owner of leases.
    pub name: String,
    pub sessions: Sessions,
    pub buffers: Buffers,
    pub idle: Idle,
    active: AtomicUsize,
}

impl Worker {
    pub(crate) fn new(
        connections: Connections,
        settings: Settings,
        ledger: Ledger,
        storage: Storage,
        relay: Relay,
        name: String,
    ) -> Self {
        let buffers = Buffers::default();
        let idle = Idle::new(settings.slots.into());
        let sessions = Sessions::new(
            connections.source_database_url.clone(),
            ledger.clone(),
            name.clone(),
            settings.max_row_bytes,
            buffers.clone(),
            idle.clone(),
        );
        Self {
            connections,
            settings,
            ledger,
            storage,
            relay,
            name,
            sessions,
            buffers,
            idle,
            active: AtomicUsize::new(0),
        }
    }

    pub(crate) fn target(&self) -> Target<'_> {
        Target { storage: &self.storage, ledger: &self.ledger, patience: self.settings.lease }
    }

    /// Pieces of work that are being done.
    pub(crate) fn in_use(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// `announced`: what a message says of its place in a trace.
    async fn claim(&self, export_id: Uuid, announced: Option<&TraceContext>) -> Result<Claimed, LedgerError> {
        let (terms, since) = (self.settings.terms(), ClaimTimer::now());
        let claim = self.ledger.claim(export_id, &self.name, &terms);
        // The driver's state is large, and would be copied through every caller.
        let claimed = in_time(Box::pin(claim)).await;
        if let Ok(Claimed::Work(claim)) = &claimed {
            if claim.shard > 0 {
                // With a shard comes a message for the next one.
                self.relay.wake();
            }
            let announced = announced.filter(|origin| origin.trace_parent.is_some());
            since.claimed(announced.unwrap_or(&claim.origin), export_id, claim.shard);
        }
        claimed
    }

    /// Until the next look for work in the ledger: up to half as long again, so that workers do not look all at once.
    fn pause(&self) -> Duration {
        let pause = if self.connections.amqp_url.is_some() { LOOK } else { LOOK_WITHOUT_BROKER };
        pause + pause * u32::from(Uuid::new_v4().as_bytes()[0]) / 512
    }
}

/// Work as it reaches this process.
enum Work {
    /// The broker says that an export has some.
    Announced(Box<Incoming>),
    /// Found in the ledger, and claimed.
    Found(Box<Claim>),
}

/// Takes and does work until the lifecycle stops, then drains: what is running may end within the grace, and is
/// given back after it.
pub(crate) async fn run(worker: Arc<Worker>, mut subscription: Subscription, lifecycle: &Lifecycle) {
    let slots = Arc::new(Semaphore::new(usize::from(worker.settings.slots)));
    let mut look_at = Instant::now() + worker.pause();
    let sharing = {
        let (worker, stopping) = (Arc::clone(&worker), lifecycle.stopping.clone());
        tokio::spawn(async move { worker.sessions.share(&stopping).await })
    };
    loop {
        let permit = tokio::select! {
            () = lifecycle.stopping.cancelled() => break,
            permit = Arc::clone(&slots).acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        let next = subscription.next();
        tokio::pin!(next);
        let work = loop {
            tokio::select! {
                () = lifecycle.stopping.cancelled() => break None,
                incoming = &mut next => break Some(Work::Announced(Box::new(incoming))),
                () = tokio::time::sleep_until(look_at) => {
                    // Not to be dropped halfway: a claim that nobody knows of holds its export until the lease ends.
                    if let Some(claim) = look(&worker, lifecycle).await {
                        // There may be more.
                        look_at = Instant::now();
                        break Some(Work::Found(claim));
                    }
                    look_at = Instant::now() + worker.pause();
                }
            }
        };
        let Some(work) = work else { break };
        lifecycle.tasks.spawn(take(Arc::clone(&worker), work, permit, lifecycle.clone()));
    }
    lifecycle.tasks.close();
    tracing::info!(running = worker.in_use(), "no more work is taken");
    tokio::select! {
        () = lifecycle.tasks.wait() => {}
        () = lifecycle.aborting.cancelled() => {}
        () = tokio::time::sleep(worker.settings.grace) => {}
    }
    lifecycle.aborting.cancel();
    if tokio::time::timeout(GIVE_BACK, lifecycle.tasks.wait()).await.is_err() {
        tracing::warn!(running = worker.in_use(), "not everything could be given back, leases will run out");
    }
    // It may be in the middle of joining, which takes a while to time out.
    sharing.abort();
    worker.sessions.close().await;
    subscription.close().await;
}

/// Finds an export in the ledger that waits for a worker or has lost its own, and claims it. Messages tell of the same
/// exports sooner; this is for those whose message was lost, lies with a busy worker, or cannot come.
async fn look(worker: &Worker, lifecycle: &Lifecycle) -> Option<Box<Claim>> {
    let ready = match in_time(worker.ledger.ready(CANDIDATES)).await {
        Ok(ready) => ready,
        Err(error) => {
            tracing::warn!(error = chain(&error), "the ledger cannot be asked for work, trying again");
            return None;
        }
    };
    for export_id in ready {
        if lifecycle.stopping.is_cancelled() {
            return None;
        }
        match worker.claim(export_id, None).await {
            Ok(Claimed::Work(claim)) => return Some(claim),
            // Another worker was faster.
            Ok(Claimed::Nothing) => {}
            Err(error) => {
                tracing::warn!(%export_id, error = chain(&error), "the export cannot be claimed");
                if matches!(error, LedgerError::Unavailable(_)) {
                    return None;
                }
            }
        }
    }
    None
}

async fn take(worker: Arc<Worker>, work: Work, permit: OwnedSemaphorePermit, lifecycle: Lifecycle) {
    match work {
        Work::Found(claim) => perform(&worker, &claim, &lifecycle).await,
        Work::Announced(incoming) => announced(&worker, *incoming, &lifecycle).await,
    }
    drop(permit);
}

/// One message: claims what it announces, does it, acknowledges.
async fn announced(worker: &Worker, incoming: Incoming, lifecycle: &Lifecycle) {
    let export_id = incoming.token.export_id;
    // While the ledger is away the message is kept: each time it were put back would count towards the broker's
    // delivery limit, and an outage of a minute would make dead letters of good messages.
    let claimed = loop {
        match worker.claim(export_id, Some(&incoming.origin)).await {
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
            let mut incoming = Some(incoming);
            let work = perform(worker, &claim, lifecycle);
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
        // The ledger counts it as a failed attempt, and announces the next one.
        Err(error @ LedgerError::Unreadable { .. }) => {
            tracing::error!(%export_id, error = chain(&error), "the export cannot be read by this version");
            incoming.acknowledge().await;
        }
        Err(error) => {
            tracing::warn!(%export_id, error = chain(&error), "the ledger gave no answer, message put back");
            incoming.put_back().await;
        }
    }
}

/// The span of a claim's work: every line of the log that is about it has these fields. As errors are, so that no RUST_LOG
/// takes them from lines that it lets through.
fn span(claim: &Claim) -> Span {
    let span = tracing::error_span!(
        "work", export_id = %claim.export_id, attempt = claim.attempt, shard = claim.shard, fence = claim.fence,
        request_id = claim.origin.request_id, format = claim.request.format.name(), kind = metrics::kind(claim),
        otel.name = Empty, otel.kind = Empty, otel.status_code = Empty
    );
    telemetry::set_parent(&span, &claim.origin);
    telemetry::rename(&span, metrics::kind(claim), "internal");
    span
}

async fn perform(worker: &Worker, claim: &Claim, lifecycle: &Lifecycle) {
    let span = span(claim);
    let performing = async {
        tracing::info!("work claimed");
        if worker.active.fetch_add(1, Ordering::Relaxed) == 0 {
            // The peak that is reported with an export is its own, as long as no other one runs beside it.
            memory::reset_peak();
        }
        let began = Instant::now();
        let outcome = Box::pin(attempt::perform(worker, claim, &lifecycle.aborting)).await;
        worker.active.fetch_sub(1, Ordering::Relaxed);
        metrics::ended(claim, outcome, began.elapsed());
        if outcome.is_failure() {
            telemetry::failed(&Span::current());
        }
    };
    performing.instrument(span).await;
}
