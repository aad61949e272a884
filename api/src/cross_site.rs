//! Requests that a browser sends for a page of another site. Such a page cannot read the answer, but it can have the request
//! run: a GET by an image, a POST by a form.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HeaderName, ORIGIN};
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::cors::CorsOrigins;
use crate::hosts::requested_authority;
use crate::problem::RouteError;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether the browser says that the request comes from a page of another origin. Programs that are not browsers say nothing,
/// and neither do browsers on an address that is without TLS and not this machine's own.
pub(crate) fn is_cross_site(uri: &Uri, headers: &HeaderMap) -> bool {
    // Pages cannot set it. It is right as well behind a proxy that asks for the service by another name. `none`: the person has
    // entered the address.
    if headers.contains_key(SEC_FETCH_SITE) {
        return headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "same-origin" && site != "none");
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let own = requested_authority(uri, headers);
    host.zip(own).is_none_or(|(host, own)| !own.as_str().eq_ignore_ascii_case(host))
}

/// Answers 403 to a request that may change something and that a browser sends for a page of another origin, unless its origin
/// may use the service (`CORS_ORIGINS`).
pub(crate) async fn refuse_changes(State(origins): State<Arc<CorsOrigins>>, request: Request, next: Next) -> Response {
    let is_allowed = request.method().is_safe()
        || !is_cross_site(request.uri(), request.headers())
        || request.headers().get(ORIGIN).is_some_and(|origin| origins.allows(origin));
    if is_allowed { next.run(request).await } else { RouteError::CrossSite.into_response() }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::http::header::HOST;

    use super::*;

    fn check(headers: &[(HeaderName, &'static str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        is_cross_site(&Uri::from_static("/exports/benchmark"), &headers)
    }

    #[test]
    fn what_a_browser_marks_is_told_apart() {
        for ours in [
            &[(HOST, "a.example")][..],
            &[(HOST, "a.example"), (SEC_FETCH_SITE, "same-origin")],
            &[(HOST, "a.example"), (SEC_FETCH_SITE, "none")],
            &[(HOST, "A.example:8080"), (ORIGIN, "http://a.example:8080")],
            &[(HOST, "[::1]:8080"), (ORIGIN, "http://[::1]:8080")],
            // Behind a proxy.
            &[(HOST, "internal:8080"), (ORIGIN, "https://a.example"), (SEC_FETCH_SITE, "same-origin")],
        ] {
            assert!(!check(ours), "{ours:?}");
        }
        for foreign in [
            &[(HOST, "a.example"), (SEC_FETCH_SITE, "cross-site")][..],
            &[(HOST, "a.example"), (SEC_FETCH_SITE, "same-site")],
            &[(HOST, "a.example"), (SEC_FETCH_SITE, "none"), (SEC_FETCH_SITE, "cross-site")],
            &[(HOST, "a.example"), (ORIGIN, "http://b.example")],
            &[(HOST, "a.example:8080"), (ORIGIN, "http://a.example:3000")],
            &[(HOST, "a.example"), (ORIGIN, "null")],
            &[(ORIGIN, "http://a.example")],
        ] {
            assert!(check(foreign), "{foreign:?}");
        }
    }
}
