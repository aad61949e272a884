//! Fetching the issuer's key set over HTTP, within a time and a size.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{ACCEPT, CACHE_CONTROL, USER_AGENT};
use axum::http::uri::Scheme;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::algorithm::Algorithm;
use super::jwk::KeySet;

/// Time for everything from the connection to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest key set.
const MAX_BYTES: usize = 256 << 10;

/// Time for which a set is used where the answer does not say, and the shortest and longest that it may say: a shorter one
/// would be a burden on the issuer, and after a longer one a removed key would still be accepted.
const DEFAULT_LIFETIME: Duration = Duration::from_mins(10);
const MIN_LIFETIME: Duration = Duration::from_mins(1);
const MAX_LIFETIME: Duration = Duration::from_hours(1);

#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("there is no answer")]
    Request(#[from] hyper_util::client::legacy::Error),
    #[error("there is no whole answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// A redirect as well: it is not followed, because it could lead to a host that nobody has configured.
    #[error("the answer is {0} instead of 200")]
    Status(StatusCode),
    #[error("the answer is cut off, or larger than {} KiB", MAX_BYTES >> 10)]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is not a key set")]
    Document(#[from] serde_json::Error),
}

enum Transport {
    Plain(Client<HttpConnector, Empty<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>),
}

pub(super) struct JwksClient {
    transport: Transport,
    url: Uri,
    algorithms: Vec<Algorithm>,
}

impl JwksClient {
    /// A client that trusts the system's certificates.
    ///
    /// # Errors
    /// If there are none.
    pub(super) fn new(url: Uri, algorithms: Vec<Algorithm>) -> std::io::Result<Self> {
        let mut client = Client::builder(TokioExecutor::new());
        // The next request is minutes away.
        client.pool_max_idle_per_host(0);
        let transport = if url.scheme() == Some(&Scheme::HTTP) {
            // The configuration takes it for this machine alone.
            Transport::Plain(client.build(HttpConnector::new()))
        } else {
            let https = HttpsConnectorBuilder::new().with_native_roots()?.https_only().enable_http1().build();
            Transport::Tls(client.build(https))
        };
        Ok(Self { transport, url, algorithms })
    }

    /// Fetches the set, and the time for which it may be used.
    pub(super) async fn fetch(&self) -> Result<(KeySet, Duration), FetchError> {
        tokio::time::timeout(TIMEOUT, self.exchange()).await.map_err(|_| FetchError::Timeout)?
    }

    async fn exchange(&self) -> Result<(KeySet, Duration), FetchError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.url.clone();
        for (name, value) in [(ACCEPT, "application/jwk-set+json, application/json"), (USER_AGENT, "polyglot-api")] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let answer = match &self.transport {
            Transport::Plain(client) => client.request(request).await?,
            Transport::Tls(client) => client.request(request).await?,
        };
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let lifetime = lifetime(answer.headers());
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await.map_err(FetchError::Body)?.to_bytes();
        Ok((KeySet::parse(&body, &self.algorithms)?, lifetime))
    }
}

/// The lifetime that `Cache-Control` states, within the bounds.
fn lifetime(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives: Vec<String> =
        values.flat_map(|value| value.split(',')).map(|directive| directive.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|directive| directive == "no-store" || directive == "no-cache") {
        return MIN_LIFETIME;
    }
    let max_age = directives.iter().find_map(|directive| directive.strip_prefix("max-age=")?.parse().ok());
    max_age.map_or(DEFAULT_LIFETIME, |seconds| Duration::from_secs(seconds).clamp(MIN_LIFETIME, MAX_LIFETIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lifetime_is_the_issuers_within_bounds() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(value));
            lifetime(&headers).as_secs()
        };
        assert_eq!(lifetime(&HeaderMap::new()).as_secs(), 600);
        for (value, seconds) in [
            ("public, Max-Age=900, must-revalidate", 900),
            ("max-age=0", 60),
            ("max-age=86400", 3600),
            ("max-age=99999999999999999999", 600),
            ("max-age=x", 600),
            ("private", 600),
            ("no-store, max-age=900", 60),
        ] {
            assert_eq!(of(value), seconds, "{value}");
        }
    }
}
