//! Who may reach the api: its listeners, the hosts that it answers for, pages of other origins, and the benchmark.

use polyglot_test_kit::{Setup, System, wait_until};
use polyglot_test_servers::needs_servers;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn api(env: &[(&str, &str)]) -> System {
    System::without_worker(Setup::new(10, env)).await
}

async fn kind_of_problem(answer: Response) -> String {
    let problem: Value = answer.json().await.unwrap();
    problem["type"].as_str().unwrap_or_else(|| panic!("{problem:#}")).to_owned()
}

#[tokio::test]
async fn metrics_and_the_service_have_listeners_of_their_own() {
    needs_servers!();
    let metrics_port = polyglot_devstack::free_port().unwrap().to_string();
    // An address that is neither the usual one nor every one.
    let mut system = api(&[]).await;
    let port = polyglot_devstack::free_port().unwrap().to_string();
    for (name, value) in [
        ("LISTEN", "127.0.0.2"),
        ("PORT", port.as_str()),
        ("API_METRICS_PORT", &metrics_port),
        ("ALLOWED_HOSTS", "export.example.com"),
    ] {
        system.set(name, value);
    }
    system.start_api();
    let (service, metrics) = (format!("http://127.0.0.2:{port}"), format!("http://127.0.0.2:{metrics_port}"));
    let http = Client::new();
    wait_until("the api listens on its address", async || {
        http.get(format!("{service}/health")).send().await.is_ok_and(|answer| answer.status() == StatusCode::OK)
    })
    .await;
    let scrape = http.get(format!("{metrics}/metrics")).send().await.unwrap();
    assert_eq!(scrape.status(), StatusCode::OK);
    assert!(scrape.text().await.unwrap().contains("polyglot_http_requests_total"));
    assert_eq!(http.get(format!("{metrics}/exports")).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let get = |path: &str, host: &str| http.get(format!("{service}{path}")).header("Host", host).send();
    assert_eq!(get("/metrics", "export.example.com").await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(get("/exports", "export.example.com:8443").await.unwrap().status(), StatusCode::OK);
    let refused = get("/exports", &format!("127.0.0.2:{port}")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(kind_of_problem(refused).await, "urn:polyglot:problem:host-not-allowed");
    // Nothing listens on the other addresses of this machine.
    assert!(http.get(format!("http://127.0.0.1:{port}/health")).send().await.is_err());
    assert!(http.get(format!("http://127.0.0.1:{metrics_port}/metrics")).send().await.is_err());
    // A request of HTTP/1.0 may have no host, as that of a simple health check.
    for (path, status) in [("/health", "200"), ("/exports", "421")] {
        let mut stream = TcpStream::connect(format!("127.0.0.2:{port}")).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
    }
}

#[tokio::test]
async fn an_address_that_the_machine_does_not_have_is_named() {
    needs_servers!();
    let mut system = api(&[]).await;
    // Of the block for documentation, so no machine has it.
    system.set("LISTEN", "192.0.2.1");
    system.set("AUTH", "on");
    system.start_api();
    let mut api = system.api.take().unwrap();
    assert_eq!(api.wait_for_exit().await.code(), Some(1));
    assert!(api.log().contains("LISTEN: 192.0.2.1:"), "{}", api.log());
}

#[tokio::test]
async fn pages_of_listed_origins_may_submit() {
    needs_servers!();
    let system = api(&[("CORS_ORIGINS", "https://app.example.com")]).await;
    let preflight = system
        .request(Method::OPTIONS, "/exports")
        .header("Origin", "https://app.example.com")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization,content-type,idempotency-key");
    let preflight = preflight.send().await.unwrap();
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    assert_eq!(preflight.headers()["access-control-allow-origin"], "https://app.example.com");
    assert!(preflight.headers()["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
    let body = polyglot_test_kit::sample_request("csv", None);
    let submit = |origin: &str| system.request(Method::POST, "/exports").header("Origin", origin).json(&body).send();
    let ours = submit("https://app.example.com").await.unwrap();
    assert_eq!(ours.status(), StatusCode::CREATED);
    assert_eq!(ours.headers()["access-control-allow-origin"], "https://app.example.com");
    assert!(ours.headers()["access-control-expose-headers"].to_str().unwrap().contains("location"));
    let other = submit("https://evil.example.com").await.unwrap();
    assert_eq!(other.status(), StatusCode::FORBIDDEN);
    assert!(!other.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_benchmark_runs_where_it_is_on_and_not_for_other_sites() {
    needs_servers!();
    const PATH: &str = "/exports/benchmark?rows=5&formats=csv";
    let mut system = System::with_rows(10).await;
    let cross_site = system.request(Method::GET, PATH).header("Sec-Fetch-Site", "cross-site").send().await.unwrap();
    assert_eq!(cross_site.status(), StatusCode::FORBIDDEN);
    assert_eq!(kind_of_problem(cross_site).await, "urn:polyglot:problem:cross-site");
    assert_eq!(system.count("SELECT count(*) FROM polyglot.exports").await, 0);
    let own = system.request(Method::GET, PATH).header("Sec-Fetch-Site", "same-origin").send().await.unwrap();
    assert_eq!(own.status(), StatusCode::OK, "{:?}", own.text().await);
    system.set("BENCHMARK", "off");
    system.api = None;
    system.start_api();
    system.wait_until_ready().await;
    let off = system.get(PATH).await;
    assert_eq!(off.status(), StatusCode::FORBIDDEN);
    assert_eq!(kind_of_problem(off).await, "urn:polyglot:problem:benchmark-off");
}
