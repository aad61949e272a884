//! What the test itself does at the broker: counts messages, takes them away, removes queues.

use std::time::Instant;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};

use crate::service::PATIENCE;

/// Messages that are ready in `queue`; 0 where there is no such queue.
pub(crate) async fn ready(url: &str, queue: &str) -> u32 {
    let (_connection, channel) = channel(url).await;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), passive, FieldTable::default()).await.map_or(0, |found| found.message_count())
}

/// Takes away what is ready in `queue`.
pub(crate) async fn purge(url: &str, queue: &str) {
    let (_connection, channel) = channel(url).await;
    channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.unwrap();
}

pub(crate) async fn delete(url: &str, queue: &str) {
    let (_connection, channel) = channel(url).await;
    for name in [queue.to_owned(), format!("{queue}.dead")] {
        channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.ok();
    }
}

/// The broker may be on its way up.
async fn channel(url: &str) -> (Connection, Channel) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let connected = async {
            let connection = Connection::connect(url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            lapin::Result::Ok((connection, channel))
        };
        match connected.await {
            Ok(both) => return both,
            Err(error) => assert!(Instant::now() < deadline, "the broker: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}
