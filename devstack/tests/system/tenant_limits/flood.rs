//! One tenant sends far more requests than it may, and another one waits no longer for its answers.
//!
//! `make test` runs a short one, `make flood` the long one: `FLOOD_RATE` requests a second (2,000) for `FLOOD_SECONDS` (2), and
//! `FLOOD_P99_MILLISECONDS` (2,000) that the other tenant's answers may take, but for one in a hundred.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Connections of the flood.
const CONNECTIONS: u32 = 8;
/// Requests that a connection sends before it reads their answers.
const PIPELINED: u32 = 50;
/// What the tenant may send.
const ALLOWED: u32 = 100;
/// Pause of the other tenant between two requests.
const PAUSE: Duration = Duration::from_millis(10);

fn number(variable: &str, default: u32) -> u32 {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    value.map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{variable}: {value}")))
}

/// Sends batches of requests over one connection at its part of the rate, and returns how many were answered with 200 and 429.
async fn flood(address: &str, key: &str, rate: u32, until: Instant) -> (u32, u32) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let one = format!("GET /docs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\r\n");
    let batch = one.repeat(PIPELINED as usize);
    let mut pace = tokio::time::interval(Duration::from_secs(1) * PIPELINED * CONNECTIONS / rate);
    let (mut accepted, mut refused) = (0, 0);
    let mut buffer = vec![0; 64 << 10];
    let mut unread = Vec::new();
    while Instant::now() < until {
        pace.tick().await;
        stream.write_all(batch.as_bytes()).await.unwrap();
        let mut answered = 0;
        while answered < PIPELINED {
            // Answers of 429 have a length; the redirect of an accepted request has none to read.
            while let Some(end) = end_of_answer(&unread) {
                if unread.starts_with(b"HTTP/1.1 429") {
                    refused += 1;
                } else {
                    accepted += 1;
                }
                unread.drain(..end);
                answered += 1;
            }
            if answered < PIPELINED {
                let read = stream.read(&mut buffer).await.unwrap();
                assert!(read > 0, "the api has closed a connection of the flood");
                unread.extend_from_slice(&buffer[..read]);
            }
        }
    }
    (accepted, refused)
}

/// Length of the first answer, if all of it is there.
fn end_of_answer(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap().to_ascii_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |it| it.parse().unwrap());
    (bytes.len() >= head + length).then_some(head + length)
}

/// Times of the other tenant's answers, sorted.
async fn times(url: &str, key: &str, until: Instant) -> Vec<Duration> {
    let (http, mut times) = (Client::new(), Vec::new());
    while Instant::now() < until {
        let asked = Instant::now();
        let answer = http.get(format!("{url}/exports?limit=1")).bearer_auth(key).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.bytes().await.unwrap();
        times.push(asked.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    times.sort();
    times
}

fn part(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_flood_of_one_tenant_does_not_slow_down_another() {
    needs_servers!();
    let (rate, seconds) = (number("FLOOD_RATE", 2000), number("FLOOD_SECONDS", 2));
    let bar = Duration::from_millis(number("FLOOD_P99_MILLISECONDS", 2000).into());
    let limits = format!("[tenants.acme]\nrequests_per_second = {ALLOWED}");
    // As an operator would have it: with a line of the log for each request.
    let (system, ours, theirs) = limited(5, &limits, &[("LOG_FORMAT", "json")]).await;
    let url = system.url("");
    let address = url.trim_start_matches("http://").to_owned();
    accepted(&system, &theirs).await;
    let alone = times(&url, &theirs, Instant::now() + Duration::from_secs(1)).await;

    let started = Instant::now();
    let until = started + Duration::from_secs(seconds.into());
    let floods: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (address, key) = (address.clone(), ours.clone());
            tokio::spawn(async move { flood(&address, &key, rate, until).await })
        })
        .collect();
    let beside = times(&url, &theirs, until).await;
    let (mut accepted, mut refused) = (0, 0);
    for flood in floods {
        let (a, r) = flood.await.unwrap();
        accepted += a;
        refused += r;
    }
    let took = started.elapsed().as_secs_f64();
    println!(
        "{:.0} requests a second of one tenant for {took:.1} s, {accepted} of them accepted; the other's answers took {:?} (p50) \
         and {:?} (p99) beside it ({} of them), and {:?} and {:?} alone",
        f64::from(accepted + refused) / took,
        part(&beside, 50),
        part(&beside, 99),
        beside.len(),
        part(&alone, 50),
        part(&alone, 99),
    );
    // The burst, the rate and one block.
    assert!(f64::from(accepted) <= f64::from(ALLOWED) * (took + 1.0 + 0.25), "{accepted} were accepted in {took} s");
    assert!(refused > accepted, "{refused} were refused");
    assert!(part(&beside, 99) <= bar, "{:?}", part(&beside, 99));
}
