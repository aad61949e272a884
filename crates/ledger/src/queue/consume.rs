//! Receiving messages: manual acknowledgements, a prefetch equal to the worker's slots, and a subscription that reconnects after
//! the broker has restarted.

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::task::JoinHandle;

use super::broker::{Broker, QueueError, answer};
use super::message::JobMessage;
use super::{dead_letters, trace_headers};
use polyglot_core::failure::chain;
use polyglot_runtime::retry::Backoff;
use polyglot_runtime::telemetry::TraceContext;

/// A received message.
pub struct Incoming {
    pub message: JobMessage,
    /// The message's place in a trace, if it has one.
    pub origin: TraceContext,
    delivery: Delivery,
}

impl Incoming {
    /// Acknowledges the message, once its work is claimed or there is none. A failure is harmless and only logged: the broker
    /// delivers the message again, and the ledger has no work for it.
    pub async fn acknowledge(self) {
        if let Err(error) = answer(self.delivery.ack(BasicAckOptions::default())).await {
            tracing::debug!(error = chain(&error), export_id = %self.message.export_id, "message not acknowledged");
        }
    }

    /// Returns the message to the queue, because the ledger is unavailable.
    pub async fn put_back(self) {
        if let Err(error) = answer(self.delivery.reject(BasicRejectOptions { requeue: true })).await {
            tracing::debug!(error = chain(&error), export_id = %self.message.export_id, "message not put back");
        }
    }
}

struct Session {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    /// A message that cannot be decoded, and why, until it is dead-lettered.
    unreadable: Option<(Delivery, String)>,
}

enum State {
    Unconnected,
    /// A task of its own, so that a caller may stop waiting for a message without restarting the connection attempt.
    Connecting(JoinHandle<(Session, Backoff)>),
    Connected(Box<Session>),
}

/// A consumer that connects and reconnects by itself. Without a broker it never returns a message.
pub struct Subscription {
    broker: Option<Broker>,
    prefetch: u16,
    /// Grows with every connection that delivers no message, even if connecting succeeds.
    backoff: Backoff,
    state: State,
}

impl Subscription {
    #[must_use]
    pub fn new(broker: Option<Broker>, prefetch: u16) -> Self {
        Self { broker, prefetch, backoff: Backoff::default(), state: State::Unconnected }
    }

    /// Waits for the next message that can be decoded. Safe to drop at any await: an unacknowledged message returns to the queue.
    pub async fn next(&mut self) -> Incoming {
        let Some(broker) = &self.broker else { return std::future::pending().await };
        loop {
            match &mut self.state {
                State::Unconnected => {
                    let connecting = tokio::spawn(connect(broker.clone(), self.prefetch, self.backoff));
                    self.state = State::Connecting(connecting);
                }
                State::Connecting(task) => match task.await {
                    Ok((session, backoff)) => {
                        self.backoff = backoff;
                        tracing::info!(queue = broker.queue, "waiting for work");
                        self.state = State::Connected(Box::new(session));
                    }
                    Err(error) => {
                        tracing::error!(error = chain(&error), "connecting to the broker panicked");
                        self.state = State::Unconnected;
                    }
                },
                State::Connected(session) if let Some((delivery, reason)) = &session.unreadable => {
                    dead_letter(broker, &session.channel, delivery, reason).await;
                    session.unreadable = None;
                }
                State::Connected(session) => match session.consumer.next().await {
                    Some(Ok(delivery)) => {
                        self.backoff.reset();
                        match serde_json::from_slice(&delivery.data) {
                            Ok(message) => {
                                let origin = trace_headers::read(&delivery.properties);
                                return Incoming { message, origin, delivery };
                            }
                            Err(error) => {
                                let reason = format!("not a message of this service: {error}");
                                session.unreadable = Some((delivery, reason));
                            }
                        }
                    }
                    Some(Err(error)) => {
                        tracing::warn!(
                            error = chain(&error),
                            "the connection to the broker was lost, connecting again"
                        );
                        self.state = State::Unconnected;
                    }
                    None => {
                        tracing::warn!("the broker ended the subscription, connecting again");
                        self.state = State::Unconnected;
                    }
                },
            }
        }
    }

    /// Closes the connection. Messages that were not acknowledged return to the queue.
    pub async fn close(mut self) {
        let state = std::mem::replace(&mut self.state, State::Unconnected);
        if let State::Connected(session) = state
            && let Err(error) = answer(session.connection.close(200, "stopping".into())).await
        {
            tracing::debug!(error = chain(&error), "the consumer's connection could not be closed");
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let State::Connecting(task) = &self.state {
            task.abort();
        }
    }
}

/// Tries until it is subscribed, with a pause before every try but the very first, so that a broker that accepts and drops
/// connections is not overloaded.
async fn connect(broker: Broker, prefetch: u16, mut backoff: Backoff) -> (Session, Backoff) {
    loop {
        backoff.pause().await;
        match subscribe(&broker, prefetch).await {
            Ok(session) => return (session, backoff),
            Err(error) => tracing::warn!(error = chain(&error), "the broker cannot be reached, trying again"),
        }
    }
}

async fn subscribe(broker: &Broker, prefetch: u16) -> Result<Session, QueueError> {
    let connection = broker.connect().await?;
    let channel = broker.open_channel(&connection).await?;
    answer(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let consumer = answer(channel.basic_consume(
        broker.queue.clone().into(),
        broker.name.clone().into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    ))
    .await?;
    Ok(Session { connection, channel, consumer, unreadable: None })
}

/// Moves a message that cannot be decoded to the dead-letter queue, with the reason.
async fn dead_letter(broker: &Broker, channel: &Channel, delivery: &Delivery, reason: &str) {
    tracing::error!(reason, bytes = delivery.data.len(), "unreadable message, dead-lettered");
    let removed = match dead_letters::write(broker, channel, delivery, reason).await {
        Ok(()) => answer(delivery.ack(BasicAckOptions::default())).await,
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                "the message could not be written to the dead-letter queue; the broker moves it, without the reason"
            );
            answer(delivery.reject(BasicRejectOptions { requeue: false })).await
        }
    };
    if let Err(error) = removed {
        // The broker delivers it again on the next connection.
        tracing::debug!(error = chain(&error), "unreadable message not removed");
    }
}
