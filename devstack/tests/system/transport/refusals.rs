//! Addresses that are refused at the start, by every program and before anything is sent.

use polyglot_test_kit::{Setup, System, sample_request};
use polyglot_test_servers::needs_servers;

use super::{front::Front, outer_address, run};

#[tokio::test]
async fn a_connection_to_another_machine_that_is_not_verified_is_refused_at_the_start() {
    needs_servers!();
    let mut system = System::without_worker(Setup::new(0, &[])).await;
    let good = system.database_url.clone();
    for (name, value, found, usual) in [
        ("DATABASE_URL", "postgres://u:hunter2@db.internal/x?sslmode=disable", "sslmode=disable", good.as_str()),
        ("DATABASE_URL", "postgres://u:hunter2@db.internal/x?sslmode=require", "sslmode=require", &good),
        ("SOURCE_DATABASE_URL", "postgres://u:hunter2@10.1.2.3/x?sslmode=verify-ca", "sslmode=verify-ca", &good),
        ("AMQP_URL", "amqp://u:hunter2@rabbit.internal:5672/%2f", "amqp", ""),
        ("S3_ENDPOINT", "http://store.internal:9000", "http", "http://127.0.0.1:1"),
        ("S3_PUBLIC_ENDPOINT", "http://store.example.com", "http", "http://127.0.0.1:1"),
    ] {
        system.set(name, value);
        for (program, arguments, code) in [
            ("polyglot-api", &[][..], 2),
            ("polyglot-api", &["check"], 2),
            ("polyglot-api", &["keys", "list"], 1),
            ("polyglot-worker", &[], 2),
            ("polyglot-worker", &["dead-letters"], 1),
        ] {
            let (ended, output) = run(&system, program, arguments).await;
            assert_eq!(ended, Some(code), "{program} {arguments:?} with {name}: {output}");
            let words = [&format!("{name}: connections to "), found, "PLAINTEXT_HOSTS"];
            assert!(words.iter().all(|words| output.contains(*words)), "{output}");
            assert!(!output.contains("hunter2"), "{output}");
        }
        system.set(name, usual);
    }
}

#[tokio::test]
async fn a_host_that_is_named_may_be_reached_without_tls() {
    let servers = needs_servers!();
    let address = outer_address();
    let mut system = System::without_worker(Setup::new(10, &[])).await;
    let mut fronts = Vec::new();
    for (name, url) in [
        ("DATABASE_URL", system.database_url.clone()),
        ("AMQP_URL", servers.amqp_url.clone()),
        ("S3_ENDPOINT", servers.s3_endpoint.clone()),
    ] {
        let authority = url.split_once("://").unwrap().1.split('/').next().unwrap();
        let target = authority.rsplit('@').next().unwrap();
        let front = Front::start(target, None).await;
        system.set(name, &url.replacen(target, &format!("{address}:{}", front.port), 1));
        fronts.push(front);
    }
    // PostgreSQL's address has no mode, so verification would be demanded, which the server of the tests has not.
    let (code, output) = run(&system, "polyglot-api", &["check"]).await;
    assert_eq!(code, Some(2), "{output}");
    system.set("PLAINTEXT_HOSTS", &address);
    system.start_api();
    system.wait_until_ready().await;
    system.add_worker();
    let id = system.submit_request(&sample_request("csv", None)).await;
    system.wait_until_completed(&id).await;
}
