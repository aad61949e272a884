//! The connection to RabbitMQ: its two queues, its time limits and errors, and publishing with confirms.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, DefaultConnectionBuilder,
    PublisherConfirm,
};

use crate::broker_address::BrokerAddress;
use crate::config::Connections;
use crate::database::LedgerError;
use polyglot_core::failure::chain;
use polyglot_runtime::reloadable::Reloadable;
use polyglot_runtime::timeout::{TimedOut, with_timeout};
use uuid::Uuid;

/// Longest time for one exchange with the broker, after which the connection counts as lost.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);

/// Deliveries after which the broker dead-letters a message.
const DELIVERY_LIMIT: i64 = 20;

/// Heartbeat interval, unless the URL has another one. After twice this time the broker redelivers the messages of a silent
/// process.
const HEARTBEAT_SECONDS: u16 = 10;
/// Largest frame, unless the URL has another one. The client library allocates 64 frames for a connection, which at RabbitMQ's
/// 128 KiB are 8 MiB. Messages here have a few hundred bytes. RabbitMQ 4.1 and newer refuse less than 8 KiB.
const FRAME_BYTES: u32 = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("AMQP_URL cannot be used: {0}")]
    Url(String),
    #[error("no connection to the broker at {host}, port {port}")]
    Connect { host: String, port: u16, source: lapin::Error },
    #[error("the broker is not available")]
    Broker(#[from] lapin::Error),
    #[error("the broker did not answer within {} s", BROKER_TIMEOUT.as_secs())]
    Timeout,
    #[error("the broker did not take over a message")]
    NotConfirmed,
    #[error("there is no broker: AMQP_URL is empty")]
    NoBroker,
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<TimedOut> for QueueError {
    fn from(_: TimedOut) -> Self {
        Self::Timeout
    }
}

/// The broker's answer to one exchange.
///
/// # Errors
/// [`QueueError::Timeout`] when there is none within 5 seconds.
pub(super) async fn answer<T>(call: impl Future<Output = Result<T, lapin::Error>>) -> Result<T, QueueError> {
    with_timeout(BROKER_TIMEOUT, call).await
}

/// Publishes one message. The broker has it once [`confirmed`] succeeds.
pub(super) async fn publish(
    channel: &Channel,
    queue: &str,
    body: &[u8],
    properties: BasicProperties,
) -> Result<PublisherConfirm, QueueError> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    answer(channel.basic_publish("".into(), queue.into(), options, body, properties.with_delivery_mode(2))).await
}

/// Waits until the broker has confirmed a message.
pub(super) async fn confirmed(confirm: PublisherConfirm) -> Result<(), QueueError> {
    match answer(confirm).await? {
        Confirmation::Ack(None) => Ok(()),
        // Returned as unroutable, refused, or confirms are off: the broker does not have the message.
        Confirmation::Ack(Some(_)) | Confirmation::Nack(_) | Confirmation::NotRequested => {
            Err(QueueError::NotConfirmed)
        }
    }
}

/// The numbers of messages in the two queues that no consumer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depths {
    pub tokens: u32,
    pub dead: u32,
}

/// The address of the broker and the name of the queue. The dead letters are in `{queue}.dead`.
#[derive(Clone)]
pub struct Broker {
    address: Reloadable<BrokerAddress>,
    pub queue: String,
    /// Shown in the broker's list of connections.
    pub name: String,
    /// The node of a cluster to which the last connection led, from which the next one is tried: its place among the hosts, or that
    /// plus a multiple of their number.
    node: Arc<AtomicUsize>,
}

impl Broker {
    /// The broker of the configuration, if there is one; `name` identifies this process.
    #[must_use]
    pub fn of(connections: &Connections, name: impl Into<String>) -> Option<Self> {
        let address = connections.broker.clone()?;
        // Not all processes begin with the same node.
        let node = Arc::new(AtomicUsize::new(Uuid::new_v4().as_bytes()[0].into()));
        Some(Self { address, queue: connections.amqp_queue.clone(), name: name.into(), node })
    }

    #[must_use]
    pub fn dead_letter_queue(&self) -> String {
        format!("{}.dead", self.queue)
    }

    /// Connects to the broker; of a cluster, to the first node that answers.
    pub(super) async fn connect(&self) -> Result<Connection, QueueError> {
        let (mut uris, tls) = self.address.get().parts().map_err(QueueError::Url)?;
        let first = self.node.load(Ordering::Relaxed);
        let nodes = uris.len().max(1);
        uris.rotate_left(first % nodes);
        let last = uris.pop().ok_or_else(|| QueueError::Url("it has no host".to_owned()))?;
        for (tried, uri) in uris.into_iter().enumerate() {
            match self.connect_to(uri, tls.clone()).await {
                Ok(connection) => {
                    self.node.store((first + tried) % nodes, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "a node of the broker is left out, trying the next one");
                }
            }
        }
        let connection = self.connect_to(last, tls).await?;
        self.node.store((first + nodes - 1) % nodes, Ordering::Relaxed);
        Ok(connection)
    }

    async fn connect_to(&self, mut uri: AMQPUri, tls: OwnedTLSConfig) -> Result<Connection, QueueError> {
        let properties = ConnectionProperties::default().with_connection_name(self.name.clone().into());
        let place = (uri.authority.host.clone(), uri.authority.port);
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        uri.query.frame_max.get_or_insert(FRAME_BYTES);
        let builder = DefaultConnectionBuilder::new()?.with_uri(uri).with_properties(properties).with_tls_config(tls);
        answer(builder.connect()).await.map_err(|error| match error {
            QueueError::Broker(source) => QueueError::Connect { host: place.0, port: place.1, source },
            other => other,
        })
    }

    /// Opens a channel with publisher confirms and declares both queues. They are declared on every connection, so a broker
    /// that was set up again gets its queues back.
    pub(super) async fn open_channel(&self, connection: &Connection) -> Result<Channel, QueueError> {
        let channel = answer(connection.create_channel()).await?;
        let mut dead = FieldTable::default();
        dead.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        answer(channel.queue_declare(self.dead_letter_queue().into(), QueueDeclareOptions::durable(), dead)).await?;
        let mut arguments = FieldTable::default();
        for (name, value) in [
            ("x-queue-type", "quorum"),
            ("x-dead-letter-exchange", ""),
            ("x-dead-letter-routing-key", &self.dead_letter_queue()),
            // A dead letter leaves this queue only once the other one has confirmed it; this needs reject-publish.
            ("x-dead-letter-strategy", "at-least-once"),
            ("x-overflow", "reject-publish"),
        ] {
            arguments.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
        answer(channel.queue_declare(self.queue.clone().into(), QueueDeclareOptions::durable(), arguments)).await?;
        answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    /// Connects, declares the queues, reads their depths and disconnects: the readiness check.
    pub async fn check(&self) -> Result<Depths, QueueError> {
        let connection = self.connect().await?;
        // Kept until the end: when dropped it closes itself, which can collide with closing the connection.
        let channel = self.open_channel(&connection).await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let depth = async |queue: &str| {
            let queue = answer(channel.queue_declare(queue.into(), passive, FieldTable::default())).await?;
            Ok::<_, QueueError>(queue.message_count())
        };
        let depths = Depths { tokens: depth(&self.queue).await?, dead: depth(&self.dead_letter_queue()).await? };
        answer(connection.close(200, "checked".into())).await?;
        Ok(depths)
    }
}
