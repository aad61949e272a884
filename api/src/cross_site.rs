//! Requests that a browser sends for a page of another site. Such a page cannot read the answer of a GET, but it can have it
//! run, by an image for instance.

use axum::http::header::{HeaderName, ORIGIN};
use axum::http::{HeaderMap, Uri};

use crate::hosts::requested_authority;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether the browser says that the request comes from a page of another origin. Programs that are not browsers say nothing,
/// and neither do browsers on an address that is without TLS and not this machine's own.
pub(crate) fn is_cross_site(uri: &Uri, headers: &HeaderMap) -> bool {
    // `none`: the person has entered the address.
    if headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "same-origin" && site != "none") {
        return true;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let own = requested_authority(uri, headers);
    host.zip(own).is_none_or(|(host, own)| !own.as_str().eq_ignore_ascii_case(host))
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
