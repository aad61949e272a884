//! The headers that tell a browser how little may be done with an answer: what it may load and run, who may embed or read it,
//! and that the service is reached over TLS alone. A handler that answers with a document of its own sets its own policy.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// Content security policy of what is no page: it loads nothing, runs nothing and is shown in no frame.
const NO_PAGE: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Content security policy of files, which hold what others have written: opened in a browser, one has an origin of its own.
pub(crate) const FILE: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'");

/// A year, for this host alone: others of the domain may be without TLS.
const TLS_ALONE: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Whether the listener has TLS. Browsers ignore what an answer without it says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HasTls(pub(crate) bool);

/// Adds the headers to those of an answer.
pub(crate) fn add(headers: &mut HeaderMap, HasTls(has_tls): HasTls) {
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(NO_PAGE);
    // A page of an allowed origin may read the answer, so it may embed it as well.
    let readers = if headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) { "cross-origin" } else { "same-origin" };
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static(readers));
    headers.insert(CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin"));
    // Addresses hold ids of exports.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if has_tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, TLS_ALONE);
    }
}
