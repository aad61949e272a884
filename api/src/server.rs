//! What every handler shares, the routes, and the layers around them.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use polyglot_ledger::Ledger;
use polyglot_ledger::queue::{Broker, Relay};
use polyglot_runtime::lifecycle::Lifecycle;
use polyglot_storage::Storage;
use tower_http::catch_panic::CatchPanicLayer;

use crate::config::DownloadConfig;
use crate::events::{self, Feed};
use crate::problem::RouteError;
use crate::source::Source;
use crate::{datasets, download, exports, health, metrics, openapi, page, request_id};

/// The process as its handlers see it.
pub(crate) struct App {
    pub(crate) ledger: Ledger,
    pub(crate) relay: Relay,
    /// `None`: the service runs without one.
    pub(crate) broker: Option<Broker>,
    pub(crate) storage: Storage,
    pub(crate) source: Source,
    pub(crate) feed: Arc<Feed>,
    pub(crate) download: DownloadConfig,
    pub(crate) max_parallelism: u16,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) readiness: health::LastReadiness,
    pub(crate) metrics: metrics::Metrics,
}

/// Every route. There is no time limit around them: each call to a server that may be silent has its own, in
/// `patience`, and what may take long (a download, a benchmark) is not cut.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/datasets", get(datasets::list))
        .route("/datasets/{name}", get(datasets::inspect))
        .route("/exports", get(exports::list).post(exports::submit))
        // HEAD would do all the work of GET, which is to run exports.
        .route("/exports/benchmark", get(exports::benchmark).head(only_get).fallback(only_get))
        .route("/exports/preview", post(exports::preview))
        .route("/exports/{id}", get(exports::inspect).delete(exports::delete))
        .route("/exports/{id}/download", get(download::download))
        .route("/exports/{id}/events", get(events::of_one))
        .route("/exports/{id}/manifest", get(exports::manifest))
        .route("/events", get(events::of_all))
        .route("/", get(page::page))
        .route("/assets/{name}", get(page::asset))
        .route("/openapi.json", get(openapi::describe))
        .route("/docs", get(openapi::viewer))
        .route("/docs/", get(openapi::viewer_page))
        .route("/docs/{file}", get(openapi::viewer_file))
        .route("/health", get(health::alive))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(metrics::scrape))
        .fallback(async || RouteError::NoSuchRoute)
        .method_not_allowed_fallback(async || RouteError::MethodNotAllowed)
        .with_state(app)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn(request_id::track))
}

async fn only_get() -> impl IntoResponse {
    ([(header::ALLOW, "GET")], RouteError::MethodNotAllowed)
}

/// The hook that `main` sets has logged what happened, inside the request's span.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    RouteError::Panicked.into_response()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use crate::dataset_config::Datasets;
    use axum::body::{Body, to_bytes};
    use axum::http::{Method, Request, StatusCode};
    use polyglot_ledger::Connections;
    use polyglot_runtime::config::Environment;
    use polyglot_runtime::telemetry::Recorder;
    use polyglot_source::session;
    use tower::ServiceExt;

    use super::*;
    use crate::config::Config;

    /// An api whose servers are all away: nothing listens on port 1.
    pub(crate) async fn lonely() -> App {
        let env = Environment::fixed(&[
            ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
            ("AMQP_URL", "amqp://127.0.0.1:1/%2f"),
            ("S3_ENDPOINT", "http://127.0.0.1:1"),
        ]);
        let connections = Connections::from_environment(&env).unwrap();
        let broker = Broker::of(&connections, "test");
        let Connections { database_url, mut storage, .. } = connections;
        storage.static_credentials = Some(("id".to_owned(), "secret".to_owned()));
        let config = Config::from_environment(&env).unwrap();
        App {
            ledger: Ledger::new(&database_url, 2, "test").unwrap(),
            relay: Relay::default(),
            broker,
            storage: Storage::new(&storage).await,
            source: Source::new(Datasets::default(), session::pool(&database_url).unwrap(), database_url),
            download: config.download,
            max_parallelism: config.max_parallelism,
            feed: Arc::default(),
            lifecycle: Lifecycle::default(),
            readiness: tokio::sync::Mutex::default(),
            metrics: metrics::Metrics::new(Recorder::for_test().unwrap()),
        }
    }

    pub(crate) async fn send_whole(request: Request<Body>) -> Response {
        router(Arc::new(lonely().await)).oneshot(request).await.unwrap()
    }

    pub(crate) async fn send(request: Request<Body>) -> (StatusCode, axum::http::HeaderMap, serde_json::Value) {
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
        assert_eq!(body["checks"], serde_json::json!({"ledger": "down", "broker": "down", "bucket": "down"}));
    }

    #[tokio::test]
    async fn a_panic_is_a_500_without_its_words() {
        let router = Router::new()
            .route("/panic", get(async || -> () { panic!("the secret") }))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(axum::middleware::from_fn(request_id::track));
        let response = router.oneshot(request(Method::GET, "/panic")).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body = std::str::from_utf8(&body).unwrap();
        assert!(body.contains("urn:polyglot:problem:internal") && !body.contains("secret"), "{body}");
    }
}
