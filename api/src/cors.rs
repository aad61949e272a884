//! `CORS_ORIGINS`: the pages of other origins that may call the service from a browser and read its answers (CORS). None may
//! unless the operator names them. They send an API key; the cookie of the service's own page is never allowed.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use polyglot_runtime::config::{ConfigError, Environment};

const VARIABLE: &str = "CORS_ORIGINS";

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, DELETE");

/// The headers of requests that the service reads.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-none-match, if-range, last-event-id, prefer, range, traceparent, tracestate, \
     x-request-id",
);

/// The headers of answers that a page may read, beside those that every page may.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "accept-ranges, content-disposition, content-range, etag, idempotent-replayed, link, location, ratelimit, \
     ratelimit-policy, retry-after, x-request-id",
);

/// Seconds for which a browser need not ask again.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins whose pages may use the service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CorsOrigins {
    #[default]
    None,
    /// Asked for by `*` alone.
    Any,
    /// As browsers write them: scheme, host, and a port that is not the scheme's own.
    Listed(Vec<String>),
}

impl CorsOrigins {
    pub(crate) fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let Some(value) = env.optional(VARIABLE)? else { return Ok(Self::None) };
        let entries: Vec<&str> = value.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        if entries == ["*"] {
            return Ok(Self::Any);
        }
        match entries.into_iter().map(parse_origin).collect::<Option<Vec<_>>>() {
            Some(origins) if !origins.is_empty() => Ok(Self::Listed(origins)),
            _ => Err(ConfigError::Value {
                name: VARIABLE.to_owned(),
                value,
                expected: "expected origins without a path, separated by commas, such as \
                           https://app.example.com,http://localhost:3000, or * alone for every origin"
                    .to_owned(),
            }),
        }
    }

    /// Whether a page of `origin` may use the service.
    pub(crate) fn allows(&self, origin: &HeaderValue) -> bool {
        self.allow(origin).is_some()
    }

    /// The value of `Access-Control-Allow-Origin` for a page of `origin`.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Listed(origins) => origins.iter().any(|listed| origin == listed.as_str()).then(|| origin.clone()),
        }
    }
}

/// An origin as browsers write it; `None` if `entry` is none.
fn parse_origin(entry: &str) -> Option<String> {
    let entry = entry.to_ascii_lowercase();
    let (scheme, authority) = entry.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let is_authority = authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
        && !authority.is_empty();
    if !is_scheme || !is_authority || authority.starts_with(':') || authority.ends_with(':') {
        return None;
    }
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let authority = match authority.strip_suffix(default_port) {
        Some(host) if !host.is_empty() => host,
        _ => authority,
    };
    Some(format!("{scheme}://{authority}"))
}

/// Answers preflight requests of allowed origins, and adds the headers of CORS to every other answer.
pub(crate) async fn apply(State(origins): State<Arc<CorsOrigins>>, request: Request, next: Next) -> Response {
    let allowed = request.headers().get(ORIGIN).and_then(|origin| origins.allow(origin));
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight && allowed.is_some() {
        let headers = [
            (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
            (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ];
        (StatusCode::NO_CONTENT, headers).into_response()
    } else {
        let mut response = next.run(request).await;
        if allowed.is_some() {
            response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
        }
        response
    };
    if let Some(allowed) = allowed {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    }
    // A cache must not give the answer for one origin to another, nor that for none.
    if matches!(*origins, CorsOrigins::Listed(_)) {
        response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(value: &str) -> Result<CorsOrigins, ConfigError> {
        CorsOrigins::from_environment(&Environment::fixed(&[(VARIABLE, value)]))
    }

    #[test]
    fn origins_are_compared_as_browsers_write_them() {
        let listed = origins("https://App.Example.com:443/, http://localhost:3000").err();
        assert!(listed.is_some(), "a path is refused, even an empty one");
        let listed = origins("https://App.Example.com:443, http://localhost:3000,http://[::1]:80,app://x").unwrap();
        for good in ["https://app.example.com", "http://localhost:3000", "http://[::1]", "app://x"] {
            let origin = HeaderValue::from_static(good);
            assert_eq!(listed.allow(&origin), Some(origin));
        }
        for bad in ["null", "http://app.example.com", "https://app.example.com.evil", "http://localhost", ""] {
            assert_eq!(listed.allow(&HeaderValue::from_static(bad)), None, "{bad}");
        }
        assert_eq!(origins("*").unwrap().allow(&HeaderValue::from_static("null")), Some(HeaderValue::from_static("*")));
        assert_eq!(origins("").unwrap().allow(&HeaderValue::from_static("http://a")), None);
    }

    #[test]
    fn what_is_no_origin_is_refused_and_an_example_given() {
        for bad in [
            ",",
            "*,https://a.example",
            "https://*.example.com",
            "app.example.com",
            "https://",
            "https://:443",
            "https://a.example:",
            "null",
            "https://a.example/x",
            "https://u@a.example",
            "://a",
            "https://a b",
        ] {
            let error = origins(bad).expect_err(bad).to_string();
            assert!(
                error.starts_with("CORS_ORIGINS: expected origins") && error.contains("https://app.example.com"),
                "{error}"
            );
        }
    }
}
