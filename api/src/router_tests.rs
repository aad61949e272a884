//! Requests to the whole router of an api whose servers are all unreachable.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use tower::ServiceExt;

use super::*;
use crate::exports::limits;
use crate::state::tests::app_without_backends;

async fn send_whole(request: Request<Body>) -> Response {
    router(Arc::new(app_without_backends().await)).oneshot(request).await.unwrap()
}

async fn send(request: Request<Body>) -> (StatusCode, HeaderMap, serde_json::Value) {
    let (parts, body) = send_whole(request).await.into_parts();
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
        .layer(axum::middleware::from_fn(request_layer::track));
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
    let (status, _, answer) = send(submission(Some("application/json"), " ".repeat(limits::BODY_BYTES + 1))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer["type"], "urn:polyglot:problem:body-too-large");
    // The largest that is read, and then found to be nothing.
    let (status, _, _) = send(submission(Some("application/json"), " ".repeat(limits::BODY_BYTES))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
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
        let answer = router(Arc::clone(&app)).oneshot(request).await.unwrap();
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
