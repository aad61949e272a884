//! The RabbitMQ side: the topology, the message, connecting. A message only says "this export has work"; what
//! the work is, and who holds it, is in the ledger, so lost, repeated and reordered messages do no harm.

mod consume;
mod dead_letters;
mod relay;
mod trace_headers;

pub use consume::{Incoming, Subscription};
pub use dead_letters::{DeadLetter, LetterFate};
pub use relay::{Relay, run_relay};

use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::Connections;

/// How long any one exchange with the broker may take before the connection counts as gone.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);

/// A message that comes back so often is not an export's fault any more: to the dead letters with it.
const DELIVERY_LIMIT: i64 = 20;

/// The body of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    pub export_id: Uuid,
}

impl Token {
    /// Body and properties of a new message.
    fn message(self) -> (Vec<u8>, BasicProperties) {
        let body = serde_json::to_vec(&self).expect("a struct of one uuid serializes");
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_message_id(Uuid::new_v4().to_string().into())
            .with_type("export".into());
        (body, properties)
    }
}

/// The broker hands a silent process's messages to others after twice this, unless the URL says otherwise.
const HEARTBEAT_SECONDS: u16 = 10;
/// The client library takes 64 frames of memory for a connection: at RabbitMQ's 128 KiB, 8 MiB. Messages here are of a few
/// hundred bytes, and larger ones would be cut into frames. RabbitMQ 4.1 and newer refuse less than 8 KiB.
const FRAME_BYTES: u32 = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("AMQP_URL cannot be used: {0}")]
    Url(String),
    #[error("the broker is not available")]
    Broker(#[from] lapin::Error),
    #[error("the broker did not answer within {} s", BROKER_TIMEOUT.as_secs())]
    Timeout,
    #[error("the broker did not take over a message")]
    NotConfirmed,
    #[error("there is no broker: AMQP_URL is empty")]
    NoBroker,
    #[error(transparent)]
    Ledger(#[from] crate::LedgerError),
}

/// Gives up on `work` when the broker is silent for too long.
async fn in_time<T>(work: impl Future<Output = Result<T, lapin::Error>>) -> Result<T, QueueError> {
    Ok(tokio::time::timeout(BROKER_TIMEOUT, work).await.map_err(|_| QueueError::Timeout)??)
}

/// Publishes one message; when this returns, the broker keeps it.
async fn publish(
    channel: &Channel,
    queue: &str,
    body: &[u8],
    properties: BasicProperties,
) -> Result<PublisherConfirm, QueueError> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    in_time(channel.basic_publish("".into(), queue.into(), options, body, properties.with_delivery_mode(2))).await
}

/// Waits until the broker has said that it keeps a message.
async fn confirmed(confirm: PublisherConfirm) -> Result<(), QueueError> {
    match in_time(confirm).await? {
        Confirmation::Ack(None) => Ok(()),
        // Returned as unroutable, refused, or confirms are off: the message is still the caller's.
        Confirmation::Ack(Some(_)) | Confirmation::Nack(_) | Confirmation::NotRequested => {
            Err(QueueError::NotConfirmed)
        }
    }
}

/// Messages that wait in the queues and that no worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depths {
    pub tokens: u32,
    pub dead: u32,
}

/// Where the broker is and which queue the tokens go through. The dead letters are in `{queue}.dead`.
#[derive(Clone)]
pub struct Broker {
    pub url: String,
    pub queue: String,
    /// Shown in the broker's list of connections.
    pub name: String,
}

impl Broker {
    /// The broker that the configuration names, if any; `name` is this process's.
    #[must_use]
    pub fn of(connections: &Connections, name: impl Into<String>) -> Option<Self> {
        let url = connections.amqp_url.clone()?;
        Some(Self { url, queue: connections.amqp_queue.clone(), name: name.into() })
    }

    #[must_use]
    pub fn dead_letter_queue(&self) -> String {
        format!("{}.dead", self.queue)
    }

    async fn connect(&self) -> Result<Connection, QueueError> {
        let properties = ConnectionProperties::default().with_connection_name(self.name.clone().into());
        let mut uri: AMQPUri = self.url.parse().map_err(QueueError::Url)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        uri.query.frame_max.get_or_insert(FRAME_BYTES);
        in_time(Connection::connect_uri(uri, properties)).await
    }

    /// A channel on which both queues exist, with publisher confirms. Declaring is repeated on every connection, so a broker that was
    /// set up anew gets its queues back.
    async fn open_channel(&self, connection: &Connection) -> Result<Channel, QueueError> {
        let channel = in_time(connection.create_channel()).await?;
        let mut dead = FieldTable::default();
        dead.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        in_time(channel.queue_declare(self.dead_letter_queue().into(), QueueDeclareOptions::durable(), dead)).await?;
        let mut tokens = FieldTable::default();
        for (name, value) in [
            ("x-queue-type", "quorum"),
            ("x-dead-letter-exchange", ""),
            ("x-dead-letter-routing-key", &self.dead_letter_queue()),
            // A dead letter leaves this queue only once the other has confirmed it; needs reject-publish.
            ("x-dead-letter-strategy", "at-least-once"),
            ("x-overflow", "reject-publish"),
        ] {
            tokens.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        tokens.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
        in_time(channel.queue_declare(self.queue.clone().into(), QueueDeclareOptions::durable(), tokens)).await?;
        in_time(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    /// Connects, declares the queues, asks how many messages wait there, and hangs up: the readiness check.
    pub async fn check(&self) -> Result<Depths, QueueError> {
        let connection = self.connect().await?;
        // Held until the end: dropped, it would close itself, and the two closings can collide.
        let channel = self.open_channel(&connection).await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let depth = async |queue: &str| {
            let queue = in_time(channel.queue_declare(queue.into(), passive, FieldTable::default())).await?;
            Ok::<_, QueueError>(queue.message_count())
        };
        let depths = Depths { tokens: depth(&self.queue).await?, dead: depth(&self.dead_letter_queue()).await? };
        in_time(connection.close(200, "checked".into())).await?;
        Ok(depths)
    }
}

/// The pause before the next try to connect: none at first, then doubling from a quarter of a second to five seconds, and
/// up to half as long again, so that the processes of a deployment do not all come back in the same moment.
#[derive(Debug, Clone, Copy, Default)]
struct Backoff(u32);

impl Backoff {
    fn reset(&mut self) {
        self.0 = 0;
    }

    async fn pause(&mut self) {
        let tries = self.0;
        self.0 += 1;
        if tries == 0 {
            return;
        }
        let pause = Duration::from_millis(250 << (tries - 1).min(5)).min(Duration::from_secs(5));
        let jitter = u32::from(Uuid::new_v4().as_bytes()[0]);
        tokio::time::sleep(pause + pause * jitter / 512).await;
    }
}
