//! TLS of the api's own: requests, a certificate that is replaced, and what stays without TLS.

use std::io;
use std::path::Path;
use std::sync::Arc;

use polyglot_test_kit::{Setup, System, wait_until};
use polyglot_test_servers::needs_servers;
use rcgen::generate_simple_self_signed;
use reqwest::{Client, StatusCode};
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Writes a certificate for `localhost` and its key, and returns what a client has to trust.
fn write_pair(cert: &Path, key: &Path) -> CertificateDer<'static> {
    let pair = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(cert, pair.cert.pem()).unwrap();
    std::fs::write(key, pair.signing_key.serialize_pem()).unwrap();
    pair.cert.der().clone()
}

/// The whole answer to a GET, if the server's certificate is the trusted one.
async fn get(port: u16, path: &str, trusted: &CertificateDer<'static>) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn the_service_is_served_over_tls_and_its_certificate_replaced_without_a_restart() {
    needs_servers!();
    let mut system = System::without_worker(Setup::new(10, &[])).await;
    let (cert, key) = (system.file("cert.pem"), system.file("key.pem"));
    let old = write_pair(&cert, &key);
    let (port, metrics_port) = (polyglot_devstack::free_port().unwrap(), polyglot_devstack::free_port().unwrap());
    for (name, value) in [
        ("PORT", port.to_string().as_str()),
        ("API_METRICS_PORT", &metrics_port.to_string()),
        ("TLS_CERT_FILE", cert.to_str().unwrap()),
        ("TLS_KEY_FILE", key.to_str().unwrap()),
    ] {
        system.set(name, value);
    }
    system.start_api();
    wait_until("the api answers over TLS", async || {
        get(port, "/health/ready", &old).await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 OK"))
    })
    .await;
    let answer = get(port, "/datasets", &old).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"records\""), "{answer}");
    assert!(answer.contains("\r\nstrict-transport-security: max-age=31536000\r\n"), "{answer}");
    let plain = Client::new();
    assert!(plain.get(format!("http://127.0.0.1:{port}/health")).send().await.is_err());
    let metrics = plain.get(format!("http://127.0.0.1:{metrics_port}/metrics")).send().await.unwrap();
    assert_eq!(metrics.status(), StatusCode::OK);
    let refused = "polyglot_http_refused_total{reason=\"tls_handshake\"} ";
    let metrics = metrics.text().await.unwrap();
    let count = metrics.lines().find_map(|line| line.strip_prefix(refused)).unwrap_or_else(|| panic!("{metrics}"));
    assert_ne!(count, "0");
    // A key that is none: the pair before stays.
    let api = system.api.as_ref().unwrap();
    std::fs::write(&key, "no key").unwrap();
    api.signal(Signal::HUP);
    wait_until("the bad key is logged", async || api.log().contains("the ones before stay in use")).await;
    get(port, "/health", &old).await.unwrap();
    let new = write_pair(&cert, &key);
    api.signal(Signal::HUP);
    wait_until("the new certificate is served", async || get(port, "/health", &new).await.is_ok()).await;
    assert!(get(port, "/health", &old).await.is_err());
    assert!(api.log().contains("the TLS certificate was replaced"), "{}", api.log());
    // An api that is started with such a key says which variable is wrong.
    std::fs::write(&key, "no key").unwrap();
    system.start_api();
    let mut api = system.api.take().unwrap();
    assert_eq!(api.wait_for_exit().await.code(), Some(2));
    assert!(api.log().contains("TLS_KEY_FILE: ") && !api.log().contains("no key"), "{}", api.log());
}
