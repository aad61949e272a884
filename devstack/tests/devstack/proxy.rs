//! The proxy against a small echo server: each fault does what its name says and `restore` lifts it.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use polyglot_devstack::proxy::{Direction, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(10);

/// Sends back what it gets, and closes when its client does.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

async fn connected(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn round_trip(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
    stream.write_all(text).await?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await?;
    assert_eq!(back, text);
    Ok(())
}

#[tokio::test]
async fn forwards_and_counts_and_passes_the_end_on() {
    let proxy = Proxy::start(echo().await).unwrap();
    let mut stream = connected(&proxy).await;
    let text: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (mut from, mut to) = stream.split();
    let send = async {
        to.write_all(&text).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let ((), read) = tokio::join!(send, from.read_to_end(&mut back));
    assert_eq!(read.unwrap(), text.len());
    assert_eq!(back, text);
    assert_eq!(proxy.forwarded(Direction::ToServer), 1_000_000);
    assert_eq!(proxy.forwarded(Direction::ToClient), 1_000_000);
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn refuses_new_connections_and_keeps_the_old() {
    let proxy = Proxy::start(echo().await).unwrap();
    let mut old = connected(&proxy).await;
    round_trip(&mut old, b"one").await.unwrap();
    proxy.refuse_new().await;
    let error = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let error = TcpListener::bind(proxy.address()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "the port is kept for the proxy's return");
    round_trip(&mut old, b"two").await.unwrap();
    proxy.restore().await.unwrap();
    round_trip(&mut connected(&proxy).await, b"three").await.unwrap();
}

#[tokio::test]
async fn disconnects_open_connections_only() {
    let proxy = Proxy::start(echo().await).unwrap();
    let mut streams = [connected(&proxy).await, connected(&proxy).await];
    for stream in &mut streams {
        round_trip(stream, b"x").await.unwrap();
    }
    proxy.disconnect_all();
    for stream in &mut streams {
        let error = timeout(LONG, stream.read_u8()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    round_trip(&mut connected(&proxy).await, b"new").await.unwrap();
}

#[tokio::test]
async fn stalls_without_closing_and_continues() {
    let proxy = Proxy::start(echo().await).unwrap();
    let mut stream = connected(&proxy).await;
    round_trip(&mut stream, b"before").await.unwrap();
    proxy.stall();
    stream.write_all(b"held").await.unwrap();
    let mut back = [0; 4];
    assert!(timeout(SHORT, stream.read_exact(&mut back)).await.is_err(), "nothing may arrive");
    proxy.restore().await.unwrap();
    timeout(LONG, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"held");
}

#[tokio::test]
async fn stalls_one_direction_after_so_many_bytes() {
    let proxy = Proxy::start(echo().await).unwrap();
    let mut stream = connected(&proxy).await;
    round_trip(&mut stream, b"before").await.unwrap();
    proxy.stall_after(Direction::ToClient, 5);
    round_trip(&mut stream, b"12345").await.unwrap();
    stream.write_all(b"held").await.unwrap();
    let mut back = [0; 4];
    assert!(timeout(SHORT, stream.read_exact(&mut back)).await.is_err(), "nothing may arrive");
    assert_eq!((proxy.forwarded(Direction::ToServer), proxy.forwarded(Direction::ToClient)), (15, 11));
    proxy.restore().await.unwrap();
    timeout(LONG, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"held");
}

#[tokio::test]
async fn throttles() {
    let proxy = Proxy::start(echo().await).unwrap();
    proxy.throttle(20_000);
    let mut stream = connected(&proxy).await;
    let started = Instant::now();
    round_trip(&mut stream, &[7; 10_000]).await.unwrap();
    let took = started.elapsed();
    assert!(took > Duration::from_millis(400), "10 kB at 20 kB/s took {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn disconnects_all_after_so_many_bytes_once() {
    let proxy = Proxy::start(echo().await).unwrap();
    let mut bystander = connected(&proxy).await;
    round_trip(&mut bystander, b"x").await.unwrap();
    proxy.disconnect_after(Direction::ToClient, 1000);
    let mut stream = connected(&proxy).await;
    stream.write_all(&[1; 5000]).await.unwrap();
    let mut back = Vec::new();
    let error = timeout(LONG, stream.read_to_end(&mut back)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(back.len(), 1000);
    assert_eq!(proxy.forwarded(Direction::ToServer), 5001);
    assert!(timeout(LONG, bystander.read_u8()).await.unwrap().is_err());
    round_trip(&mut connected(&proxy).await, &[2; 5000]).await.unwrap();
}

#[tokio::test]
async fn an_unreachable_target_resets_the_connection() {
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = away.local_addr().unwrap().to_string();
    drop(away);
    let proxy = Proxy::start(target).unwrap();
    let mut stream = connected(&proxy).await;
    assert!(timeout(LONG, stream.read_u8()).await.unwrap().is_err());
}
