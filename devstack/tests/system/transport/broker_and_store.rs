//! RabbitMQ and the object store behind TLS, with an authority of one's own and, for the broker, a client certificate.

use polyglot_test_kit::{Setup, System};
use polyglot_test_servers::needs_servers;

use super::authority::Authority;
use super::front::Front;
use super::{outer_address, run, start_and_export};

/// Host and port of a URL.
fn target(url: &str) -> &str {
    url.split_once("://").unwrap().1.split('/').next().unwrap().rsplit('@').next().unwrap()
}

#[tokio::test]
async fn broker_and_store_are_verified_by_authorities_of_ones_own() {
    let servers = needs_servers!();
    let (authority, other, address) = (Authority::new(), Authority::new(), outer_address());
    let broker_tls = authority.server_config(&address, true);
    let broker = Front::start(target(&servers.amqp_url), Some(broker_tls)).await;
    let store = Front::start(target(&servers.s3_endpoint), Some(authority.server_config(&address, false))).await;
    // Of the same authority, for another name.
    let misnamed = |url| {
        let tls = authority.server_config("other.example.com", false);
        async move { Front::start(target(url), Some(tls)).await }
    };
    let (misnamed_broker, misnamed_store) = (misnamed(&servers.amqp_url).await, misnamed(&servers.s3_endpoint).await);
    let broker_url = |front: &Front| {
        let url = servers.amqp_url.replacen("amqp://", "amqps://", 1);
        url.replacen(target(&servers.amqp_url), &format!("{address}:{}", front.port), 1)
    };
    let store_url = |front: &Front| format!("https://{address}:{}", front.port);

    let mut system = System::without_worker(Setup::new(1000, &[])).await;
    let ca = authority.write(&system.file("ca.pem"));
    let other_ca = other.write(&system.file("other-ca.pem"));
    let (certificate, key) = authority.client("polyglot").write(system.files.path(), "client");
    let (stranger, strangers_key) = other.client("polyglot").write(system.files.path(), "stranger");
    let text = |path: &std::path::PathBuf| path.to_str().unwrap().to_owned();
    let good = [
        ("AMQP_URL", broker_url(&broker)),
        ("AMQP_CA_FILE", text(&ca)),
        ("AMQP_CERT_FILE", text(&certificate)),
        ("AMQP_KEY_FILE", text(&key)),
        ("S3_ENDPOINT", store_url(&store)),
        ("S3_CA_FILE", text(&ca)),
    ];
    for (name, value) in &good {
        system.set(name, value);
    }
    start_and_export(&mut system).await;
    system.wait_until_none("every message is sent", "SELECT count(*) FROM polyglot.outbox").await;
    assert!(broker.forwarded() >= 2 && store.forwarded() >= 2, "{} {}", broker.forwarded(), store.forwarded());

    for (what, changes, part) in [
        ("the system's authorities alone", vec![("AMQP_CA_FILE", String::new())], "AMQP_URL"),
        ("another authority", vec![("AMQP_CA_FILE", text(&other_ca))], "AMQP_URL"),
        ("another name", vec![("AMQP_URL", broker_url(&misnamed_broker))], "AMQP_URL"),
        (
            "no client certificate",
            vec![("AMQP_CERT_FILE", String::new()), ("AMQP_KEY_FILE", String::new())],
            "AMQP_URL",
        ),
        (
            "a client certificate of another authority",
            vec![("AMQP_CERT_FILE", text(&stranger)), ("AMQP_KEY_FILE", text(&strangers_key))],
            "AMQP_URL",
        ),
        ("the system's authorities alone", vec![("S3_CA_FILE", String::new())], "bucket"),
        ("another authority", vec![("S3_CA_FILE", text(&other_ca))], "bucket"),
        ("another name", vec![("S3_ENDPOINT", store_url(&misnamed_store))], "bucket"),
    ] {
        let before = broker.forwarded();
        for (name, value) in &changes {
            system.set(name, value);
        }
        let (code, output) = run(&system, "polyglot-api", &["check"]).await;
        assert_eq!(code, Some(1), "{part}, {what}: {output}");
        let missing = output.lines().filter(|line| line.contains("AMQP_URL: ") || line.contains("cannot be used: "));
        let missing: Vec<&str> = missing.collect();
        assert!(missing.len() == 1 && missing[0].contains(part), "{part}, {what}: {output}");
        assert!(!output.contains("PRIVATE"), "{output}");
        // Nothing gets through to a broker that is not verified. The running processes use the store meanwhile.
        assert!(part == "bucket" || before == broker.forwarded(), "{part}, {what}");
        for (name, value) in &good {
            system.set(name, value);
        }
    }
    let (code, output) = run(&system, "polyglot-api", &["check"]).await;
    assert_eq!(code, Some(0), "{output}");

    // Files that cannot be used are named before anything is connected.
    for (name, path) in
        [("AMQP_CA_FILE", text(&key)), ("S3_CA_FILE", text(&key)), ("AMQP_KEY_FILE", text(&strangers_key))]
    {
        system.set(name, &path);
        let (code, output) = run(&system, "polyglot-worker", &[]).await;
        assert!(code == Some(2) && output.contains(&format!("{name}: ")), "{output}");
        for (name, value) in &good {
            system.set(name, value);
        }
    }
}
