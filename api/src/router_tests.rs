//! Requests to the whole router of an api whose servers are all unreachable.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use tower::ServiceExt;

use super::*;
use crate::exports::limits as submission_limits;
use crate::state::tests::{app_with, app_without_backends};

async fn send_whole(request: Request<Body>) -> Response {
    send_to(&[("BENCHMARK", "on")], request).await
}

/// Sends to an api with these variables.
async fn send_to(variables: &[(&str, &str)], request: Request<Body>) -> Response {
    router(Arc::new(app_with(variables).await), MetricsRoute::Here).oneshot(request).await.unwrap()
}

async fn send(request: Request<Body>) -> (StatusCode, HeaderMap, serde_json::Value) {
    read(send_whole(request).await).await
}

async fn read(response: Response) -> (StatusCode, HeaderMap, serde_json::Value) {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, serde_json::from_slice(&body).unwrap_or_default())
}

fn request(method: Method, uri: &str) -> Request<Body> {
    Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn problems_have_every_member() {
    let wanted = [
        (Method::GET, "/nowhere", 404, "no-such-route", None),
        (Method::GET, "/exports/", 404, "no-such-route", None),
        (Method::PUT, "/exports", 405, "method-not-allowed", None),
        (Method::DELETE, "/exports/benchmark", 405, "method-not-allowed", None),
        (Method::POST, "/datasets", 405, "method-not-allowed", None),
        (Method::POST, "/exports/00000000-0000-7000-8000-000000000000/manifest", 405, "method-not-allowed", None),
        (Method::GET, "/datasets/users", 404, "unknown-dataset", None),
        (Method::GET, "/datasets/a%2Fb%00%22", 404, "unknown-dataset", None),
        (Method::GET, "/datasets/%ff", 400, "invalid-request", Some("name")),
        (Method::GET, "/datasets/", 404, "no-such-route", None),
        (Method::GET, "/exports/7/manifest", 400, "invalid-request", Some("id")),
        (Method::GET, "/exports/7", 400, "invalid-request", Some("id")),
        (Method::GET, "/exports/%ff", 400, "invalid-request", Some("id")),
        (Method::DELETE, "/exports/records", 400, "invalid-request", Some("id")),
        (Method::GET, "/exports/x'--/download", 400, "invalid-request", Some("id")),
        (Method::GET, "/exports?status=done", 400, "invalid-request", Some("status")),
        (Method::GET, "/exports?limit=0", 400, "invalid-request", Some("limit")),
        (Method::GET, "/exports?limit=201", 400, "invalid-request", Some("limit")),
        (Method::GET, "/exports?cursor=abc", 400, "invalid-request", Some("cursor")),
        (Method::GET, "/exports?stauts=failed", 400, "invalid-request", Some("stauts")),
        (Method::GET, "/exports?limit=1&limit=2", 400, "invalid-request", Some("limit")),
        (Method::GET, "/exports/benchmark?rows=0", 400, "invalid-request", Some("rows")),
        (Method::GET, "/exports/benchmark?formats=csv,yaml", 400, "invalid-request", Some("formats")),
        (
            Method::GET,
            "/exports/00000000-0000-7000-8000-000000000000/download?delivery=mail",
            400,
            "invalid-request",
            Some("delivery"),
        ),
    ];
    for (method, uri, status, name, field) in wanted {
        let (got, headers, body) = send(request(method.clone(), uri)).await;
        assert_eq!(got.as_u16(), status, "{method} {uri}: {body}");
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json", "{uri}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{uri}");
        assert_eq!(headers[header::LINK], format!("</docs/errors/{name}>; rel=\"help\"; type=\"text/plain\""), "{uri}");
        assert_eq!(body["type"], format!("urn:polyglot:problem:{name}"), "{uri}");
        assert_eq!(body["status"], status, "{uri}");
        assert_eq!(body["instance"], uri.split('?').next().unwrap());
        assert_eq!(body["requestId"], headers["x-request-id"].to_str().unwrap());
        for member in ["title", "detail", "error"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{uri}: {member} of {body}");
        }
        assert_eq!(body["errors"][0]["field"].as_str(), field, "{uri}: {body}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let (_, headers, _) = send(request(Method::PATCH, "/exports")).await;
    assert_eq!(headers[header::ALLOW], "GET,HEAD,POST");
    for method in [Method::HEAD, Method::DELETE] {
        let (status, headers, _) = send(request(method, "/exports/benchmark")).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(headers[header::ALLOW], "GET");
    }
}

#[tokio::test]
async fn a_source_that_is_away_is_503() {
    let submission = Request::post("/exports")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(r#"{"format": "csv", "columns": [{"source": "id", "target": "id"}]}"#))
        .unwrap();
    let asked = [request(Method::GET, "/datasets"), request(Method::GET, "/datasets/records"), submission];
    let answers = asked.map(async |request| {
        let uri = request.uri().clone();
        let (status, headers, body) = send(request).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{uri}: {body}");
        assert!(headers.contains_key(header::RETRY_AFTER), "{uri}");
        assert_eq!(body["type"], "urn:polyglot:problem:source-unavailable");
    });
    futures_util::future::join_all(answers).await;
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_another_replaced() {
    for (sent, kept) in [("trace-7/a", true), ("a b", false), (&"x".repeat(129), false)] {
        let mut request = request(Method::GET, "/health");
        request.headers_mut().insert("x-request-id", sent.parse().unwrap());
        let (status, headers, body) = send(request).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body["status"], "ok");
        assert_eq!(headers["x-request-id"] == sent, kept, "{sent}");
    }
}

#[tokio::test]
async fn a_ledger_that_is_away_is_503_in_time() {
    let id = "00000000-0000-7000-8000-000000000000";
    let started = std::time::Instant::now();
    let asked = [
        (Method::GET, "/exports".to_owned()),
        (Method::GET, format!("/exports/{id}")),
        (Method::DELETE, format!("/exports/{id}")),
        (Method::GET, format!("/exports/{id}/download")),
        (Method::GET, format!("/exports/{id}/manifest")),
        (Method::GET, "/exports/benchmark".to_owned()),
    ];
    let answers = asked.map(async |(method, uri)| {
        let (status, headers, body) = send(request(method, &uri)).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{uri}: {body}");
        assert!(headers.contains_key(header::RETRY_AFTER), "{uri}");
        assert_eq!(body["type"], "urn:polyglot:problem:ledger-unavailable");
    });
    futures_util::future::join_all(answers).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn readiness_says_what_is_down() {
    let (status, headers, body) = send(request(Method::GET, "/health/ready")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(headers.contains_key(header::RETRY_AFTER));
    assert_eq!(
        body["checks"],
        serde_json::json!({"ledger": "down", "broker": "down", "bucket": "down", "source": "down"})
    );
}

#[tokio::test]
async fn a_panic_is_a_500_without_its_words() {
    let router = Router::new()
        .route("/panic", get(async || -> () { panic!("the secret") }))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(HasTls(false), request_layer::track));
    let response = router.oneshot(request(Method::GET, "/panic")).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let body = std::str::from_utf8(&body).unwrap();
    assert!(body.contains("urn:polyglot:problem:internal") && !body.contains("secret"), "{body}");
}

fn submission(content_type: Option<&str>, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/exports");
    match content_type {
        Some(it) => request.header(header::CONTENT_TYPE, it),
        None => request,
    }
    .body(body.into())
    .unwrap()
}

#[tokio::test]
async fn bodies_that_are_no_json_are_400_and_named() {
    let json = Some("application/json");
    for (content_type, body, field, words) in [
        (None, "{}", "Content-Type", "is missing"),
        (Some("text/plain"), "{}", "Content-Type", "text/plain"),
        (Some("application/x-www-form-urlencoded"), "a=b", "Content-Type", "expected application/json"),
        (json, "", "body", "empty"),
        (json, "{\"format\": \"csv\",}", "body", "line 1 column 18"),
        (json, "{\n  \"format\": csv\n}", "body", "line 2 column 13"),
        (json, "{\"format\": \"csv\", \"format\": \"xml\"}", "body", "\"format\" is there twice"),
        (json, "[]", "body", "object"),
        (json, "null", "body", "object"),
        (json, "{} {}", "body", "trailing"),
    ] {
        let (status, _, answer) = send(submission(content_type, body)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
        assert_eq!(answer["errors"][0]["field"], field, "{body}: {answer}");
        assert!(answer["errors"][0]["message"].as_str().unwrap().contains(words), "{body}: {answer}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let (status, _, answer) =
        send(submission(Some("application/json"), " ".repeat(submission_limits::BODY_BYTES + 1))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer["type"], "urn:polyglot:problem:body-too-large");
    assert_eq!(answer["detail"], "A body may have at most 262144 bytes.");
    // The largest that is read, and then found to be nothing.
    let (status, _, _) = send(submission(Some("application/json"), " ".repeat(submission_limits::BODY_BYTES))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn json_over_a_limit_is_400_and_the_place_is_named() {
    let deep = format!("{{\"filters\": [{}", "{\"value\":[".repeat(1000));
    let many = format!("{{\"columns\": [{}]}}", vec!["{}"; 20_000].join(","));
    let long_key = format!("{{\"{}\": 1}}", "k".repeat(100_000));
    for (body, field, words) in [
        (deep, "filters[0].value[0].value[0]", "inside of 32"),
        (many, "columns[9998]", "10000 values"),
        (long_key, "kkkkkkkk", "100000 bytes"),
    ] {
        let (status, _, answer) = send(submission(Some("application/json"), body)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert_eq!(answer["type"], "urn:polyglot:problem:invalid-request");
        let error = &answer["errors"][0];
        assert!(error["field"].as_str().unwrap().starts_with(field), "{answer}");
        assert!(error["message"].as_str().unwrap().contains(words), "{answer}");
    }
}

#[tokio::test]
async fn the_page_comes_with_its_policy_and_once() {
    let response = send_whole(Request::get("/").body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    let etag = response.headers()[header::ETAG].clone();
    let text = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert!(text.starts_with(b"<!DOCTYPE html>") || text.starts_with(b"<!doctype html>"));
    let again = Request::get("/").header(header::IF_NONE_MATCH, etag).body(Body::empty()).unwrap();
    assert_eq!(send_whole(again).await.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn what_is_no_file_is_not_there() {
    for path in ["/assets/..%2findex.html", "/assets/index.html", "/assets/none.js"] {
        let response = send_whole(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_scrape_is_answered_when_every_server_is_away() {
    let app = Arc::new(app_without_backends().await);
    for _ in 0..2 {
        let began = std::time::Instant::now();
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let answer = router(Arc::clone(&app), MetricsRoute::Here).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let body = std::str::from_utf8(&body).unwrap();
        for dependency in ["ledger", "broker", "bucket", "source"] {
            assert!(body.contains(&format!("\npolyglot_up{{dependency=\"{dependency}\"}} 0\n")), "{body}");
        }
        for absent in
            ["polyglot_exports", "polyglot_outbox", "polyglot_ready", "polyglot_queue", "polyglot_source_sessions"]
        {
            assert!(!body.contains(absent), "{body}");
        }
        assert!(body.contains("process_resident_memory_bytes ") && body.contains("pool=\"source\""), "{body}");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
}

fn with_host(uri: &str, host: &str) -> Request<Body> {
    Request::get(uri).header(header::HOST, host).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_host_that_is_not_allowed_is_421() {
    let allowed = [("ALLOWED_HOSTS", "export.example.com,*.lan,[::1]")];
    for (host, path, status) in [
        ("export.example.com", "/docs", 308),
        ("Export.Example.com:8443", "/docs", 308),
        ("a.lan", "/docs", 308),
        ("[::1]:8080", "/docs", 308),
        ("evil.example.com", "/docs", 421),
        ("10.0.0.7:8080", "/docs", 421),
        ("evil.example.com", "/nowhere", 421),
        ("evil.example.com", "/metrics", 421),
        // Probes use the container's address.
        ("10.0.0.7:8080", "/health", 200),
        ("10.0.0.7:8080", "/health/ready", 503),
    ] {
        let (got, _, body) = read(send_to(&allowed, with_host(path, host)).await).await;
        assert_eq!(got.as_u16(), status, "{host} {path}: {body}");
        if status == 421 {
            assert_eq!(body["type"], "urn:polyglot:problem:host-not-allowed");
            let name = host.split(':').next().unwrap();
            let detail = body["detail"].as_str().unwrap();
            assert!(detail.contains(name) && detail.contains("ALLOWED_HOSTS"), "{detail}");
        }
    }
    let nameless = read(send_to(&allowed, request(Method::GET, "/docs")).await).await;
    assert_eq!(nameless.0, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(send_to(&[], with_host("/docs", "evil.example.com")).await.status(), StatusCode::PERMANENT_REDIRECT);
}

fn from_origin(method: &Method, uri: &str, origin: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(uri).header(header::ORIGIN, origin);
    let request = match *method {
        Method::OPTIONS => request.header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST"),
        _ => request,
    };
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn listed_origins_may_read_answers_and_errors() {
    let variables = [("CORS_ORIGINS", "https://app.example.com,http://localhost:3000")];
    let preflight = send_to(&variables, from_origin(&Method::OPTIONS, "/exports", "https://app.example.com")).await;
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    let headers = preflight.headers();
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example.com");
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_METHODS], "GET, HEAD, POST, DELETE");
    assert_eq!(headers[header::ACCESS_CONTROL_MAX_AGE], "600");
    assert_eq!(headers[header::VARY], "origin");
    let names = headers[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
    for name in ["content-type", "idempotency-key", "range", "if-none-match", "last-event-id", "x-request-id"] {
        assert!(names.split(", ").any(|it| it == name), "{name}: {names}");
    }
    assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));

    for (uri, status) in [("/health", 200), ("/nowhere", 404), ("/exports/7", 400)] {
        let answer = send_to(&variables, from_origin(&Method::GET, uri, "http://localhost:3000")).await;
        assert_eq!(answer.status(), status);
        let headers = answer.headers();
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "http://localhost:3000", "{uri}");
        let names = headers[header::ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
        for name in [
            "location",
            "link",
            "etag",
            "retry-after",
            "x-request-id",
            "content-range",
            "content-disposition",
            "idempotent-replayed",
        ] {
            assert!(names.split(", ").any(|it| it == name), "{name}: {names}");
        }
    }
    // Others get what they would get without CORS, and no cache mixes the two up.
    let foreign = send_to(&variables, from_origin(&Method::GET, "/health", "https://evil.example.com")).await;
    assert_eq!((foreign.status(), &foreign.headers()[header::VARY]), (StatusCode::OK, &"origin".parse().unwrap()));
    assert!(!foreign.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    let foreign = send_to(&variables, from_origin(&Method::OPTIONS, "/exports", "https://evil.example.com")).await;
    assert_eq!(foreign.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn cors_is_off_unless_asked_for_and_any_origin_is_asked_for_by_a_star() {
    for method in [Method::GET, Method::OPTIONS] {
        let answer = send_to(&[], from_origin(&method, "/exports/7", "https://app.example.com")).await;
        assert!(answer.headers().keys().all(|name| !name.as_str().starts_with("access-control")), "{answer:?}");
        assert!(!answer.headers().contains_key(header::VARY));
    }
    let any = send_to(&[("CORS_ORIGINS", "*")], from_origin(&Method::GET, "/health", "https://app.example.com")).await;
    assert_eq!(any.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    assert!(!any.headers().contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
}

#[tokio::test]
async fn metrics_can_have_a_listener_of_their_own() {
    let app = Arc::new(app_with(&[("ALLOWED_HOSTS", "export.example.com")]).await);
    let ask = async |router: Router, path: &str| {
        router.oneshot(with_host(path, "export.example.com")).await.unwrap().status().as_u16()
    };
    for (path, apart, own) in
        [("/metrics", 404, 200), ("/health", 200, 200), ("/docs", 308, 404), ("/exports/7", 400, 404)]
    {
        assert_eq!(ask(router(Arc::clone(&app), MetricsRoute::Apart), path).await, apart, "{path}");
        assert_eq!(ask(metrics_router(Arc::clone(&app)), path).await, own, "{path}");
    }
    // Prometheus names an address.
    let scrape = metrics_router(app).oneshot(with_host("/metrics", "10.0.0.7:9465")).await.unwrap();
    assert_eq!(scrape.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_benchmark_is_refused_where_it_is_off_and_to_pages_of_other_sites() {
    let benchmark = |headers: &[(&'static str, &'static str)]| {
        let mut request = with_host("/exports/benchmark", "export.example.com");
        request.headers_mut().extend(
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
        );
        request
    };
    let (status, _, body) = read(send_to(&[], benchmark(&[])).await).await;
    assert_eq!((status.as_u16(), &body["type"]), (403, &"urn:polyglot:problem:benchmark-off".into()));
    assert!(body["detail"].as_str().unwrap().contains("BENCHMARK=on"), "{body}");
    for foreign in
        [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "https://evil.example.com")]
    {
        let (status, _, body) = read(send_to(&[("BENCHMARK", "on")], benchmark(&[foreign])).await).await;
        assert_eq!((status.as_u16(), &body["type"]), (403, &"urn:polyglot:problem:cross-site".into()), "{foreign:?}");
    }
    // These get as far as the ledger, which is away.
    for own in [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none"), ("origin", "https://export.example.com")]
    {
        let (status, _, body) = read(send_to(&[("BENCHMARK", "on")], benchmark(&[own])).await).await;
        assert_eq!(
            (status.as_u16(), &body["type"]),
            (503, &"urn:polyglot:problem:ledger-unavailable".into()),
            "{own:?}"
        );
    }
}

#[tokio::test]
async fn every_answer_says_how_little_a_browser_may_do_with_it() {
    const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";
    let id = "00000000-0000-7000-8000-000000000000";
    for (method, path, policy) in [
        (Method::GET, "/health", NO_PAGE),
        (Method::GET, "/openapi.json", NO_PAGE),
        (Method::GET, "/nowhere", NO_PAGE),
        (Method::PUT, "/exports", NO_PAGE),
        (Method::POST, "/exports", NO_PAGE),
        (Method::GET, &format!("/exports/{id}/download"), NO_PAGE),
        (Method::GET, "/events", NO_PAGE),
        (Method::GET, "/metrics", NO_PAGE),
        (Method::GET, "/docs", NO_PAGE),
        (Method::GET, "/", "script-src 'self'"),
        (Method::GET, "/assets/app.js", "script-src 'self'"),
        (Method::GET, "/docs/", "script-src 'self'"),
        (Method::GET, "/docs/viewer.js", "script-src 'self'"),
        (Method::GET, "/docs/none.js", NO_PAGE),
    ] {
        let answer = send_whole(request(method.clone(), path)).await;
        let headers = answer.headers();
        let sent = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(sent.contains(policy) && sent.contains("frame-ancestors 'none'"), "{method} {path}: {sent}");
        assert!(!sent.contains("unsafe"), "{method} {path}: {sent}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(headers[name], value, "{method} {path}");
        }
        assert_eq!(headers.get_all(header::CONTENT_SECURITY_POLICY).iter().count(), 1, "{method} {path}");
        assert!(!headers.contains_key(header::STRICT_TRANSPORT_SECURITY), "{method} {path}");
    }
    // With TLS; and for a page that may read the answer.
    let mut app = app_with(&[("CORS_ORIGINS", "https://app.example.com")]).await;
    app.has_tls = HasTls(true);
    let router = router(Arc::new(app), MetricsRoute::Here);
    for (origin, policy) in [("https://app.example.com", "cross-origin"), ("https://other.example.com", "same-origin")]
    {
        for path in ["/health", "/nowhere"] {
            let mut asked = request(Method::GET, path);
            asked.headers_mut().insert(header::ORIGIN, HeaderValue::from_static(origin));
            let answer = router.clone().oneshot(asked).await.unwrap();
            assert_eq!(answer.headers()["cross-origin-resource-policy"], policy, "{origin} {path}");
            assert_eq!(answer.headers()[header::STRICT_TRANSPORT_SECURITY], "max-age=31536000");
        }
    }
}

#[tokio::test]
async fn changes_for_pages_of_other_sites_are_refused() {
    let id = "/exports/00000000-0000-7000-8000-000000000000";
    let ask = async |origins: &str, method: Method, path: &str, headers: &[(&'static str, &'static str)]| {
        let mut request = with_host(path, "export.example.com");
        *request.method_mut() = method;
        request.headers_mut().extend(
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
        );
        let (status, headers, body) = read(send_to(&[("CORS_ORIGINS", origins)], request).await).await;
        (status == StatusCode::FORBIDDEN && body["type"] == "urn:polyglot:problem:cross-site", headers)
    };
    const FOREIGN: [&[(&str, &str)]; 4] = [
        &[("origin", "https://evil.example.com")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example.com")],
        &[("sec-fetch-site", "same-site")],
    ];
    for foreign in FOREIGN {
        for (method, path) in [
            (Method::POST, "/exports"),
            (Method::POST, "/exports/preview"),
            (Method::DELETE, id),
            (Method::DELETE, "/exports/benchmark"),
        ] {
            let (refused, headers) = ask("https://app.example.com", method.clone(), path, foreign).await;
            assert!(refused, "{method} {path} {foreign:?}");
            assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        }
        let (refused, _) = ask("", Method::GET, "/health", foreign).await;
        assert!(!refused, "what is only read is not refused");
    }
    for own in [
        &[][..],
        &[("origin", "https://export.example.com")],
        &[("sec-fetch-site", "same-origin"), ("origin", "https://public.example.com")],
        &[("sec-fetch-site", "cross-site"), ("origin", "https://app.example.com")],
    ] {
        let (refused, _) = ask("https://app.example.com", Method::DELETE, id, own).await;
        assert!(!refused, "{own:?}");
    }
    let (refused, headers) = ask("*", Method::DELETE, id, FOREIGN[0]).await;
    assert!(!refused && headers[header::ACCESS_CONTROL_ALLOW_ORIGIN] == "*");
}
