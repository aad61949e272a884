//! The RabbitMQ side: the topology, the message, connecting. A message only says "this export has work"; what
//! the work is, and who holds it, is in the ledger, so lost, repeated and reordered messages do no harm.

mod consume;
mod relay;

pub use consume::{Incoming, Subscription};
pub use relay::{Relay, run_relay};

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

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

/// The broker hands a silent process's messages to others after twice this, unless the URL says otherwise.
const HEARTBEAT_SECONDS: u16 = 10;

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
    #[error(transparent)]
    Ledger(#[from] crate::ledger::LedgerError),
}

/// Gives up on `work` when the broker is silent for too long.
async fn in_time<T>(work: impl Future<Output = Result<T, lapin::Error>>) -> Result<T, QueueError> {
    Ok(tokio::time::timeout(BROKER_TIMEOUT, work).await.map_err(|_| QueueError::Timeout)??)
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
    #[must_use]
    pub fn dead_letter_queue(&self) -> String {
        format!("{}.dead", self.queue)
    }

    async fn connect(&self) -> Result<Connection, QueueError> {
        let properties = ConnectionProperties::default().with_connection_name(self.name.clone().into());
        let mut uri: AMQPUri = self.url.parse().map_err(QueueError::Url)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        in_time(Connection::connect_uri(uri, properties)).await
    }

    /// A channel on which both queues exist. Declaring is repeated on every connection, so a broker that was
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
        Ok(channel)
    }

    /// Connects, declares the queues and hangs up: the readiness check.
    pub async fn check(&self) -> Result<(), QueueError> {
        let connection = self.connect().await?;
        // Held until the end: dropped, it would close itself, and the two closings can collide.
        let _channel = self.open_channel(&connection).await?;
        in_time(connection.close(200, "checked".into())).await
    }
}

/// The pause before the next try to connect: doubles from a quarter of a second to five seconds.
#[derive(Debug, Default)]
struct Backoff(u32);

impl Backoff {
    fn reset(&mut self) {
        self.0 = 0;
    }

    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(250 << self.0.min(5)).min(Duration::from_secs(5))).await;
        self.0 += 1;
    }
}
