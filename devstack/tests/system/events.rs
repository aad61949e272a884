//! Server-Sent Events: every state of an export in order, its document while it grows, across instances of the api and
//! lost connections.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use polyglot_test_kit::{DEADLINE, Setup, System, sample_request, wait_until};
use polyglot_test_servers::needs_servers;
use reqwest::{Response, StatusCode};
use rustix::process::Signal;
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;

/// One event of a stream.
#[derive(Debug)]
struct Event {
    name: String,
    id: i64,
    data: Value,
}

/// A stream of events.
struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    async fn open(url: &str, last: Option<i64>) -> Self {
        let response = Self::ask(url, last).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    async fn ask(url: &str, last: Option<i64>) -> Response {
        let mut request = reqwest::Client::new().get(url);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        request.send().await.unwrap()
    }

    /// The next event, comments left out; `None` at the end of the stream, whether it was closed or interrupted.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                        .map(|value| value.trim_start().to_owned())
                };
                let Some(data) = field("data") else { continue };
                let (name, id) = (field("event").unwrap(), field("id").unwrap().parse().unwrap());
                return Some(Event { name, id, data: serde_json::from_str(&data).unwrap() });
            }
            let chunk = tokio::time::timeout(DEADLINE, self.response.chunk()).await.expect("the stream is silent");
            self.text.push_str(std::str::from_utf8(&chunk.ok()??).unwrap());
        }
    }

    /// The next document of the export for which `wanted` holds.
    async fn document(&mut self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let document = async {
            loop {
                let event = self.next().await.expect("the stream has not ended");
                if event.name == "export" && event.data["exportId"] == id && wanted(&event.data) {
                    return event.data;
                }
            }
        };
        let found = tokio::time::timeout(DEADLINE, document).await;
        found.unwrap_or_else(|_| panic!("the stream has no such document of {id} within {DEADLINE:?}"))
    }
}

const WHOLE_LIFE: [&str; 5] = ["pending", "planning", "running", "finishing", "completed"];

#[tokio::test]
async fn every_state_comes_in_order_and_the_stream_ends_with_the_export() {
    needs_servers!();
    let system = System::with_rows(2000).await;
    let id = system.submit("csv", None).await;
    let url = system.url(&format!("/exports/{id}/events"));
    let mut stream = Stream::open(&url, None).await;
    let (mut states, mut last_document, mut last_id) = (Vec::new(), Value::Null, 0);
    while let Some(event) = stream.next().await {
        assert!(event.id >= last_id, "ids grow: {event:?} behind {last_id}");
        assert_eq!(event.data["exportId"], id);
        if event.name == "state" {
            assert!(event.id > last_id, "{event:?}");
            states.push((event.id, event.data["status"].as_str().unwrap().to_owned()));
        } else {
            assert_eq!(event.name, "export");
            last_document = event.data;
        }
        last_id = event.id;
    }
    assert_eq!(states.iter().map(|(_, state)| state.as_str()).collect::<Vec<_>>(), WHOLE_LIFE);
    // All but the request, which the single document alone has.
    let mut state = system.state(&id).await;
    assert!(state.as_object_mut().unwrap().remove("request").is_some());
    assert_eq!(last_document, state);
    assert_eq!(last_document["progress"]["rows"], 2000);

    // A client that reconnects gets the state events it missed, and no others. One that has missed none gets 204, which tells
    // it not to reconnect.
    let mut again = Stream::open(&url, Some(states[2].0)).await;
    let mut missed = Vec::new();
    while let Some(event) = again.next().await {
        if event.name == "state" {
            missed.push(event.data["status"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(missed, WHOLE_LIFE[3..]);
    assert_eq!(Stream::ask(&url, Some(last_id)).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn rows_are_seen_to_grow() {
    needs_servers!();
    let system = System::with_rows(20_000).await;
    for statement in [
        "ALTER TABLE public.records RENAME TO fast_records",
        "CREATE VIEW public.records AS SELECT id, created_at, name, value, metadata FROM public.fast_records
         WHERE id % 100 <> 0 OR pg_sleep(0.02) IS NOT NULL",
    ] {
        sqlx::query(statement).execute(&system.pool).await.unwrap();
    }
    let id = system.submit("csv", None).await;
    let mut stream = Stream::open(&system.url("/events"), None).await;
    let some = stream.document(&id, |it| it["progress"]["rows"].as_i64().unwrap() > 0).await;
    assert_eq!(some["status"], "running");
    let rows = some["progress"]["rows"].as_i64().unwrap();
    stream.document(&id, |it| it["status"] == "running" && it["progress"]["rows"].as_i64().unwrap() > rows).await;
}

#[tokio::test]
async fn an_api_streams_what_another_one_does_also_when_its_listener_loses_its_connection() {
    needs_servers!();
    let system = System::with_rows(500).await;
    let (_other, url) = system.another_api().await;
    let mut stream = Stream::open(&format!("{url}/events"), None).await;
    let id = system.submit("csv", None).await;
    stream.document(&id, |it| it["status"] == "completed").await;

    // The listeners of both apis, which cannot be distinguished here.
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'polyglot-api' AND query LIKE 'LISTEN%'";
    assert!(system.count(cut).await >= 1);
    let id = system.submit("json", None).await;
    stream.document(&id, |it| it["status"] == "completed").await;
    system.post(&sample_request("xml", None)).await;
}

#[tokio::test]
async fn changes_without_a_notification_are_found_by_polling() {
    needs_servers!();
    let system = System::with_rows(10).await;
    let mut stream = Stream::open(&system.url("/events"), None).await;
    let id = system.submit("csv", None).await;
    stream.document(&id, |it| it["status"] == "completed").await;
    // As the sweeper or an operator changes it: without a notification.
    sqlx::query("UPDATE polyglot.exports SET state = 'expired'").execute(&system.pool).await.unwrap();
    stream.document(&id, |it| it["status"] == "expired").await;
}

#[tokio::test]
async fn a_client_that_reconnects_to_another_api_gets_what_it_has_missed() {
    needs_servers!();
    let mut system = System::with_rows(500).await;
    let (_other, url) = system.another_api().await;
    let mut stream = Stream::open(&system.url("/events"), None).await;
    let first = system.submit("csv", None).await;
    stream.document(&first, |it| it["status"] == "completed").await;
    let last = sqlx::query_scalar("SELECT max(id) FROM polyglot.state_changes").fetch_one(&system.pool).await.unwrap();
    let second = system.submit("json", None).await;
    system.wait_until_completed(&second).await;
    system.api = None;
    assert!(drain(stream).await, "the stream of a dead api ends");

    let mut stream = Stream::open(&format!("{url}/events"), Some(last)).await;
    let mut states = Vec::new();
    loop {
        let event = stream.next().await.unwrap();
        if event.data["exportId"] == second.as_str() {
            if event.name == "export" {
                assert_eq!(event.data["status"], "completed");
                break;
            }
            states.push(event.data["status"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(states, WHOLE_LIFE);
}

async fn drain(mut stream: Stream) -> bool {
    while stream.next().await.is_some() {}
    true
}

#[tokio::test]
async fn an_api_that_stops_does_not_wait_for_open_streams() {
    needs_servers!();
    let mut system = System::without_worker(Setup { rows: 10, ..Setup::default() }).await;
    let id = system.submit("csv", None).await;
    let one = Stream::open(&system.url(&format!("/exports/{id}/events")), None).await;
    let all = Stream::open(&system.url("/events"), None).await;
    let mut api = system.api.take().unwrap();
    let asked = Instant::now();
    api.signal(Signal::TERM);
    assert!(api.wait_for_exit().await.success());
    // Half of the time that a drain may take.
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(drain(one).await && drain(all).await);
}

#[tokio::test]
async fn bad_ids_are_named() {
    needs_servers!();
    let system = System::without_worker(Setup::default()).await;
    for (path, last, status, field) in [
        ("/events", Some("x"), 400, Some("Last-Event-ID")),
        ("/events", Some("-1"), 400, Some("Last-Event-ID")),
        ("/exports/7/events", None, 400, Some("id")),
        ("/exports/00000000-0000-7000-8000-000000000000/events", None, 404, None),
    ] {
        let mut request = system.request(reqwest::Method::GET, path);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["errors"][0]["field"].as_str(), field, "{problem}");
    }
}

#[tokio::test]
async fn changes_during_a_ledger_outage_are_streamed_afterwards() {
    needs_servers!();
    let system = System::with_rows(10).await;
    let mut stream = Stream::open(&system.url("/events"), None).await;
    let id = system.submit("csv", None).await;
    stream.document(&id, |it| it["status"] == "completed").await;
    // A database is closed over a connection to another one.
    let (server, name) = system.database_url.rsplit_once('/').unwrap();
    let outside = PgPoolOptions::new().connect(&format!("{server}/postgres")).await.unwrap();
    let connections = |allowed: bool| {
        let statement = format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS {allowed}");
        let outside = &outside;
        async move { sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(outside).await.unwrap() }
    };
    connections(false).await;
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'polyglot-api'";
    assert!(system.count(cut).await >= 1);
    // Longer than the api waits for a connection, so that its feed has failed. Nothing outside of the api shows that.
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Neither active any more, nor newer than the newest change when the feed starts again.
    sqlx::query("UPDATE polyglot.exports SET state = 'expired'").execute(&system.pool).await.unwrap();
    connections(true).await;
    stream.document(&id, |it| it["status"] == "expired").await;
}

/// Without notifications, so that all of them are found by one poll. The first one is the oldest, and of an export that is not
/// active.
#[tokio::test]
async fn of_thousands_of_changes_at_once_none_is_skipped() {
    const MORE: usize = 2500;
    needs_servers!();
    let system = System::with_rows(10).await;
    let mut stream = Stream::open(&system.url("/events"), None).await;
    let id = system.submit("csv", None).await;
    stream.document(&id, |it| it["status"] == "completed").await;
    let many = format!(
        "UPDATE polyglot.exports SET state = 'expired' WHERE id = '{id}';
         INSERT INTO polyglot.exports (id, request, dataset, format, state, finished_at)
         SELECT gen_random_uuid(), request, dataset, format, 'cancelled', now()
         FROM polyglot.exports, generate_series(1, {MORE}) WHERE id = '{id}'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(many)).execute(&system.pool).await.unwrap();
    let (mut is_expired, mut states, mut documents) = (false, BTreeSet::new(), BTreeSet::new());
    let all = async {
        while !is_expired || states.len() < MORE || documents.len() < MORE {
            let event = stream.next().await.expect("the stream has not ended");
            let export = event.data["exportId"].as_str().unwrap().to_owned();
            match (event.name.as_str(), export == id) {
                ("export", true) => is_expired |= event.data["status"] == "expired",
                ("export", false) => drop(documents.insert(export)),
                (_, true) => {}
                (_, false) => drop(states.insert(export)),
            }
        }
    };
    let arrived = tokio::time::timeout(DEADLINE, all).await.is_ok();
    assert!(arrived, "expired: {is_expired}, of {MORE}: {} states, {} documents", states.len(), documents.len());
}

#[tokio::test]
async fn a_download_that_waits_is_woken_by_the_feed() {
    needs_servers!();
    let system = System::without_worker(Setup { rows: 1, ..Setup::default() }).await;
    let listeners = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                     AND application_name = 'polyglot-api' AND query LIKE 'LISTEN%'";
    let wait = async |id: &str| {
        let request = system.request(reqwest::Method::GET, &format!("/exports/{id}/download"));
        let asked = Instant::now();
        let answer = request.header("Prefer", "wait=100").send().await.unwrap();
        (answer.status(), asked.elapsed())
    };
    let listens = async || wait_until("the feed listens", async || system.count(listeners).await == 1).await;
    assert_eq!(system.count(listeners).await, 0, "the feed reads for nobody");

    // With a notification, and without one.
    let (first, second) = (system.submit("csv", None).await, system.submit("csv", None).await);
    let ((status, took), ()) = tokio::join!(wait(&first), async {
        listens().await;
        assert_eq!(system.delete(&first).await.status(), StatusCode::ACCEPTED);
    });
    assert_eq!(status, StatusCode::GONE);
    assert!(took < Duration::from_secs(30), "{took:?}");
    let ((status, took), ()) = tokio::join!(wait(&second), async {
        listens().await;
        let end = "UPDATE polyglot.exports SET state = 'failed', finished_at = now() WHERE id = $1::uuid";
        sqlx::query(end).bind(&second).execute(&system.pool).await.unwrap();
    });
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(took < Duration::from_secs(30), "{took:?}");
    // One that has ended needs no feed, and one that does not end is answered when its time is up.
    assert_eq!(wait(&first).await.0, StatusCode::GONE);
    let pending = system.submit("csv", None).await;
    let request = system.request(reqwest::Method::GET, &format!("/exports/{pending}/download"));
    assert_eq!(request.header("Prefer", "wait=1").send().await.unwrap().status(), StatusCode::ACCEPTED);
}
