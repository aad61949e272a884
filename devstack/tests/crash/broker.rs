//! Access of the test itself to the broker: counts messages, purges and deletes queues.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use polyglot_test_kit::wait_until;

/// Number of messages that are ready in each queue; 0 where there is no such queue.
pub(crate) async fn ready_messages<const N: usize>(url: &str, queues: [&str; N]) -> [u32; N] {
    let (connection, _) = open_channel(url).await;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let mut counts = [0; N];
    for (count, queue) in counts.iter_mut().zip(queues) {
        // A queue that does not exist closes the channel.
        let channel = connection.create_channel().await.unwrap();
        let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
        *count = declared.map_or(0, |found| found.message_count());
    }
    counts
}

/// Removes the messages that are ready in `queue`.
pub(crate) async fn purge(url: &str, queue: &str) {
    let (_connection, channel) = open_channel(url).await;
    channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.unwrap();
}

/// Deletes a system's queue and its queue of dead letters.
pub(crate) async fn delete(url: &str, queue: &str) {
    let (_connection, channel) = open_channel(url).await;
    for name in [queue.to_owned(), format!("{queue}.dead")] {
        channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.ok();
    }
}

/// Opens a channel. Waits while the broker is being restarted.
async fn open_channel(url: &str) -> (Connection, Channel) {
    wait_until("the broker accepts a connection", async || {
        let connected = async {
            let connection = Connection::connect(url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            lapin::Result::Ok((connection, channel))
        };
        connected.await.map_err(|error| error.to_string())
    })
    .await
}
