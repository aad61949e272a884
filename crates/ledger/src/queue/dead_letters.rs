//! The dead-letter queue: writing a message with the reason, listing, redriving and discarding.

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use uuid::Uuid;

use super::broker::{Broker, QueueError, answer, confirmed, publish};
use super::message::JobMessage;

/// The header with the reason.
const REASON: &str = "x-reason";

/// A dead-lettered message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// `None` when the message is not one of this service.
    pub export_id: Option<Uuid>,
    pub reason: String,
    pub bytes: usize,
}

/// What to do with a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterAction {
    Keep,
    /// Move it back to the work queue.
    Redrive,
    Discard,
}

/// Publishes a copy of the message, with the reason, to the dead-letter queue, and waits for the confirmation.
pub(super) async fn write(
    broker: &Broker,
    channel: &Channel,
    delivery: &Delivery,
    reason: &str,
) -> Result<(), QueueError> {
    let mut headers = delivery.properties.headers().clone().unwrap_or_default();
    headers.insert(REASON.into(), AMQPValue::LongString(reason.into()));
    let properties = delivery.properties.clone().with_headers(headers);
    confirmed(publish(channel, &broker.dead_letter_queue(), &delivery.data, properties).await?).await
}

impl Broker {
    /// Goes through the present dead letters, oldest first, and does with each what `decide` returns. Kept ones stay in their
    /// order. A letter is published to its destination before it is removed, so a crash may repeat one but loses none.
    ///
    /// # Errors
    /// When the broker is unavailable. Letters that were handled before stay so.
    pub async fn dead_letters(
        &self,
        mut decide: impl AsyncFnMut(&DeadLetter) -> DeadLetterAction,
    ) -> Result<u32, QueueError> {
        let connection = self.connect().await?;
        let channel = self.open_channel(&connection).await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let queue = self.dead_letter_queue();
        let there = answer(channel.queue_declare(queue.as_str().into(), passive, FieldTable::default())).await?;
        let mut seen = 0;
        while seen < there.message_count() {
            let letter = answer(channel.basic_get(queue.as_str().into(), BasicGetOptions::default())).await?;
            let Some(letter) = letter else { break };
            seen += 1;
            let delivery = letter.delivery;
            let message = serde_json::from_slice::<JobMessage>(&delivery.data).ok();
            let shown = DeadLetter {
                export_id: message.map(|message| message.export_id),
                reason: reason(&delivery.properties),
                bytes: delivery.data.len(),
            };
            match (decide(&shown).await, message) {
                (DeadLetterAction::Redrive, Some(message)) => {
                    let (body, properties) = message.encode();
                    confirmed(publish(&channel, &self.queue, &body, properties).await?).await?;
                    answer(delivery.ack(BasicAckOptions::default())).await?;
                }
                (DeadLetterAction::Discard, _) => {
                    answer(delivery.ack(BasicAckOptions::default())).await?;
                }
                // A message of another kind would be dead-lettered again at once. It is kept as a copy, because returning it
                // counts as a delivery, and some brokers (RabbitMQ from 4.0) drop a message after 20 of them.
                (DeadLetterAction::Keep, _) | (DeadLetterAction::Redrive, None) => {
                    let copy = publish(&channel, &queue, &delivery.data, delivery.properties.clone()).await?;
                    confirmed(copy).await?;
                    answer(delivery.ack(BasicAckOptions::default())).await?;
                }
            }
        }
        answer(connection.close(200, "done".into())).await?;
        Ok(seen)
    }
}

/// The reason in our header, or the broker's (`x-death`) for a message that it has moved itself.
fn reason(properties: &BasicProperties) -> String {
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    };
    let headers = properties.headers().as_ref();
    let find = |table: &FieldTable, name: &str| table.inner().get(name).and_then(text);
    if let Some(reason) = headers.and_then(|headers| find(headers, REASON)) {
        return reason;
    }
    let deaths = headers.and_then(|headers| match headers.inner().get("x-death") {
        Some(AMQPValue::FieldArray(deaths)) => Some(deaths),
        _ => None,
    });
    let moved = deaths.and_then(|deaths| match deaths.as_slice().first() {
        Some(AMQPValue::FieldTable(death)) => find(death, "reason"),
        _ => None,
    });
    match moved.as_deref() {
        Some("delivery_limit") => {
            "delivered too often: each time its worker was lost, or the ledger gave an error".to_owned()
        }
        Some(other) => format!("moved by the broker: {other}"),
        None => "unknown".to_owned(),
    }
}
