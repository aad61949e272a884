//! Messages that nobody could do anything with: written with the reason, shown to a person, put back into the queue.

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use uuid::Uuid;

use super::{Broker, QueueError, Token, confirmed, in_time, publish};

/// The header that says why a message is here.
const REASON: &str = "x-reason";

/// A message among the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// `None` when the message is none of this service's.
    pub export_id: Option<Uuid>,
    pub reason: String,
    pub bytes: usize,
}

/// What to do with a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterFate {
    Keep,
    /// Back into the queue.
    Redrive,
    Discard,
}

/// Puts a copy of the message, with the reason, among the dead letters. When this returns, the broker keeps it.
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
    /// Goes through the dead letters that are there now, oldest first; `decide` says what becomes of each. Those that it
    /// keeps stay, in their order. Each is where it belongs before it is taken from here, so a crash repeats a letter and
    /// loses none.
    ///
    /// # Errors
    /// When the broker is away. The letters that were decided on before stay decided.
    pub async fn dead_letters(
        &self,
        mut decide: impl AsyncFnMut(&DeadLetter) -> LetterFate,
    ) -> Result<u32, QueueError> {
        let connection = self.connect().await?;
        let channel = self.open_channel(&connection).await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let queue = self.dead_letter_queue();
        let there = in_time(channel.queue_declare(queue.as_str().into(), passive, FieldTable::default())).await?;
        let mut seen = 0;
        while seen < there.message_count() {
            let letter = in_time(channel.basic_get(queue.as_str().into(), BasicGetOptions::default())).await?;
            let Some(letter) = letter else { break };
            seen += 1;
            let delivery = letter.delivery;
            let token = serde_json::from_slice::<Token>(&delivery.data).ok();
            let shown = DeadLetter {
                export_id: token.map(|token| token.export_id),
                reason: reason(&delivery.properties),
                bytes: delivery.data.len(),
            };
            match (decide(&shown).await, token) {
                (LetterFate::Redrive, Some(token)) => {
                    let (body, properties) = token.message();
                    confirmed(publish(&channel, &self.queue, &body, properties).await?).await?;
                    in_time(delivery.ack(BasicAckOptions::default())).await?;
                }
                (LetterFate::Discard, _) => {
                    in_time(delivery.ack(BasicAckOptions::default())).await?;
                }
                // What is no message of ours would be back here at once. A copy, because a message that is only returned
                // has been delivered once more, and some brokers (RabbitMQ from 4.0) drop one that was so 20 times.
                (LetterFate::Keep, _) | (LetterFate::Redrive, None) => {
                    let copy = publish(&channel, &queue, &delivery.data, delivery.properties.clone()).await?;
                    confirmed(copy).await?;
                    in_time(delivery.ack(BasicAckOptions::default())).await?;
                }
            }
        }
        in_time(connection.close(200, "done".into())).await?;
        Ok(seen)
    }
}

/// Ours, or what the broker says of a message that it has moved itself (`x-death`).
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
