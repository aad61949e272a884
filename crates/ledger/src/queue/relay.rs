//! The relay from the ledger's outbox to the broker, with publisher confirms: a message is deleted from the
//! outbox only when the broker has confirmed it.

use std::sync::Arc;
use std::time::Duration;

use lapin::{Channel, Connection};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, QueueError, answer, confirmed, publish};
use super::message::JobMessage;
use super::trace_headers;
use crate::database::Ledger;
use crate::outbox::OutboxMessage;
use polyglot_core::failure::chain;
use polyglot_runtime::retry::Backoff;
use polyglot_runtime::telemetry::{MESSAGES_PUBLISHED, Publishing};
use polyglot_runtime::timeout::with_timeout;

/// Interval between two reads of the outbox without being woken.
const POLL: Duration = Duration::from_secs(1);
const BATCH: i64 = 200;
/// Longest time to empty the outbox: a broker or a ledger that never answers must not block the relay for ever.
const DRAIN_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest time of a batch, from the first message to the last confirmation.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Wakes this process's relay, so that a message need not wait for the next read of the outbox.
#[derive(Debug, Clone, Default)]
pub struct Relay(Arc<Notify>);

impl Relay {
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// Publishes until `stopping`. Losing the broker or the ledger delays messages but loses none. Without a broker the messages are
/// only deleted, because workers find their work in the ledger.
pub async fn run_relay(ledger: Ledger, broker: Option<Broker>, relay: Relay, stopping: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut session: Option<(Connection, Channel)> = None;
    while !stopping.is_cancelled() {
        match with_timeout(DRAIN_TIMEOUT, drain(&ledger, broker.as_ref(), &mut session)).await {
            Ok(()) => {
                backoff.reset();
                tokio::select! {
                    () = relay.0.notified() => {}
                    () = tokio::time::sleep(POLL) => {}
                    () = stopping.cancelled() => {}
                }
            }
            Err::<_, QueueError>(error) => {
                tracing::warn!(error = chain(&error), "messages wait in the outbox, trying again");
                session = None;
                tokio::select! {
                    () = backoff.pause() => {}
                    () = stopping.cancelled() => {}
                }
            }
        }
    }
    if let Some((connection, _)) = session {
        // The broker drops the connection by itself when this does not get through.
        if let Err(error) = answer(connection.close(200, "stopping".into())).await {
            tracing::debug!(error = chain(&error), "the relay's connection could not be closed");
        }
    }
}

/// Empties the outbox, connecting only when there is something in it.
async fn drain(
    ledger: &Ledger,
    broker: Option<&Broker>,
    session: &mut Option<(Connection, Channel)>,
) -> Result<(), QueueError> {
    while ledger.has_messages().await? {
        // Before the relays' lock is taken: a relay that cannot reach the broker must not block one that can.
        let channel = match broker {
            Some(broker) => Some((connected(broker, session).await?, &*broker.queue)),
            None => None,
        };
        ledger
            .relay(BATCH, async |messages| {
                let Some((channel, queue)) = channel else { return Ok::<_, QueueError>(()) };
                // The rows stay locked meanwhile; the ledger ends a transaction that idles for longer than this.
                let publishing = publish_all(channel, queue, &messages);
                with_timeout(PUBLISH_TIMEOUT, publishing).await
            })
            .await?;
    }
    Ok(())
}

async fn connected<'s>(
    broker: &Broker,
    session: &'s mut Option<(Connection, Channel)>,
) -> Result<&'s Channel, QueueError> {
    if !session.as_ref().is_some_and(|(connection, _)| connection.status().connected()) {
        let connection = broker.connect().await?;
        let channel = broker.open_channel(&connection).await?;
        *session = Some((connection, channel));
    }
    Ok(&session.as_ref().expect("it was made a line above where it was missing").1)
}

async fn publish_all(channel: &Channel, queue: &str, messages: &[OutboxMessage]) -> Result<(), QueueError> {
    let mut sent = Vec::with_capacity(messages.len());
    for &OutboxMessage { export_id, ref origin } in messages {
        let (body, properties) = JobMessage { export_id }.encode();
        // The span lasts until the broker's confirmation.
        let publishing = Publishing::begin(origin, export_id);
        let properties = match &publishing {
            Some(publishing) => trace_headers::write(properties, &publishing.trace_context()),
            None => trace_headers::write(properties, origin),
        };
        sent.push((publish(channel, queue, &body, properties).await?, publishing));
    }
    for (confirm, publishing) in sent {
        confirmed(confirm).await?;
        drop(publishing);
        metrics::counter!(MESSAGES_PUBLISHED).increment(1);
    }
    Ok(())
}
