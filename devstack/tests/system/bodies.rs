//! Request bodies that are made to take memory: the api refuses them with a problem that says why, and stays small.

use std::net::Ipv4Addr;

use futures_util::future::join_all;
use polyglot_devstack::memory_limit::PeakMemory;
use polyglot_test_kit::{Setup, System, sample_request};
use polyglot_test_servers::needs_servers;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The largest body.
const BODY_BYTES: usize = 256 << 10;
/// What the api may take at most: a few tens of MiB for itself, and 48 MiB for bodies.
const PEAK: u64 = 160 << 20;

/// `start`, then `item` as often as it fits.
fn filled(start: &str, item: &str) -> String {
    format!("{start}{}", item.repeat((BODY_BYTES - start.len()) / item.len()))
}

#[tokio::test]
async fn bodies_that_grow_when_they_are_parsed_do_not() {
    needs_servers!();
    let system = System::without_worker(Setup { rows: 10, ..Setup::default() }).await;
    let peak = PeakMemory::watch(system.api.as_ref().unwrap().child.id());
    let small = format!("[{}]", vec!["{\"a\":{}}"; 4_900].join(","));
    let bodies = [
        (filled("", "["), 400),
        (filled("{\"columns\":", "[{\"a\":"), 400),
        (filled("[", "{\"a\":{}},"), 400),
        (filled("[", "0,"), 400),
        (filled("{\"filters\":[", "{},"), 400),
        (format!("{{\"{}\":1}}", "k".repeat(BODY_BYTES - 6)), 400),
        // As many values as are allowed.
        (small, 400),
        // As it was measured when this was no limit: 30 of these ended a process in 256 MB.
        (format!("{}{}", "[".repeat(512 << 10), "]".repeat(512 << 10)), 413),
    ];
    for (body, status) in &bodies {
        let sent = (0..40).map(|_| {
            let request = system.request(Method::POST, "/exports").header("Content-Type", "application/json");
            request.body(body.clone()).send()
        });
        let mut refused = 0;
        for answer in join_all(sent).await {
            let answer = answer.unwrap();
            if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
                assert!(answer.headers().contains_key("retry-after"));
                continue;
            }
            let (got, problem) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
            assert_eq!(got, *status, "{problem:#}");
            refused += 1;
        }
        assert!(refused > 0);
        println!("{} …: peak so far {} MiB", &body[..20], peak.bytes() >> 20);
    }
    assert!(peak.bytes() < PEAK, "peak {} MiB", peak.bytes() >> 20);
    system.submit("csv", None).await;
}

/// A connection from an address of its own, so that no limit of one client's connections counts.
async fn connect(port: u16, client: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 1, 0, client), 0).into()).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.unwrap()
}

#[tokio::test]
async fn bodies_that_arrive_slowly_keep_no_ordinary_request_waiting() {
    needs_servers!();
    let system = System::without_worker(Setup { rows: 10, ..Setup::default() }).await;
    let peak = PeakMemory::watch(system.api.as_ref().unwrap().child.id());
    let port: u16 = system.url("").rsplit(':').next().unwrap().parse().unwrap();
    let head = format!(
        "POST /exports HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
    );
    // Together more than the memory for bodies. None sends its last byte.
    let slow = (1..=120).map(async |client| {
        let mut stream = connect(port, client).await;
        // The api may have answered and closed before everything is sent.
        let _ = stream.write_all(format!("{head}{}", " ".repeat(BODY_BYTES - 1)).as_bytes()).await;
        stream
    });
    let slow = join_all(slow).await;
    for _ in 0..5 {
        system.submit("csv", None).await;
    }
    let answers = join_all(slow.into_iter().map(async |mut stream| {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }))
    .await;
    let count =
        |status: &str| answers.iter().filter(|answer| answer.starts_with(&format!("HTTP/1.1 {status}"))).count();
    println!("503: {}, 408: {}, peak {} MiB", count("503"), count("408"), peak.bytes() >> 20);
    assert!(count("408") > 0 && peak.bytes() < PEAK, "peak {} MiB", peak.bytes() >> 20);
    system.submit("csv", None).await;
}

#[tokio::test]
async fn what_is_stored_is_bounded_and_the_largest_part_is_named() {
    needs_servers!();
    let system = System::without_worker(Setup { rows: 10, ..Setup::default() }).await;
    let request = |bytes: usize| {
        let mut request = sample_request("csv", None);
        request["filters"] = json!([{"column": "id", "op": "=", "value": 1},
            {"column": "name", "op": "=", "value": "x".repeat(bytes)}]);
        request
    };
    let answer = system.post(&request(66_000)).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["errors"][0]["field"], "filters[1].value", "{problem:#}");
    assert!(problem["detail"].as_str().unwrap().contains("at most 65536"), "{problem:#}");
    system.submit_request(&request(64_000)).await;
    let stored = "SELECT max(octet_length(request::text))::bigint FROM polyglot.exports";
    assert!((64_000..70_000).contains(&system.count(stored).await));
}
