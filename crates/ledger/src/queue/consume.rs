//! Receiving tokens: manual acknowledgements, a prefetch equal to the slots, and a subscription that outlives
//! the broker's restarts.

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::task::JoinHandle;

use super::{Backoff, Broker, QueueError, Token, dead_letters, in_time, trace_headers};
use polyglot_core::failure::chain;
use polyglot_runtime::telemetry::TraceContext;

/// A message with its token.
pub struct Incoming {
    pub token: Token,
    /// The message's place in a trace, if it has one.
    pub origin: TraceContext,
    delivery: Delivery,
}

impl Incoming {
    /// The ledger has taken over what the message said. A failure is harmless (the broker sends it again, and
    /// the ledger has no work for it) and only logged.
    pub async fn acknowledge(self) {
        if let Err(error) = in_time(self.delivery.ack(BasicAckOptions::default())).await {
            tracing::debug!(error = chain(&error), export_id = %self.token.export_id, "message not acknowledged");
        }
    }

    /// Puts the message back, because the ledger could not be asked.
    pub async fn put_back(self) {
        if let Err(error) = in_time(self.delivery.reject(BasicRejectOptions { requeue: true })).await {
            tracing::debug!(error = chain(&error), export_id = %self.token.export_id, "message not put back");
        }
    }
}

struct Session {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    /// A message that nobody can read, and why, until it is among the dead letters.
    unreadable: Option<(Delivery, String)>,
}

enum State {
    Unconnected,
    /// A task of its own, so that who waits for a message may stop waiting without the connecting beginning again.
    Connecting(JoinHandle<(Session, Backoff)>),
    Connected(Box<Session>),
}

/// A consumer that connects, and connects again, by itself. Without a broker it never has a message.
pub struct Subscription {
    broker: Option<Broker>,
    prefetch: u16,
    /// Grows with every connection that brings no message, also with those that come about.
    backoff: Backoff,
    state: State,
}

impl Subscription {
    #[must_use]
    pub fn new(broker: Option<Broker>, prefetch: u16) -> Self {
        Self { broker, prefetch, backoff: Backoff::default(), state: State::Unconnected }
    }

    /// The next message that can be read. Waits for as long as there is none, or no broker. Safe to drop at
    /// any await: an unacknowledged message goes back to the queue.
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
                    bury(broker, &session.channel, delivery, reason).await;
                    session.unreadable = None;
                }
                State::Connected(session) => match session.consumer.next().await {
                    Some(Ok(delivery)) => {
                        self.backoff.reset();
                        match serde_json::from_slice(&delivery.data) {
                            Ok(token) => {
                                let origin = trace_headers::read(&delivery.properties);
                                return Incoming { token, origin, delivery };
                            }
                            Err(error) => {
                                let reason = format!("not a message of this service: {error}");
                                session.unreadable = Some((delivery, reason));
                            }
                        }
                    }
                    Some(Err(error)) => {
                        tracing::warn!(error = chain(&error), "the broker's connection broke, connecting again");
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

    /// Ends the subscription and the connection. Messages that were not acknowledged go back to the queue.
    pub async fn close(mut self) {
        let state = std::mem::replace(&mut self.state, State::Unconnected);
        if let State::Connected(session) = state
            && let Err(error) = in_time(session.connection.close(200, "stopping".into())).await
        {
            tracing::debug!(error = chain(&error), "closing the consumer's connection");
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

/// Tries until the broker is there, with a pause before every try but the very first, so that a broker which takes
/// connections and drops them is not overrun.
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
    in_time(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let consumer = in_time(channel.basic_consume(
        broker.queue.clone().into(),
        broker.name.clone().into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    ))
    .await?;
    Ok(Session { connection, channel, consumer, unreadable: None })
}

/// Moves a message that nobody can read to the dead letters, where a person can, with the reason.
async fn bury(broker: &Broker, channel: &Channel, delivery: &Delivery, reason: &str) {
    tracing::error!(reason, bytes = delivery.data.len(), "unreadable message, dead-lettered");
    let removed = match dead_letters::write(broker, channel, delivery, reason).await {
        Ok(()) => in_time(delivery.ack(BasicAckOptions::default())).await,
        Err(error) => {
            tracing::warn!(error = chain(&error), "the broker moves the message without the reason");
            in_time(delivery.reject(BasicRejectOptions { requeue: false })).await
        }
    };
    if let Err(error) = removed {
        // It comes again, on the next connection.
        tracing::debug!(error = chain(&error), "message not removed");
    }
}
