//! The routes and the layers around them.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::config::AccessConfig;
use crate::cors::{self, CorsOrigins};
use crate::download::handler as download;
use crate::events::handlers as events;
use crate::exports::{benchmark, delete, inspect, list, manifest, preview, submit};
use crate::openapi::{description, problem_page, viewer};
use crate::problem::RouteError;
use crate::security_headers::HasTls;
use crate::state::AppState;
use crate::{
    audit, authentication, cross_site, datasets, health, hosts, limits, metrics, page, request_layer, session,
};

/// Where the metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricsRoute {
    /// With everything else.
    Here,
    /// On a listener of their own, by `metrics_router`.
    Apart,
}

/// Makes the router with every route. It has no timeout of its own: each call to a server that may be silent has one
/// (`timeout`), and downloads, event streams and benchmarks may take long.
pub(crate) fn router(app: Arc<AppState>, metrics_route: MetricsRoute) -> Router {
    let router = Router::new()
        .route("/datasets", get(datasets::list))
        .route("/datasets/{name}", get(datasets::inspect))
        .route("/exports", get(list::list).post(submit::submit))
        // HEAD would do all the work of GET, which is to run exports.
        .route("/exports/benchmark", get(benchmark::benchmark).head(only_get).fallback(only_get))
        .route("/exports/preview", post(preview::preview))
        .route("/exports/{id}", get(inspect::inspect).delete(delete::delete))
        .route("/exports/{id}/download", get(download::download))
        .route("/exports/{id}/events", get(events::follow_export))
        .route("/exports/{id}/manifest", get(manifest::manifest))
        .route("/events", get(events::follow_all_exports))
        .route("/limits", get(limits::inspect))
        .route("/audit", get(audit::read))
        .route("/session", get(session::inspect).post(session::sign_in).delete(session::sign_out))
        .route("/", get(page::page))
        .route("/assets/{name}", get(page::asset))
        .route("/openapi.json", get(description::describe))
        .route("/docs", get(viewer::redirect))
        .route("/docs/", get(viewer::page))
        .route("/docs/{file}", get(viewer::file))
        .route("/docs/errors/{name}", get(problem_page::section))
        .route("/health", get(health::alive))
        .route("/health/ready", get(health::ready));
    let router = match metrics_route {
        MetricsRoute::Here => router.route("/metrics", get(metrics::scrape)),
        MetricsRoute::Apart => router,
    };
    let AccessConfig { cors, allowed_hosts, .. } = app.access.clone();
    let (cors, has_tls) = (Arc::new(cors), app.has_tls);
    let mut router = with_fallbacks(router, Arc::clone(&app)).layer(from_fn_with_state(app, authentication::check));
    router = router.layer(from_fn_with_state(Arc::clone(&cors), cross_site::refuse_changes));
    if *cors != CorsOrigins::None {
        router = router.layer(from_fn_with_state(cors, cors::apply));
    }
    if !allowed_hosts.is_any() {
        router = router.layer(from_fn_with_state(Arc::new(allowed_hosts), hosts::check));
    }
    router.layer(from_fn_with_state(has_tls, request_layer::track))
}

/// Makes the router of the listener for metrics. Those who scrape use addresses, so it takes any host, and it has no TLS.
pub(crate) fn metrics_router(app: Arc<AppState>) -> Router {
    let router = Router::new()
        .route("/health", get(health::alive))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(metrics::scrape));
    with_fallbacks(router, app).layer(from_fn_with_state(HasTls(false), request_layer::track))
}

fn with_fallbacks(router: Router<Arc<AppState>>, app: Arc<AppState>) -> Router {
    router
        .fallback(async || RouteError::NoSuchRoute)
        .method_not_allowed_fallback(async || RouteError::MethodNotAllowed)
        .with_state(app)
        .layer(CatchPanicLayer::custom(panicked))
}

async fn only_get() -> impl IntoResponse {
    ([(header::ALLOW, "GET")], RouteError::MethodNotAllowed)
}

/// The answer to a request whose handler panicked. The hook that `main` sets has logged the panic inside the request's span.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    RouteError::Panicked.into_response()
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
