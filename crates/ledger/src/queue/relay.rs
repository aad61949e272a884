//! The relay from the ledger's outbox to the broker, with publisher confirms: a message is deleted from the
//! outbox only when the broker has said that it keeps it.

use std::sync::Arc;
use std::time::Duration;

use lapin::{Channel, Connection};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Backoff, Broker, QueueError, Token, confirmed, in_time, publish, trace_headers};
use crate::Waiting;
use crate::database::Ledger;
use polyglot_core::failure::chain;
use polyglot_runtime::telemetry::{MESSAGES_PUBLISHED, Publishing};

/// How often the outbox is looked at without being woken.
const POLL: Duration = Duration::from_secs(1);
const BATCH: i64 = 200;
/// A broker or a ledger that has vanished without a word must not hold the relay for ever.
const DRAIN_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a batch may take from the first message to the last confirmation.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Wakes this process's relay, so that a message need not wait for the next look.
#[derive(Debug, Clone, Default)]
pub struct Relay(Arc<Notify>);

impl Relay {
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// Publishes until `stopping`. Losing the broker or the ledger costs time, no message. Without a broker nobody waits for
/// messages (workers look into the ledger), so they are only cleared away.
pub async fn run_relay(ledger: Ledger, broker: Option<Broker>, relay: Relay, stopping: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut session: Option<(Connection, Channel)> = None;
    while !stopping.is_cancelled() {
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, drain(&ledger, broker.as_ref(), &mut session)).await;
        match drained.unwrap_or(Err(QueueError::Timeout)) {
            Ok(()) => {
                backoff.reset();
                tokio::select! {
                    () = relay.0.notified() => {}
                    () = tokio::time::sleep(POLL) => {}
                    () = stopping.cancelled() => {}
                }
            }
            Err(error) => {
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
        if let Err(error) = in_time(connection.close(200, "stopping".into())).await {
            tracing::debug!(error = chain(&error), "closing the relay's connection");
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
        // Before the relays' lock is taken: one that finds no way to the broker must not keep another one that does.
        let channel = match broker {
            Some(broker) => Some((connected(broker, session).await?, &*broker.queue)),
            None => None,
        };
        ledger
            .relay(BATCH, async |messages| {
                let Some((channel, queue)) = channel else { return Ok(()) };
                // The rows stay locked meanwhile; the ledger ends a transaction that idles for longer than this.
                let publishing = publish_all(channel, queue, &messages);
                tokio::time::timeout(PUBLISH_TIMEOUT, publishing).await.map_err(|_| QueueError::Timeout)?
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

async fn publish_all(channel: &Channel, queue: &str, messages: &[Waiting]) -> Result<(), QueueError> {
    let mut sent = Vec::with_capacity(messages.len());
    for &Waiting { export_id, ref origin } in messages {
        let (body, properties) = Token { export_id }.message();
        // From here to the broker's word that it has the message.
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
