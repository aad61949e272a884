//! The server over real sockets: each limit and its answer.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::quota::QuotaLimits;

/// A time that passes only when something is broken.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) lifecycle: Lifecycle,
}

impl Server {
    /// A server that answers `/N` with N bytes.
    fn start(limits: HttpLimits) -> Self {
        Self::start_with(limits, None)
    }

    pub(super) fn start_with(limits: HttpLimits, tls: Option<Arc<TlsCertificate>>) -> Self {
        let listener = HttpServer::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let (address, lifecycle) = (listener.local_addr().unwrap(), Lifecycle::default());
        let service = service_fn(|request: Request<Incoming>| {
            let size = request.uri().path()[1..].parse().unwrap_or(2);
            async move { Ok::<_, Infallible>(Response::new(Full::from(Bytes::from(vec![b'x'; size])))) }
        });
        let serving = lifecycle.clone();
        let server = HttpServer::new(limits).with_tls(tls);
        tokio::spawn(async move { server.serve(listener, service, &serving, PATIENCE).await });
        Self { address, lifecycle }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Connects and sends `text`.
    async fn send(&self, text: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lifecycle.stopping.cancel();
    }
}

/// Everything until the server closes the connection.
pub(super) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes the connection").unwrap();
    String::from_utf8(bytes).unwrap()
}

/// What arrives first.
pub(super) async fn first(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = [0; 4096];
    let read = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("the server answers").unwrap();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

pub(super) fn limits() -> HttpLimits {
    HttpLimits::default()
}

pub(super) const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn connections_over_the_limit_are_answered_and_closed() {
    for (total, per_peer, status) in [(2, 2, "429"), (2, 9, "503")] {
        let server = Server::start(HttpLimits { connections: QuotaLimits { total, per_peer }, ..limits() });
        let mut open = [server.send(GET).await, server.send(GET).await];
        for stream in &mut open {
            assert!(first(stream).await.starts_with("HTTP/1.1 200 OK"));
        }
        let refused = rest(&mut server.send(GET).await).await;
        assert!(refused.starts_with(&format!("HTTP/1.1 {status} ")), "{refused}");
        assert!(refused.contains("retry-after: ") && refused.contains("too-many-connections"), "{refused}");
        // One that sends nothing is answered as well.
        let refused = rest(&mut server.connect().await).await;
        assert!(refused.starts_with(&format!("HTTP/1.1 {status} ")), "{refused}");
        // A connection that is closed leaves its turn to another one.
        drop(open);
        let again = async {
            while !first(&mut server.send(GET).await).await.starts_with("HTTP/1.1 200 OK") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, again).await.expect("a closed connection is given back");
    }
}

#[tokio::test]
async fn a_large_head_is_refused() {
    let server = Server::start(limits());
    let fits = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(12 << 10));
    assert!(first(&mut server.send(&fits).await).await.starts_with("HTTP/1.1 200 OK"));
    let large = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(200 << 10));
    let mut stream = server.connect().await;
    let (mut reading, mut writing) = stream.split();
    // The server does not take all of it.
    let mut answer = Vec::new();
    let (_, read) = tokio::join!(writing.write_all(large.as_bytes()), timeout(PATIENCE, reading.read_buf(&mut answer)));
    read.expect("the server answers").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_slow_head_is_refused_and_an_idle_connection_is_closed() {
    let (head_timeout, idle_timeout) = (Duration::from_millis(300), Duration::from_millis(600));
    let server = Server::start(HttpLimits { head_timeout, idle_timeout, ..limits() });
    for begun in ["", "GET / HT"] {
        let answer = rest(&mut server.send(begun).await).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("head-too-slow"), "{answer}");
    }
    // More of it every now and then does not help.
    let mut stream = server.connect().await;
    let (mut reading, mut writing) = stream.split();
    let drip = async {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = drip => panic!("the connection failed before its answer"),
        read = timeout(PATIENCE, reading.read_buf(&mut answer)) => { read.expect("the server answers").unwrap(); }
    }
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    let mut idle = server.send(GET).await;
    assert!(first(&mut idle).await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(rest(&mut idle).await, "");
    // After a first request the head of the next one has its own time.
    let mut second = server.send(GET).await;
    assert!(first(&mut second).await.starts_with("HTTP/1.1 200 OK"));
    second.write_all(b"GET /").await.unwrap();
    let answer = rest(&mut second).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_cut_off() {
    let server = Server::start(HttpLimits {
        write_timeout: Duration::from_millis(500),
        response_bytes: QuotaLimits { total: 64 << 20, per_peer: 64 << 20 },
        ..limits()
    });
    let request = "GET /33554432 HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut unread = server.send(request).await;
    // The server resets the connection, which shows only to a client that uses it.
    let cut_off = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if let Err(error) = unread.write_all(b"x").await {
                return error;
            }
        }
    };
    let error = timeout(PATIENCE, cut_off).await.expect("the server closes the connection");
    assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{error}");
    // A client that reads slower than the server sends gets all of it, in more time than the limit.
    let mut read = server.send(request).await;
    let (mut bytes, mut buffer) = (0, vec![0; 1 << 20]);
    let mut pauses = 0;
    while bytes < 32 << 20 {
        let count = timeout(PATIENCE, read.read(&mut buffer)).await.expect("the server sends").unwrap();
        assert!(count > 0, "the answer ended after {bytes} bytes");
        bytes += count;
        if bytes >> 22 > pauses {
            pauses = bytes >> 22;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn answers_that_are_not_read_are_limited_together() {
    let server =
        Server::start(HttpLimits { response_bytes: QuotaLimits { total: 3 << 20, per_peer: 2 << 20 }, ..limits() });
    let large = "GET /1500000 HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut unread = server.send(large).await;
    assert!(first(&mut unread).await.starts_with("HTTP/1.1 200 OK"));
    let refused = rest(&mut server.send(large).await).await;
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("too-many-unread-answers"), "{refused}");
    // A short answer takes no part in it.
    assert!(first(&mut server.send(GET).await).await.starts_with("HTTP/1.1 200 OK"));
    drop(unread);
    let again = async {
        while !first(&mut server.send(large).await).await.starts_with("HTTP/1.1 200 OK") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the memory of an answer is given back");
}

#[tokio::test]
async fn a_large_answer_is_whole() {
    let server = Server::start(limits());
    for size in [0, 1, 16 << 10, (32 << 10) + 1, 1_000_000] {
        let request = format!("GET /{size} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = rest(&mut server.send(&request).await).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {size}")), "{head}");
        assert_eq!(body.len(), size);
    }
}
