//! Messages that are lost, duplicated, unreadable or never sent: the ledger decides what work there is.

use std::process::Command;

use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueuePurgeOptions};
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use polyglot_test_kit::{Setup, System, binary, wait_until};
use polyglot_test_servers::{TestServers, needs_servers};

struct Broker {
    _connection: Connection,
    channel: Channel,
}

impl Broker {
    async fn connect() -> Self {
        let servers = TestServers::from_environment().unwrap();
        let connection = Connection::connect(&servers.amqp_url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        Self { _connection: connection, channel }
    }

    async fn publish(&self, queue: &str, body: &[u8]) {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        self.channel.basic_publish("".into(), queue.into(), options, body, properties).await.unwrap();
    }

    async fn take(&self, queue: &str) -> Option<BasicGetMessage> {
        self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()
    }

    /// Waits for a message in the queue and takes it.
    async fn wait_for(&self, queue: &str) -> BasicGetMessage {
        wait_until(&format!("{queue} has a message"), async || self.take(queue).await).await
    }
}

#[tokio::test]
async fn a_lost_message_delays_its_export_by_seconds() {
    needs_servers!();
    let mut system = System::without_worker(Setup { rows: 10, ..Setup::default() }).await;
    system.wait_until_ready().await;
    let ids = [system.submit("csv", None).await, system.submit("json", None).await];
    let broker = Broker::connect().await;
    for _ in &ids {
        broker.wait_for(&system.queue).await;
    }
    broker.channel.queue_purge(system.queue.as_str().into(), QueuePurgeOptions::default()).await.unwrap();
    system.add_worker();
    for id in &ids {
        system.wait_until_completed(id).await;
    }
}

#[tokio::test]
async fn without_a_broker_the_service_works_from_the_ledger() {
    needs_servers!();
    let mut system = System::without_worker(Setup::new(100, &[("AMQP_URL", "")])).await;
    // The api is ready without a broker, and says so.
    system.wait_until_ready().await;
    let ready: serde_json::Value = system.get("/health/ready").await.json().await.unwrap();
    assert_eq!(ready["checks"]["broker"], "none", "{ready:#}");
    system.add_worker();
    system.add_worker();
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(system.submit("csv", None).await);
    }
    let cancelled = system.submit("csv", None).await;
    system.delete(&cancelled).await;
    for id in &ids {
        assert_eq!(system.wait_until_completed(id).await["attempt"], 1);
    }
    system.wait_until_ended(&cancelled).await;
    // Without a consumer, messages do not accumulate.
    system.wait_until_none("the outbox is empty", "SELECT count(*) FROM polyglot.outbox").await;
}

/// Runs `polyglot-worker dead-letters` and returns what it printed.
fn dead_letters(system: &System, arguments: &[&str]) -> String {
    let mut command = Command::new(binary("polyglot-worker"));
    command.arg("dead-letters").args(arguments);
    let output = system.environment(&mut command).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

#[tokio::test]
async fn an_unreadable_message_goes_to_the_dead_letters_with_the_reason() {
    needs_servers!();
    let system = System::with_rows(5).await;
    let broker = Broker::connect().await;
    let dead = format!("{}.dead", system.queue);
    // An export that has completed shows that the queues exist.
    let id = system.submit("csv", None).await;
    system.wait_until_completed(&id).await;
    broker.publish(&system.queue, b"{\"exportId\": 7}").await;
    // A message for an export that is not known is dropped; one that comes twice does nothing the second time.
    broker.publish(&system.queue, b"{\"exportId\": \"00000000-0000-7000-8000-000000000000\"}").await;
    let letter = broker.wait_for(&dead).await.delivery;
    assert_eq!(letter.data, b"{\"exportId\": 7}");
    let headers = letter.properties.headers().clone().unwrap();
    let Some(AMQPValue::LongString(reason)) = headers.inner().get("x-reason") else { panic!("{headers:?}") };
    assert!(reason.to_string().starts_with("not a message of this service: "), "{reason}");
    // The worker continues.
    let id = system.submit("csv", None).await;
    system.wait_until_completed(&id).await;
    assert!(broker.take(&dead).await.is_none());
}

#[tokio::test]
async fn dead_letters_are_listed_put_back_and_discarded() {
    needs_servers!();
    let mut system = System::without_worker(Setup { rows: 5, ..Setup::default() }).await;
    system.wait_until_ready().await;
    let waiting = system.submit("csv", None).await;
    let broker = Broker::connect().await;
    broker.wait_for(&system.queue).await;
    let dead = format!("{}.dead", system.queue);
    let letter = |id: &str| format!("{{\"exportId\": \"{id}\"}}").into_bytes();
    let unknown = uuid::Uuid::now_v7().to_string();
    broker.publish(&dead, &letter(&waiting)).await;
    broker.publish(&dead, &letter(&unknown)).await;
    broker.publish(&dead, b"what is this").await;
    for _ in 0..2 {
        let listed = dead_letters(&system, &[]);
        assert!(listed.contains(&format!("{waiting}: unknown: the export is not finished")), "{listed}");
        assert!(listed.contains(&format!("{unknown}: unknown: the export has ended or is unknown")), "{listed}");
        assert!(listed.contains("12 bytes: unknown: not a message of this service, kept"), "{listed}");
        assert!(listed.ends_with(&format!("3 dead letters in {dead}\n")), "{listed}");
    }
    let redriven = dead_letters(&system, &["redrive"]);
    assert!(redriven.contains("put back into the queue") && redriven.contains("removed"), "{redriven}");
    assert_eq!(
        broker.wait_for(&system.queue).await.delivery.data,
        format!("{{\"exportId\":\"{waiting}\"}}").as_bytes()
    );
    assert!(dead_letters(&system, &["discard"]).ends_with(&format!("1 dead letters in {dead}\n")));
    assert!(dead_letters(&system, &[]).starts_with("0 dead letters"), "something is left");
    let nonsense = Command::new(binary("polyglot-worker")).args(["dead-letters", "all"]).output().unwrap();
    assert_eq!(nonsense.status.code(), Some(2));
    system.add_worker();
    system.wait_until_completed(&waiting).await;
}
