//! Receiving tokens: manual acknowledgements, a prefetch equal to the slots, and a subscription that outlives
//! the broker's restarts.

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use lapin::{Connection, Consumer};

use super::{Backoff, Broker, QueueError, Token, in_time};
use crate::failure::chain;

/// A message with its token.
pub struct Incoming {
    pub token: Token,
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

/// A consumer that connects, and connects again, by itself.
pub struct Subscription {
    broker: Broker,
    prefetch: u16,
    backoff: Backoff,
    session: Option<(Connection, Consumer)>,
}

impl Subscription {
    #[must_use]
    pub fn new(broker: Broker, prefetch: u16) -> Self {
        Self { broker, prefetch, backoff: Backoff::default(), session: None }
    }

    /// The next message that can be read. Waits for as long as there is none, or no broker. Safe to drop at
    /// any await: an unacknowledged message goes back to the queue.
    pub async fn next(&mut self) -> Incoming {
        loop {
            let Some((_, consumer)) = &mut self.session else {
                match self.subscribe().await {
                    Ok(session) => {
                        tracing::info!(queue = self.broker.queue, "waiting for work");
                        self.session = Some(session);
                    }
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "the broker cannot be reached, trying again");
                        self.backoff.pause().await;
                    }
                }
                continue;
            };
            match consumer.next().await {
                Some(Ok(delivery)) => {
                    self.backoff.reset();
                    if let Some(incoming) = read(delivery).await {
                        return incoming;
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(error = chain(&error), "the broker's connection broke, connecting again");
                    self.session = None;
                    self.backoff.pause().await;
                }
                None => {
                    tracing::warn!("the broker ended the subscription, connecting again");
                    self.session = None;
                    self.backoff.pause().await;
                }
            }
        }
    }

    /// Ends the subscription and the connection. Messages that were not acknowledged go back to the queue.
    pub async fn close(self) {
        if let Some((connection, _)) = self.session
            && let Err(error) = in_time(connection.close(200, "stopping".into())).await
        {
            tracing::debug!(error = chain(&error), "closing the consumer's connection");
        }
    }

    async fn subscribe(&self) -> Result<(Connection, Consumer), QueueError> {
        let connection = self.broker.connect().await?;
        let channel = self.broker.open_channel(&connection).await?;
        in_time(channel.basic_qos(self.prefetch, BasicQosOptions::default())).await?;
        let consumer = in_time(channel.basic_consume(
            self.broker.queue.clone().into(),
            self.broker.name.clone().into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        ))
        .await?;
        Ok((connection, consumer))
    }
}

/// A message that nobody can read goes to the dead letters, where a person can.
async fn read(delivery: Delivery) -> Option<Incoming> {
    match serde_json::from_slice(&delivery.data) {
        Ok(token) => Some(Incoming { token, delivery }),
        Err(error) => {
            tracing::error!(error = chain(&error), bytes = delivery.data.len(), "unreadable message, dead-lettered");
            if let Err(error) = in_time(delivery.reject(BasicRejectOptions { requeue: false })).await {
                tracing::debug!(error = chain(&error), "message not rejected");
            }
            None
        }
    }
}
