//! The loop that takes work: first a free slot, then a message or a poll of the ledger, then the claim. `job` performs
//! what was claimed.

use std::sync::Arc;
use std::time::Duration;

use polyglot_core::failure::chain;
use polyglot_ledger::queue::{Incoming, Subscription};
use polyglot_ledger::{Claim, LedgerError, with_timeout};
use polyglot_runtime::lifecycle::Lifecycle;
use polyglot_runtime::retry::with_jitter;
use polyglot_runtime::telemetry::{self, ClaimTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::context::WorkerContext;
use crate::{job, metrics};

/// Maximum time until the message of work that has begun is acknowledged: RabbitMQ closes the channel of a consumer
/// that holds a message for half an hour. The lease, not the message, protects the work.
const MESSAGE_HOLD_TIME: Duration = Duration::from_mins(15);

/// Interval at which a worker with a free slot polls the ledger for work that no message announced.
const POLL: Duration = Duration::from_secs(2);
/// Interval of the polls where there is no broker.
const POLL_WITHOUT_BROKER: Duration = Duration::from_millis(500);

/// Time to give work back once the grace period is over.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_secs(15);

/// The source of a piece of work.
enum JobSource {
    /// A message says that there is work.
    Announced(Box<Incoming>),
    /// Work that was found in the ledger and is claimed.
    Found(Box<Claim>),
}

/// Takes and performs work until the lifecycle stops, then drains: running work may end within the grace period, and is
/// given back after it.
pub(crate) async fn run(context: Arc<WorkerContext>, mut subscription: Subscription, lifecycle: &Lifecycle) {
    let slots = Arc::new(Semaphore::new(usize::from(context.settings.slots)));
    let mut poll_at = Instant::now() + poll_pause(&context);
    let sharing = {
        let (context, stopping) = (Arc::clone(&context), lifecycle.stopping.clone());
        tokio::spawn(async move { context.snapshots.share(&stopping).await })
    };
    'slot: loop {
        let permit = tokio::select! {
            () = lifecycle.stopping.cancelled() => break,
            permit = Arc::clone(&slots).acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        // No work is taken with a role that may do more than read. The check logs it, again and again.
        let mut is_refused = context.role_check.refusal().await.is_some();
        while is_refused && !lifecycle.stopping.is_cancelled() {
            tokio::select! {
                () = lifecycle.stopping.cancelled() => {}
                () = tokio::time::sleep(POLL) => is_refused = context.role_check.refusal().await.is_some(),
            }
        }
        let next = subscription.next();
        tokio::pin!(next);
        let work = loop {
            tokio::select! {
                () = lifecycle.stopping.cancelled() => break None,
                incoming = &mut next => break Some(JobSource::Announced(Box::new(incoming))),
                () = tokio::time::sleep_until(poll_at) => {
                    if context.role_check.refusal().await.is_some() {
                        continue 'slot;
                    }
                    // Not cancelled halfway: a claim that nobody knows of holds its export until the lease ends.
                    if let Some(claim) = poll_ledger(&context).await {
                        // There may be more.
                        poll_at = Instant::now();
                        break Some(JobSource::Found(claim));
                    }
                    poll_at = Instant::now() + poll_pause(&context);
                }
            }
        };
        let Some(work) = work else { break };
        lifecycle.tasks.spawn(take(Arc::clone(&context), work, permit, lifecycle.clone()));
    }
    lifecycle.tasks.close();
    tracing::info!(running = context.slots_in_use(), "the worker takes no more work");
    tokio::select! {
        () = lifecycle.tasks.wait() => {}
        () = lifecycle.aborting.cancelled() => {}
        () = tokio::time::sleep(context.settings.grace) => {}
    }
    lifecycle.aborting.cancel();
    if tokio::time::timeout(GIVE_BACK_TIMEOUT, lifecycle.tasks.wait()).await.is_err() {
        tracing::warn!(
            running = context.slots_in_use(),
            "work could not be given back in time, its leases will expire"
        );
    }
    // The task may be joining a snapshot, which takes a while to time out.
    sharing.abort();
    context.snapshots.close().await;
    subscription.close().await;
}

/// Claims work that no message announces. Messages announce work sooner; polling is for work whose message was lost, is held
/// by a busy worker, or cannot be sent.
async fn poll_ledger(context: &WorkerContext) -> Option<Box<Claim>> {
    match claim(context, None).await {
        Ok(claim) => claim,
        Err(error) => {
            tracing::warn!(error = chain(&error), "the ledger cannot be asked for work, trying again");
            None
        }
    }
}

/// Performs a piece of work and then frees its slot.
async fn take(context: Arc<WorkerContext>, source: JobSource, permit: OwnedSemaphorePermit, lifecycle: Lifecycle) {
    match source {
        JobSource::Found(claim) => perform(&context, &claim, &lifecycle).await,
        JobSource::Announced(incoming) => process_message(&context, *incoming, &lifecycle).await,
    }
    drop(permit);
}

/// Processes one message: claims the work whose turn it is, performs it, and acknowledges the message.
async fn process_message(context: &WorkerContext, incoming: Incoming, lifecycle: &Lifecycle) {
    let export_id = incoming.message.export_id;
    // While the ledger is unavailable the message is held. Each time it is put back would count towards the broker's
    // delivery limit, and an outage of a minute would make dead letters of good messages.
    let claimed = loop {
        match claim(context, Some(&incoming)).await {
            Err(error @ LedgerError::Unavailable(_)) if !lifecycle.stopping.is_cancelled() => {
                tracing::warn!(%export_id, error = chain(&error), "the ledger is unavailable, trying again");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    () = lifecycle.stopping.cancelled() => {}
                }
            }
            other => break other,
        }
    };
    match claimed {
        Ok(Some(claim)) => {
            let mut incoming = Some(incoming);
            let work = perform(context, &claim, lifecycle);
            tokio::pin!(work);
            tokio::select! {
                () = &mut work => {}
                () = tokio::time::sleep(MESSAGE_HOLD_TIME) => {
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
        Ok(None) => {
            tracing::debug!(%export_id, "no work for this message");
            incoming.acknowledge().await;
        }
        Err(error) => {
            tracing::warn!(%export_id, error = chain(&error), "the ledger gave no answer, message put back");
            incoming.put_back().await;
        }
    }
}

/// Returns the span of a claim's work: every log line about it has these fields. Its level is that of errors, so that
/// no RUST_LOG removes the fields from a line that it lets through.
fn span(claim: &Claim) -> Span {
    let span = tracing::error_span!(
        "work", export_id = %claim.export_id, attempt = claim.attempt, shard = claim.shard, fence = claim.fence,
        request_id = claim.origin.request_id, format = %claim.request.format, kind = metrics::kind(claim),
        otel.name = Empty, otel.kind = Empty, otel.status_code = Empty
    );
    telemetry::set_parent(&span, &claim.origin);
    telemetry::rename(&span, metrics::kind(claim), "internal");
    span
}

/// Performs claimed work in a span of its own, and counts it.
async fn perform(context: &WorkerContext, claim: &Claim, lifecycle: &Lifecycle) {
    let span = span(claim);
    let performing = async {
        tracing::info!("work claimed");
        let slot = context.occupy_slot();
        let began = Instant::now();
        let outcome = Box::pin(job::perform(context, claim, &lifecycle.aborting)).await;
        drop(slot);
        metrics::ended(claim, outcome, began.elapsed());
        if outcome.is_failure() {
            telemetry::failed(&Span::current());
        }
    };
    performing.instrument(span).await;
}

/// Claims the work whose turn it is. `announced` is the message that woke this worker, which may be of another export.
async fn claim(context: &WorkerContext, announced: Option<&Incoming>) -> Result<Option<Box<Claim>>, LedgerError> {
    let (terms, since) = (context.settings.terms(), ClaimTimer::now());
    let claim = context.ledger.claim_next(&context.name, &terms, context.next_turn());
    // Boxed, because the driver's state is large and would be copied through every caller.
    let claimed = with_timeout(Box::pin(claim)).await;
    if let Ok(Some(claim)) = &claimed {
        if claim.shard > 0 {
            // Claiming a shard enqueues the message for the next one.
            context.relay.wake();
        }
        let announced = announced
            .filter(|incoming| incoming.message.export_id == claim.export_id)
            .map(|incoming| &incoming.origin)
            .filter(|origin| origin.trace_parent.is_some());
        since.claimed(announced.unwrap_or(&claim.origin), claim.export_id, claim.shard);
    }
    claimed
}

/// Returns the time until the next poll of the ledger.
fn poll_pause(context: &WorkerContext) -> Duration {
    let pause = if context.connections.broker.is_some() { POLL } else { POLL_WITHOUT_BROKER };
    with_jitter(pause)
}
