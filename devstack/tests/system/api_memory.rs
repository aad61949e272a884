//! The api's memory: the real binary under the kernel's limit of 256 MB, swap included, and clients that send too much, too
//! slowly, or do not read. After each of them the same process still answers, and a client at a limit has been told so.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use polyglot_devstack::memory_limit::{MemoryLimit, PeakMemory};
use polyglot_test_kit::{Setup, System, binary, sample_request, wait_until_within};
use polyglot_test_servers::needs_servers;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const LIMIT: u64 = 256 << 20;

/// Clients with addresses of their own, so that the one that asks for the health is not at their limit.
const PEERS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];

/// Time in which the api answers anything, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(40);

/// An api in its limit. The fields are dropped in this order: the limit can be removed when the process has ended.
struct LimitedApi {
    system: System,
    address: SocketAddr,
    pid: u32,
    peak: PeakMemory,
    limit: MemoryLimit,
}

impl LimitedApi {
    /// The api over `rows` rows; `None`, with a line that says why, where the kernel does not let a test limit memory.
    async fn start(rows: u64) -> Option<Self> {
        let limit = match MemoryLimit::new(LIMIT) {
            Ok(limit) => limit,
            Err(error) => {
                eprintln!("skipped: the api's memory cannot be limited: {error}");
                return None;
            }
        };
        let mut system = System::without_worker(Setup::new(rows, &[("AUTH", "off-on-any-address")])).await;
        system.api = None;
        system.start_api_as(limit.command(binary("polyglot-api")));
        system.wait_until_ready().await;
        let pid = system.api.as_ref().unwrap().child.id();
        let address = system.url("").strip_prefix("http://").unwrap().parse().unwrap();
        Some(Self { system, address, pid, peak: PeakMemory::watch(pid), limit })
    }

    /// Connects from the address `peer`, with a small buffer for answers, and sends `bytes`.
    async fn send(&self, peer: Ipv4Addr, bytes: &[u8]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind((peer, 0).into()).unwrap();
        let mut stream = timeout(PATIENCE, socket.connect(self.address)).await.expect("the api accepts").unwrap();
        // The api may answer and close before it has read everything.
        let _ = stream.write_all(bytes).await;
        stream
    }

    /// Connects `count` clients of all peers in turn, each of which sends `bytes`.
    async fn send_from_all(&self, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
        join_all((0..count).map(|client| self.send(PEERS[client % PEERS.len()], bytes))).await
    }

    /// The same process still answers.
    async fn is_alive(&mut self, after: &str) {
        wait_until_within(Duration::from_secs(10), &format!("/health is answered after {after}"), async || {
            let answer = self.system.request(Method::GET, "/health").timeout(Duration::from_secs(5)).send().await;
            matches!(answer, Ok(answer) if answer.status() == StatusCode::OK).then_some(())
        })
        .await;
        let api = self.system.api.as_mut().unwrap();
        assert_eq!(api.child.try_wait().unwrap(), None, "the api has ended after {after}");
        assert_eq!((api.child.id(), self.limit.oom_kills().unwrap()), (self.pid, 0), "{after}");
        let (process, all) = (self.peak.bytes() >> 20, self.limit.peak_with_page_cache().unwrap() >> 20);
        println!("{after}: peak so far {process} MiB, with page cache and buffers of the kernel {all} MiB");
    }
}

/// The head of an answer, up to the first empty line. More of the answer may have been read.
async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = async {
        let mut piece = [0; 512];
        while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read(&mut piece).await {
                Ok(read) if read > 0 => bytes.extend_from_slice(&piece[..read]),
                ended => panic!("the connection ended without an answer ({ended:?})"),
            }
        }
    };
    timeout(PATIENCE, read).await.expect("the api answers");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How many of the answers have each status.
async fn statuses(streams: &mut [TcpStream]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for status in join_all(streams.iter_mut().map(status)).await {
        *counts.entry(status).or_default() += 1;
    }
    counts
}

/// The status of an answer. One above a limit says when to try again.
async fn status(stream: &mut TcpStream) -> u16 {
    let head = head(stream).await;
    let status = head.split(' ').nth(1).unwrap_or_else(|| panic!("{head}")).parse().unwrap();
    if [408, 429, 503].contains(&status) && !head.contains("body-too-slow") {
        assert!(head.to_ascii_lowercase().contains("\r\nretry-after: "), "{head}");
    }
    status
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes()
}

fn post_head(length: usize) -> String {
    format!("POST /exports HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n")
}

#[tokio::test]
async fn large_and_nested_bodies() {
    needs_servers!();
    let Some(mut api) = LimitedApi::start(10).await else { return };
    for size in [256 << 10, 1 << 20] {
        let filled = |item: &str, before: &str, after: &str| {
            let items = (size - before.len() - after.len()) / item.len();
            let padding = size - before.len() - after.len() - items * item.len();
            format!("{before}{}{}{after}", item.repeat(items), " ".repeat(padding))
        };
        let bodies = [
            ("nested arrays", "[".repeat(size / 2) + &"]".repeat(size / 2)),
            ("an array of arrays", filled("[],", "[", "[]]")),
            ("an array of objects", filled("{},", "{\"columns\":[", "{}]}")),
            ("an array of numbers", filled("1,", "[", "1]")),
            ("one string", filled("x", "\"", "\"")),
        ];
        for (what, body) in bodies {
            let request = post_head(body.len()) + &body;
            let mut streams = api.send_from_all(60, request.as_bytes()).await;
            let answered = statuses(&mut streams).await;
            println!("{what} of {size} bytes: {answered:?}");
            assert!(answered.keys().all(|status| [400, 413, 429, 503].contains(status)), "{what}: {answered:?}");
            api.is_alive(what).await;
        }
    }
}

#[tokio::test]
async fn slow_and_large_heads_and_slow_bodies() {
    needs_servers!();
    let Some(mut api) = LimitedApi::start(10).await else { return };
    let large = [get("/health")[..].strip_suffix(b"\r\n").unwrap(), b"x: ", &vec![b'x'; 64 << 10]].concat();
    let answered = statuses(&mut api.send_from_all(400, &large).await).await;
    assert_eq!(answered, BTreeMap::from([(431, 400)]));
    api.is_alive("large heads").await;
    // All that a head may have but its end, and most of a body.
    let mut heads = api.send_from_all(400, &large[..15 << 10]).await;
    let body = post_head(200 << 10) + &" ".repeat(150 << 10);
    let mut bodies = api.send_from_all(200, body.as_bytes()).await;
    api.is_alive("slow heads and bodies that are under way").await;
    let (heads, bodies) = tokio::join!(statuses(&mut heads), statuses(&mut bodies));
    println!("slow bodies: {bodies:?}");
    assert_eq!(heads, BTreeMap::from([(408, 400)]));
    assert!(bodies.keys().all(|status| [408, 429, 503].contains(status)), "{bodies:?}");
    api.is_alive("slow heads and bodies").await;
}

#[tokio::test]
async fn files_and_lists_that_nobody_reads() {
    needs_servers!();
    let Some(mut api) = LimitedApi::start(100_000).await else { return };
    api.system.add_worker();
    let id = api.system.submit("csv", None).await;
    let state = api.system.wait_until_completed(&id).await;
    assert!(state["progress"]["bytes"].as_i64().unwrap() > 16 << 20, "{state:#}");
    let download = get(&format!("/exports/{id}/download?delivery=proxy"));
    let (mut files, mut refused) = (Vec::new(), 0);
    for mut stream in api.send_from_all(1000, &download).await {
        match status(&mut stream).await {
            200 => files.push(stream),
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!((files.len(), refused), (64, 936));
    api.is_alive("files that nobody reads").await;
    // Those that were refused have gone, and others come for long lists.
    copy_exports(&api.system, 500).await;
    // The list says why an export failed, which makes it longer than the kernel's buffers.
    sqlx::query("UPDATE polyglot.exports SET state = 'failed', error = repeat('x', 2000) WHERE id <> $1::uuid")
        .bind(&id)
        .execute(&api.system.pool)
        .await
        .unwrap();
    let mut lists = api.send_from_all(800, &get("/exports?limit=200")).await;
    let answered = statuses(&mut lists).await;
    println!("lists: {answered:?}");
    assert!(answered.keys().all(|status| [200, 429, 503].contains(status)), "{answered:?}");
    // The others are refused: their address has too much unread, or the ledger's connections are busy.
    let refused: usize = [429, 503].iter().filter_map(|status| answered.get(status)).sum();
    assert!(answered[&200] > 10 && refused > 10, "{answered:?}");
    api.is_alive("lists that nobody reads").await;
    // Nobody has read for half a minute: the api closes the connections, and others get the file.
    wait_until_within(Duration::from_secs(90), "unread answers are cut off", async || {
        let scrape = api.system.get("/metrics").await.text().await.unwrap();
        let line =
            scrape.lines().find_map(|line| line.strip_prefix("polyglot_http_refused_total{reason=\"unread_answer\"} "));
        let cut_off: usize = line.unwrap().parse().unwrap();
        let unread = 64 + answered[&200];
        if cut_off == unread { Ok(()) } else { Err(format!("{cut_off} of {unread} are cut off")) }
    })
    .await;
    let again = api.send(PEERS[0], &download).await;
    assert_eq!(statuses(&mut [again]).await, BTreeMap::from([(200, 1)]));
    api.is_alive("unread answers were cut off").await;
}

#[tokio::test]
async fn a_list_of_many_large_requests() {
    needs_servers!();
    let Some(mut api) = LimitedApi::start(10).await else { return };
    // The largest request that is stored has 64 KiB.
    let mut request = sample_request("csv", None);
    let column = request["columns"][0].clone();
    request["columns"] = (0..250)
        .map(|number| {
            let mut column = column.clone();
            column["target"] = format!("{number:0>200}").into();
            column
        })
        .collect();
    let id = api.system.submit_request(&request).await;
    api.system.delete(&id).await;
    copy_exports(&api.system, 9_999).await;
    let stored = api.system.count("SELECT max(length(request::text))::bigint FROM polyglot.exports").await;
    assert!(stored > 50_000, "{stored}");
    let (mut seen, mut next) = (0, Some("/exports?limit=200".to_owned()));
    while let Some(path) = next {
        let page: Value = api.system.get(&path).await.json().await.unwrap();
        seen += page["exports"].as_array().unwrap().len();
        next = page["nextCursor"].as_str().map(|cursor| format!("/exports?limit=200&cursor={cursor}"));
    }
    assert_eq!(seen, 10_000);
    api.is_alive("a list, page by page").await;
    let mut lists = api.send_from_all(400, &get("/exports?limit=200")).await;
    let answered = statuses(&mut lists).await;
    println!("lists: {answered:?}");
    assert!(answered.keys().all(|status| [200, 429, 503].contains(status)), "{answered:?}");
    api.is_alive("many lists at once").await;
}

#[tokio::test]
async fn a_thousand_streams_of_events() {
    needs_servers!();
    let Some(mut api) = LimitedApi::start(10).await else { return };
    let mut streams = api.send_from_all(1000, &get("/events")).await;
    let answered = statuses(&mut streams).await;
    println!("streams: {answered:?}");
    assert_eq!(answered, BTreeMap::from([(200, 512), (429, 488)]));
    api.is_alive("a thousand streams").await;
    // What happens is told to all of them, whether they read or not.
    for _ in 0..20 {
        let id = api.system.submit("csv", None).await;
        api.system.delete(&id).await;
    }
    api.is_alive("events that nobody reads").await;
    drop(streams);
    wait_until_within(PATIENCE, "streams that are closed are given back", async || {
        let mut stream = [api.send(PEERS[0], &get("/events")).await];
        statuses(&mut stream).await.contains_key(&200).then_some(())
    })
    .await;
    // More connections than there may be: those above the limit are answered as well.
    let mut connections = api.send_from_all(1500, &get("/health")).await;
    let answered = statuses(&mut connections).await;
    println!("connections: {answered:?}");
    assert_eq!(answered.values().sum::<usize>(), 1500);
    assert!(answered.keys().all(|status| [200, 429, 503].contains(status)), "{answered:?}");
    assert!(answered[&200] > 900, "{answered:?}");
    drop(connections);
    api.is_alive("too many connections").await;
}

/// Adds `count` copies of the one export in the ledger, each with an id of its own.
async fn copy_exports(system: &System, count: u32) {
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT quote_ident(column_name) FROM information_schema.columns
         WHERE table_schema = 'polyglot' AND table_name = 'exports' AND column_name <> 'id' AND is_generated = 'NEVER'",
    )
    .fetch_all(&system.pool)
    .await
    .unwrap();
    let columns = columns.join(", ");
    let sql = format!(
        "INSERT INTO polyglot.exports (id, {columns})
         SELECT gen_random_uuid(), {columns} FROM (SELECT * FROM polyglot.exports LIMIT 1) e, generate_series(1, {count})"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&system.pool).await.unwrap();
}
