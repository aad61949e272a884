//! Servers that are unavailable for a while.

use std::time::{Duration, Instant};

use polyglot_devstack::Proxy;
use polyglot_devstack::proxy::Direction;
use polyglot_test_kit::{Setup, System, sample_request, scratch_database, wait_until};
use polyglot_test_servers::needs_servers;
use reqwest::StatusCode;

/// Starts a proxy in front of the server that `url` names. The second value is the URL through the proxy.
fn proxied(url: &str) -> (Proxy, String) {
    let authority = url.split_once("://").unwrap().1.split('/').next().unwrap();
    let host = authority.rsplit('@').next().unwrap();
    let proxy = Proxy::start(host).unwrap();
    let through_proxy = url.replacen(host, &proxy.address().to_string(), 1);
    (proxy, through_proxy)
}

#[tokio::test]
async fn a_broker_outage_delays_exports_by_seconds_and_nothing_else() {
    let servers = needs_servers!();
    let (proxy, url) = proxied(&servers.amqp_url);
    let mut system = System::without_worker(Setup::new(100, &[("AMQP_URL", &url)])).await;
    system.wait_until_ready().await;
    system.add_worker();
    let first = system.submit("csv", None).await;
    system.wait_until_completed(&first).await;
    proxy.refuse_new().await;
    proxy.disconnect_all();
    let id = system.submit("csv", None).await;
    // The result of a check may be reused for a second.
    wait_until("the api reports the outage", async || {
        system.get("/health/ready").await.status() == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    // The worker finds the export in the ledger.
    system.wait_until_completed(&id).await;
    assert_eq!(system.count("SELECT count(*) FROM polyglot.outbox").await, 1);
    proxy.restore().await.unwrap();
    system.wait_until_ready().await;
    system.wait_until_none("the outbox is empty", "SELECT count(*) FROM polyglot.outbox").await;
    wait_until("the worker consumes messages again", async || {
        system.workers[0].log().matches("waiting for work").count() >= 2
    })
    .await;
    let id = system.submit("csv", None).await;
    system.wait_until_completed(&id).await;
}

#[tokio::test]
async fn the_next_node_of_a_broker_takes_the_place_of_one_that_is_lost() {
    let servers = needs_servers!();
    // Two addresses of one broker, and one where nobody listens.
    let ((first, url), (second, _)) = (proxied(&servers.amqp_url), proxied(&servers.amqp_url));
    let nobody = format!("127.0.0.1:{}", polyglot_devstack::free_port().unwrap());
    let hosts = format!("{nobody},{},{}", first.address(), second.address());
    let url = url.replacen(&first.address().to_string(), &hosts, 1);
    let mut system = System::without_worker(Setup::new(100, &[("AMQP_URL", &url)])).await;
    system.wait_until_ready().await;
    system.add_worker();
    let consumers = || system.workers[0].log().matches("waiting for work").count();
    for (lost, rest) in [(&first, &second), (&second, &first)] {
        lost.refuse_new().await;
        lost.disconnect_all();
        let seen = lost.connections();
        let before = consumers();
        rest.disconnect_all();
        // Both processes use the other one: messages go through it, and what cannot be published would stay in the outbox.
        wait_until("the worker consumes messages again", async || consumers() > before).await;
        system.wait_until_ready().await;
        let id = system.submit("csv", None).await;
        system.wait_until_completed(&id).await;
        system.wait_until_none("the outbox is empty", "SELECT count(*) FROM polyglot.outbox").await;
        assert_eq!(lost.connections(), seen);
        lost.restore().await.unwrap();
    }
}

#[tokio::test]
async fn a_store_outage_in_the_middle_of_an_export_is_waited_for_and_leaves_no_partial_file() {
    let servers = needs_servers!();
    let (proxy, url) = proxied(&servers.s3_endpoint);
    // One failure would end it, and its lease is shorter than the outage.
    let env = [("S3_ENDPOINT", url.as_str()), ("LEASE_SECONDS", "5"), ("MAX_ATTEMPTS", "1")];
    let mut system = System::without_worker(Setup::new(150_000, &env)).await;
    system.wait_until_ready().await;
    // The third part never arrives.
    proxy.disconnect_after(Direction::ToServer, 20 << 20);
    system.add_worker();
    let id = system.submit("json", None).await;
    wait_until("two parts are uploaded", async || proxy.forwarded(Direction::ToServer) >= 18 << 20).await;
    proxy.refuse_new().await;
    proxy.disconnect_all();
    // Longer than the attempts of the client and the lease.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(system.workers[0].log().contains("the object store is not available, waiting for it"));
    let state = system.state(&id).await;
    assert_eq!((&state["error"], &state["status"]), (&serde_json::Value::Null, &"running".into()), "{state:#}");
    assert_eq!(system.bucket.objects().await, Vec::<String>::new(), "a partial file is visible");
    proxy.restore().await.unwrap();
    let state = system.wait_until_completed(&id).await;
    assert_eq!(state["attempt"], 1, "{state:#}");
    assert_eq!(system.count("SELECT failures::bigint FROM polyglot.exports").await, 0);
    assert!(system.workers[0].log().contains("the object store is available again"));
    assert_eq!(state["progress"]["rows"], 150_000);
    system.wait_until_cleaned_up_except(1).await;
}

#[tokio::test]
async fn a_lasting_store_outage_ends_with_the_deadline_or_a_deletion() {
    let servers = needs_servers!();
    let (proxy, url) = proxied(&servers.s3_endpoint);
    let env =
        [("S3_ENDPOINT", url.as_str()), ("EXPORT_TIMEOUT_MS", "25000"), ("MAX_ATTEMPTS", "1"), ("WORKER_SLOTS", "2")];
    let mut system = System::without_worker(Setup::new(100, &env)).await;
    system.wait_until_ready().await;
    system.add_worker();
    proxy.refuse_new().await;
    proxy.disconnect_all();
    let (id, deleted) = (system.submit("csv", None).await, system.submit("csv", None).await);
    for id in [&id, &deleted] {
        system.wait_for_state(id, "finishing", |state| state["status"] == "finishing").await;
    }
    assert_eq!(system.delete(&deleted).await.status(), StatusCode::ACCEPTED);
    let state = system.wait_until_ended(&deleted).await;
    assert_eq!(state["status"], "cancelled", "{state:#}");
    let state = system.wait_until_ended(&id).await;
    assert_eq!((&state["status"], &state["errorCode"]), (&"failed".into(), &"deadline_exceeded".into()), "{state:#}");
    proxy.restore().await.unwrap();
    system.wait_until_cleaned_up().await;
}

#[tokio::test]
async fn without_its_database_the_api_answers_503_and_does_not_hang() {
    needs_servers!();
    let mut system = System::without_worker(Setup { rows: 10, ..Setup::default() }).await;
    let (proxy, through_proxy) = proxied(&system.database_url);
    system.api = None;
    system.set("DATABASE_URL", &through_proxy);
    system.start_api();
    system.wait_until_ready().await;
    let requests = [
        system.request(reqwest::Method::POST, "/exports").json(&sample_request("csv", None)),
        system.request(reqwest::Method::GET, "/exports"),
        system.request(reqwest::Method::GET, &format!("/exports/{}", uuid::Uuid::now_v7())),
    ];
    // First the server refuses connections, then it is silent, which is worse.
    for silent in [false, true] {
        if silent {
            proxy.restore().await.unwrap();
            system.wait_until_ready().await;
            proxy.stall();
        } else {
            proxy.refuse_new().await;
            proxy.disconnect_all();
        }
        for request in &requests {
            let asked = Instant::now();
            let answer = request.try_clone().unwrap().send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "silent: {silent}");
            assert!(answer.headers().contains_key("retry-after"));
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
        }
        assert_eq!(system.get("/health").await.status(), StatusCode::OK);
        let ready = system.get("/health/ready").await;
        assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    proxy.restore().await.unwrap();
    system.wait_until_ready().await;
    system.submit("csv", None).await;
}

#[tokio::test]
async fn an_outage_of_the_source_before_the_first_row_costs_no_attempt() {
    needs_servers!();
    let database = scratch_database().await;
    polyglot_devstack::seed::fill(database.url(), 1_000).await.unwrap();
    let (proxy, url) = proxied(database.url());
    let env = [("SOURCE_DATABASE_URL", url.as_str()), ("LEASE_SECONDS", "5"), ("MAX_ATTEMPTS", "1")];
    let mut system = System::without_worker(Setup::new(0, &env)).await;
    system.wait_until_ready().await;
    let id = system.submit("csv", None).await;
    proxy.refuse_new().await;
    proxy.disconnect_all();
    system.add_worker();
    wait_until("the worker waits", async || {
        system.workers[0].log().contains("the source database is not available, waiting for it")
    })
    .await;
    // Longer than the lease.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(system.state(&id).await["status"], "planning");
    proxy.restore().await.unwrap();
    let state = system.wait_until_completed(&id).await;
    assert_eq!((&state["attempt"], &state["progress"]["rows"]), (&1.into(), &1_000.into()), "{state:#}");
}

/// A stalled connection is like a long sort: only a probe over another connection distinguishes them.
#[tokio::test]
async fn an_attempt_on_a_silent_source_is_given_up_and_repeated() {
    needs_servers!();
    let database = scratch_database().await;
    polyglot_devstack::seed::fill(database.url(), 100_000).await.unwrap();
    let (proxy, url) = proxied(database.url());
    let mut system = System::without_worker(Setup::new(0, &[("SOURCE_DATABASE_URL", &url)])).await;
    system.wait_until_ready().await;
    // Slow enough for the test to act while rows are being read.
    proxy.throttle(1 << 20);
    system.add_worker();
    let id = system.submit("csv", None).await;
    system.wait_for_state(&id, "reading", |state| state["progress"]["rows"].as_i64() > Some(0)).await;
    proxy.stall();
    system.wait_for_state(&id, "given up", |state| state["status"] == "pending").await;
    assert!(system.workers[0].log().contains("its liveness probe failed"));
    proxy.restore().await.unwrap();
    let state = system.wait_until_completed(&id).await;
    assert_eq!(state["progress"]["rows"], 100_000, "{state:#}");
    assert!(state["attempt"].as_i64() > Some(1), "{state:#}");
}
