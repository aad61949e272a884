//! The limit of requests a second: one api, two apis that agree, and the ledger away.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use polyglot_devstack::Proxy;

use super::*;

/// What needs an identity and nothing else.
const PATH: &str = "/docs/";

async fn ask(http: &Client, url: &str, key: &str) -> Response {
    http.get(format!("{url}{PATH}")).bearer_auth(key).send().await.unwrap()
}

fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|value| value.to_str().unwrap())
}

/// Asks the apis as fast as two tasks for each can, and returns how many requests were accepted, and in how many seconds.
async fn accepted_of_all(urls: &[&str], key: &str, time: Duration) -> (u32, f64) {
    let (accepted, started) = (AtomicU32::new(0), Instant::now());
    let tasks = urls.iter().chain(urls).map(async |url| {
        let http = Client::new();
        while started.elapsed() < time {
            let answer = ask(&http, url, key).await;
            if answer.status() == StatusCode::OK {
                accepted.fetch_add(1, Ordering::Relaxed);
            } else {
                refused(answer).await;
            }
        }
    });
    futures_util::future::join_all(tasks).await;
    (accepted.into_inner(), started.elapsed().as_secs_f64())
}

#[tokio::test]
async fn requests_over_the_rate_are_refused_and_told_when_to_come_back() {
    needs_servers!();
    let (system, ours, theirs) = limited(1, "[tenants.acme]\nrequests_per_second = 2\nrequest_burst = 6", &[]).await;
    let (http, url) = (Client::new(), system.url(""));
    let first = ask(&http, &url, &ours).await;
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(header(&first, "ratelimit-policy"), Some("\"requests\";q=6;w=3"));
    assert_eq!(header(&first, "ratelimit"), Some("\"requests\";r=5;t=1"));
    let refusal = wait_until("a request is refused", async || {
        Some(ask(&http, &url, &ours).await).filter(|answer| answer.status() != StatusCode::OK)
    })
    .await;
    assert_eq!(header(&refusal, "ratelimit"), Some("\"requests\";r=0;t=3"));
    assert_eq!(refused(refusal).await, (json!({"name": "requests_per_second", "max": 2, "used": 2}), 1));
    // Another tenant has no limit, and is told of none.
    for _ in 0..20 {
        let answer = ask(&http, &url, &theirs).await;
        assert_eq!((answer.status(), header(&answer, "ratelimit")), (StatusCode::OK, None));
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(ask(&http, &url, &ours).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn two_apis_share_the_rate() {
    needs_servers!();
    let (system, ours, _) = limited(1, "[tenants.acme]\nrequests_per_second = 40", &[]).await;
    let (_second, other_url) = system.another_api().await;
    let url = system.url("");
    let (accepted, seconds) = accepted_of_all(&[&url, &other_url], &ours, Duration::from_secs(4)).await;
    println!("two apis accepted {accepted} requests in {seconds:.2} s, of 40 a second and a burst of 40");
    // The burst, the rate, and a block of ten for each api; the time of the last requests is not exact.
    let most = 40.0 + 40.0 * seconds + 2.0 * 10.0;
    assert!(f64::from(accepted) <= most, "{accepted} of at most {most}");
    // On a machine that is busy a client may not be able to ask for all of it.
    assert!(accepted >= 100, "{accepted}");
}

#[tokio::test]
async fn the_rate_holds_while_the_ledger_is_away() {
    let servers = needs_servers!();
    let (mut system, ours, _) = limited(1, "[tenants.acme]\nrequests_per_second = 10", &[]).await;
    let authority = servers.database_url.split_once("://").unwrap().1.split('/').next().unwrap();
    let host = authority.rsplit('@').next().unwrap();
    let proxy = Proxy::start(host).unwrap();
    let direct = system.database_url.clone();
    system.set("SOURCE_DATABASE_URL", &direct);
    system.set("DATABASE_URL", &direct.replacen(host, &proxy.address().to_string(), 1));
    system.start_api();
    system.wait_until_ready().await;
    let url = system.url("");
    assert_eq!(ask(&Client::new(), &url, &ours).await.status(), StatusCode::OK);
    proxy.refuse_new().await;
    proxy.disconnect_all();
    let (accepted, seconds) = accepted_of_all(&[&url], &ours, Duration::from_secs(4)).await;
    println!("without the ledger an api accepted {accepted} requests in {seconds:.2} s, of 10 a second");
    // What the api had, and a second's requests for each second that has begun.
    assert!(f64::from(accepted) <= 3.0 + 10.0 * (seconds + 1.0), "{accepted} in {seconds} s");
    assert!(accepted >= 10, "{accepted}");
    assert!(system.api.as_ref().unwrap().log().contains("requests are limited by this process alone"));
    proxy.restore().await.unwrap();
    system.wait_until_ready().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ask(&Client::new(), &url, &ours).await.status(), StatusCode::OK);
}
