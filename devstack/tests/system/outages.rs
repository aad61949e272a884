//! Servers that go away for a while.

use std::time::{Duration, Instant};

use polyglot_devstack::Proxy;
use polyglot_devstack::scratch_database::{ScratchDatabase, test_variable};
use reqwest::StatusCode;

use crate::harness::{PATIENCE, Setup, System, export_request};

/// `url` with another host and port.
fn through(url: &str, proxy: &Proxy) -> (String, String) {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
    let at = if user.is_empty() { String::new() } else { format!("{user}@") };
    let slash = if rest.contains('/') { "/" } else { "" };
    (host.to_owned(), format!("{scheme}://{at}{}{slash}{path}", proxy.address()))
}

fn proxied(url: &str) -> (Proxy, String) {
    // The target is needed to start the proxy and the proxy to know the address, so the host is split off first.
    let host = url.split_once("://").unwrap().1.split('/').next().unwrap().rsplit('@').next().unwrap().to_owned();
    let proxy = Proxy::start(host).unwrap();
    let (_, url) = through(url, &proxy);
    (proxy, url)
}

#[tokio::test]
async fn a_broker_that_is_away_costs_seconds_and_nothing_else() {
    let (proxy, url) = proxied(&test_variable("TEST_AMQP_URL").unwrap());
    let env = vec![("AMQP_URL".to_owned(), url)];
    let mut system = System::without_worker(Setup { rows: 100, env }).await;
    system.wait_until_ready().await;
    system.add_worker();
    let first = system.submit("csv", None).await;
    system.completed(&first).await;
    proxy.refuse_new().await;
    proxy.cut_all();
    let id = system.submit("csv", None).await;
    // An older finding may be passed on for a second.
    let deadline = Instant::now() + PATIENCE;
    while system.get("/health/ready").await.status() != StatusCode::SERVICE_UNAVAILABLE {
        assert!(Instant::now() < deadline, "the api does not notice");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // The worker looks into the ledger.
    system.completed(&id).await;
    assert_eq!(system.count("SELECT count(*) FROM polyglot.outbox").await, 1);
    proxy.restore().await.unwrap();
    system.wait_until_ready().await;
    let deadline = Instant::now() + PATIENCE;
    while system.count("SELECT count(*) FROM polyglot.outbox").await > 0 {
        assert!(Instant::now() < deadline, "the outbox does not drain");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // And the worker hears messages again.
    let deadline = Instant::now() + PATIENCE;
    while system.workers[0].log().matches("waiting for work").count() < 2 {
        assert!(Instant::now() < deadline, "the worker does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let id = system.submit("csv", None).await;
    system.completed(&id).await;
}

#[tokio::test]
async fn a_store_that_goes_away_in_the_middle_is_tried_again_and_leaves_no_half_file() {
    let (proxy, url) = proxied(&test_variable("TEST_S3_ENDPOINT").unwrap());
    let env = vec![("S3_ENDPOINT".to_owned(), url), ("LEASE_SECONDS".to_owned(), "5".to_owned())];
    let mut system = System::without_worker(Setup { rows: 150_000, env }).await;
    system.wait_until_ready().await;
    // The third part never arrives.
    proxy.cut_after(polyglot_devstack::proxy::Direction::ToServer, 20 << 20);
    system.add_worker();
    let id = system.submit("json", None).await;
    let deadline = Instant::now() + PATIENCE;
    while proxy.forwarded(polyglot_devstack::proxy::Direction::ToServer) < 18 << 20 {
        assert!(Instant::now() < deadline, "nothing was uploaded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.refuse_new().await;
    proxy.cut_all();
    while system.count("SELECT count(*) FROM polyglot.exports WHERE failures > 0").await == 0 {
        assert!(Instant::now() < deadline, "nothing fails");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let state = system.state(&id).await;
    assert_eq!((&state["error"], &state["status"]), (&serde_json::Value::Null, &"running".into()), "{state:#}");
    assert_eq!(system.stored().await.0, Vec::<String>::new(), "a half file is visible");
    proxy.restore().await.unwrap();
    let state = system.completed(&id).await;
    // Only what had not been stored was done again.
    assert_eq!(state["attempt"], 1, "{state:#}");
    assert_eq!(state["progress"]["rows"], 150_000);
    let deadline = Instant::now() + PATIENCE;
    while system.stored().await.1 != Vec::<String>::new()
        || system.count("SELECT count(*) FROM polyglot.uploads WHERE looks < 2").await > 0
    {
        assert!(Instant::now() < deadline, "left: {:?}", system.stored().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(system.stored().await.0.len(), 1);
}

#[tokio::test]
async fn a_store_that_stays_away_fails_the_export() {
    let (proxy, url) = proxied(&test_variable("TEST_S3_ENDPOINT").unwrap());
    let env = vec![("S3_ENDPOINT".to_owned(), url), ("MAX_ATTEMPTS".to_owned(), "1".to_owned())];
    let mut system = System::without_worker(Setup { rows: 100, env }).await;
    system.wait_until_ready().await;
    system.add_worker();
    proxy.refuse_new().await;
    proxy.cut_all();
    let id = system.submit("csv", None).await;
    let state = system.ended(&id).await;
    assert_eq!(state["status"], "failed", "{state:#}");
    assert!(state["error"].as_str().unwrap().contains("object store"), "{state:#}");
    proxy.restore().await.unwrap();
    system.nothing_is_left().await;
}

#[tokio::test]
async fn without_its_database_the_api_says_503_and_does_not_hang() {
    let mut system = System::without_worker(Setup { rows: 10, ..Setup::default() }).await;
    let url = system.database.url().to_owned();
    let (proxy, through_proxy) = proxied(&url);
    system.api = None;
    system.set("DATABASE_URL", &through_proxy);
    system.start_api();
    system.wait_until_ready().await;
    let requests = [
        system.request(reqwest::Method::POST, "/exports").json(&export_request("csv", None)),
        system.request(reqwest::Method::GET, "/exports"),
        system.request(reqwest::Method::GET, &format!("/exports/{}", uuid::Uuid::now_v7())),
    ];
    // Gone, and, which is worse, silent.
    for silent in [false, true] {
        if silent {
            proxy.restore().await.unwrap();
            system.wait_until_ready().await;
            proxy.hold();
        } else {
            proxy.refuse_new().await;
            proxy.cut_all();
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

/// A connection that is held looks like a long sort: only a look from outside tells them apart.
#[tokio::test]
async fn a_source_that_falls_silent_is_given_up_and_tried_again() {
    let database = ScratchDatabase::for_test().await.unwrap_or_else(|error| panic!("{error}"));
    polyglot_devstack::seed::fill(database.url(), 100_000).await.unwrap();
    let (proxy, url) = proxied(database.url());
    let mut system =
        System::without_worker(Setup { rows: 0, env: vec![("SOURCE_DATABASE_URL".to_owned(), url)] }).await;
    system.wait_until_ready().await;
    // Slow enough to be caught in the middle.
    proxy.slow_to(1 << 20);
    system.add_worker();
    let id = system.submit("csv", None).await;
    system.wait_until(&id, "reading", |state| state["progress"]["rows"].as_i64() > Some(0)).await;
    proxy.hold();
    system.wait_until(&id, "given up", |state| state["status"] == "pending").await;
    assert!(system.workers[0].log().contains("looked for in vain"));
    proxy.restore().await.unwrap();
    let state = system.completed(&id).await;
    assert_eq!(state["progress"]["rows"], 100_000, "{state:#}");
    assert!(state["attempt"].as_i64() > Some(1), "{state:#}");
}
