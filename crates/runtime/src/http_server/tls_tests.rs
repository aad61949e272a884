//! The server over TLS: requests, a certificate that is replaced, and clients that do not get through their handshake.

use std::io::Result;
use std::path::Path;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tests::{GET, PATIENCE, Server, first, limits, rest};
use super::*;
use crate::quota::QuotaLimits;
use crate::tls::tests::{from_folder, write_pair};

fn client(trusted: &CertificateDer<'static>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Connects with TLS and trusts `trusted` alone.
async fn connect(server: &Server, trusted: &CertificateDer<'static>) -> Result<TlsStream<TcpStream>> {
    connect_as(server, client(trusted, rustls::ALL_VERSIONS)).await
}

async fn connect_as(server: &Server, config: ClientConfig) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, server.connect().await).await
}

fn start(folder: &Path, limits: HttpLimits) -> (Server, Arc<TlsCertificate>) {
    let certificate = from_folder(folder).unwrap().unwrap();
    (Server::start_with(limits, Some(Arc::clone(&certificate))), certificate)
}

#[tokio::test]
async fn requests_are_answered_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = write_pair(folder.path());
    let (server, _) = start(folder.path(), limits());
    for (version, name) in
        [(&rustls::version::TLS13, ProtocolVersion::TLSv1_3), (&rustls::version::TLS12, ProtocolVersion::TLSv1_2)]
    {
        let mut config = client(&trusted, &[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut stream = connect_as(&server, config).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(name));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        // Two requests on one connection, the second larger than every buffer.
        stream.write_all(GET.as_bytes()).await.unwrap();
        assert!(first(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
        stream.write_all(b"GET /1000000 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        // The end of the stream is announced: nobody can cut an answer off unseen.
        let answer = rest(&mut stream).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-length: 1000000") && body.len() == 1_000_000, "{head}");
    }
    // A client that speaks something else.
    let mut config = client(&trusted, rustls::ALL_VERSIONS);
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert!(connect_as(&server, config).await.is_err());
}

#[tokio::test]
async fn a_replaced_certificate_serves_new_connections_and_old_ones_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let old = write_pair(folder.path());
    let (server, certificate) = start(folder.path(), limits());
    tokio::spawn(certificate.reload_on_change(server.lifecycle.stopping.clone()));
    let mut open = connect(&server, &old).await.unwrap();
    open.write_all(GET.as_bytes()).await.unwrap();
    assert!(first(&mut open).await.starts_with("HTTP/1.1 200 OK"));
    // What is no key is refused, and the old pair goes on.
    std::fs::write(folder.path().join("key.pem"), "x").unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    connect(&server, &old).await.unwrap();
    let new = write_pair(folder.path());
    let replaced = async {
        while connect(&server, &new).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, replaced).await.expect("the new certificate is served");
    assert!(connect(&server, &old).await.is_err());
    open.write_all(GET.as_bytes()).await.unwrap();
    assert!(first(&mut open).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn stalled_handshakes_are_cut_off_and_count_as_connections() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = write_pair(folder.path());
    let handshake_timeout = Duration::from_secs(1);
    let connections = QuotaLimits { total: 3, per_peer: 2 };
    let (server, _) = start(folder.path(), HttpLimits { connections, handshake_timeout, ..limits() });
    // Two that never begin or end their handshake have all that one client may have: others are closed at once.
    let (mut silent, mut begun) = (server.connect().await, server.connect().await);
    begun.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let refused = timeout(Duration::from_millis(500), connect(&server, &trusted)).await;
    assert!(refused.expect("a connection over the limit is closed at once").is_err());
    // More bytes give no more time.
    let drip = async {
        while begun.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(5), drip).await.expect("a handshake that drips is cut off");
    let mut bytes = Vec::new();
    // Closed or reset; it says nothing that is not TLS.
    let _ = timeout(PATIENCE, silent.read_to_end(&mut bytes)).await.expect("the server closes the connection");
    assert!(bytes.is_empty(), "{bytes:?}");
    let mut stream = connect(&server, &trusted).await.unwrap();
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert!(first(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn http_without_tls_is_closed_without_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path());
    let (server, _) = start(folder.path(), limits());
    let mut stream = server.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes the connection");
    // An alert of TLS at most.
    assert!(bytes.len() < 8 && !bytes.starts_with(b"HTTP"), "{bytes:?}");
}

#[tokio::test]
async fn a_slow_head_is_answered_over_tls_and_an_unread_answer_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = write_pair(folder.path());
    let response_bytes = QuotaLimits { total: 64 << 20, per_peer: 64 << 20 };
    let (server, _) = start(
        folder.path(),
        HttpLimits {
            head_timeout: Duration::from_millis(500),
            write_timeout: Duration::from_millis(500),
            response_bytes,
            ..limits()
        },
    );
    let mut slow = connect(&server, &trusted).await.unwrap();
    slow.write_all(b"GET / HT").await.unwrap();
    let answer = rest(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("head-too-slow"), "{answer}");
    let mut unread = connect(&server, &trusted).await.unwrap();
    unread.write_all(b"GET /33554432 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let cut_off = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let written = unread.write_all(b"x").await;
            if written.is_err() || unread.flush().await.is_err() {
                return;
            }
        }
    };
    timeout(PATIENCE, cut_off).await.expect("the server closes the connection");
}
