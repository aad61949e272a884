//! The headers by which a browser is told how little it may do: on every route of the description and of the page, for answers
//! that succeed and for errors.

use polyglot_test_kit::{Setup, System, sample_request};
use polyglot_test_servers::needs_servers;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response};
use serde_json::Value;

const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";
const ALLOWED_ORIGIN: &str = "https://app.example.com";

fn check(what: &str, headers: &HeaderMap, policy: &str, readers: &str) {
    let value = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let is = |name: &str, wanted: &str| assert_eq!(value(name).as_deref(), Some(wanted), "{name} of {what}");
    is("content-security-policy", policy);
    is("x-content-type-options", "nosniff");
    is("referrer-policy", "no-referrer");
    is("cross-origin-resource-policy", readers);
    is("cross-origin-opener-policy", "same-origin");
    // The api of the test has no TLS.
    assert_eq!(value("strict-transport-security"), None, "{what}");
}

#[tokio::test]
async fn every_route_has_the_headers_on_success_and_on_errors() {
    needs_servers!();
    let system = System::start(Setup::new(20, &[("CORS_ORIGINS", ALLOWED_ORIGIN)])).await;
    let (id, _, _) = system.export(&sample_request("csv", None)).await;
    // Redirects lead to the object store, which is somebody else.
    let http = Client::builder().redirect(Policy::none()).build().unwrap();
    let ask = async |method: &Method, path: &str, origin: Option<&str>| -> Response {
        let mut request = http.request(method.clone(), system.url(path));
        if *method == Method::POST {
            request = request.json(&sample_request("csv", None));
        }
        if let Some(origin) = origin {
            request = request.header("Origin", origin);
        }
        request.send().await.unwrap()
    };
    let description: Value = ask(&Method::GET, "/openapi.json", None).await.json().await.unwrap();
    let mut operations = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for method in ["get", "post", "delete"].into_iter().filter(|method| item.get(method).is_some()) {
            let method: Method = method.to_uppercase().parse().unwrap();
            operations.push((method, path.clone()));
        }
    }
    assert!(operations.len() >= 14, "{operations:?}");
    // The export goes last.
    operations.sort_by_key(|(method, _)| *method == Method::DELETE);
    for (method, path) in &operations {
        let mut good = path.replace("{id}", &id).replace("{name}", "records");
        if path.ends_with("/benchmark") {
            good += "?rows=5&formats=csv";
        }
        let what = format!("{method} {good}");
        let answer = ask(method, &good, Some(ALLOWED_ORIGIN)).await;
        // A benchmark and signing in are for no other origin.
        let is_own = path.ends_with("/benchmark") || (path == "/session" && *method != Method::GET);
        assert_eq!(answer.status().is_client_error(), is_own, "{what} is answered {}", answer.status());
        assert!(!answer.status().is_server_error(), "{what} is answered {}", answer.status());
        check(&what, answer.headers(), NO_PAGE, "cross-origin");
        if is_own {
            check(&what, ask(method, &good, None).await.headers(), NO_PAGE, "same-origin");
        }
        let mut bad = vec![(Method::PATCH, good.clone())];
        if path.contains('{') {
            bad.push((method.clone(), path.replace("{id}", "x").replace("{name}", "nowhere")));
            bad.push((method.clone(), path.replace("{id}", &uuid::Uuid::nil().to_string()).replace("{name}", "%ff")));
        }
        for (method, path) in bad {
            let what = format!("{method} {path}");
            let answer = ask(&method, &path, None).await;
            assert!(answer.status().is_client_error(), "{what} is answered {}", answer.status());
            check(&what, answer.headers(), NO_PAGE, "same-origin");
        }
    }
    let (id, _, _) = system.export(&sample_request("xml", None)).await;
    for query in ["delivery=proxy", "delivery=redirect"] {
        let answer = ask(&Method::GET, &format!("/exports/{id}/download?{query}"), None).await;
        let policy =
            if query.ends_with("proxy") { "sandbox; default-src 'none'; frame-ancestors 'none'" } else { NO_PAGE };
        check(query, answer.headers(), policy, "same-origin");
    }
    for path in ["/", "/assets/app.js", "/docs", "/docs/", "/docs/viewer.js", "/docs/none.js"] {
        let answer = ask(&Method::GET, path, None).await;
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        check(path, answer.headers(), &policy, "same-origin");
    }
}
