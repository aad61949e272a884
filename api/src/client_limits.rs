//! The limits of what clients may have at a time: connections, answers in memory, streams of events, and downloads
//! that wait or that the api sends itself. They are chosen so that the process stays below 256 MB with all of them reached,
//! `docs/operations/limits.md` lists them.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::StreamExt;
use polyglot_runtime::http_server::HttpLimits;
use polyglot_runtime::quota::{Peer, Quota, QuotaLimits, QuotaPermit};
use polyglot_runtime::telemetry::HTTP_REFUSED;

use crate::limited_use::LimitedUse;
use crate::problem::RouteError;

/// Downloads through the api. Each holds a connection to the object store and some hundred KiB on its way.
const PROXIED_DOWNLOADS: QuotaLimits = QuotaLimits { total: 64, per_peer: 32 };

/// Bytes of answers that are not sent yet.
const RESPONSE_BYTES: QuotaLimits = QuotaLimits { total: 24 << 20, per_peer: 16 << 20 };

/// The limits of connections and answers, with so many connections.
pub(crate) fn http_limits(connections: QuotaLimits) -> HttpLimits {
    HttpLimits { connections, response_bytes: RESPONSE_BYTES, ..HttpLimits::default() }
}

/// The quotas of requests that take long.
pub(crate) struct ClientLimits {
    event_streams: Quota,
    waiting_downloads: Quota,
    proxied_downloads: Quota,
}

impl ClientLimits {
    /// Streams and waiting downloads may take half of the connections each: one that is open only to wait should leave others
    /// to requests.
    pub(crate) fn new(connections: QuotaLimits) -> Self {
        for what in [LimitedUse::EventStream, LimitedUse::WaitingDownload, LimitedUse::ProxiedDownload] {
            metrics::counter!(HTTP_REFUSED, "reason" => what.reason()).increment(0);
        }
        let half = QuotaLimits { total: connections.total.div_ceil(2), per_peer: connections.per_peer.div_ceil(2) };
        Self {
            event_streams: Quota::new(half),
            waiting_downloads: Quota::new(half),
            proxied_downloads: Quota::new(PROXIED_DOWNLOADS),
        }
    }

    /// Takes one of `what` for `client`, until the permit is dropped.
    pub(crate) fn acquire(&self, what: LimitedUse, Client(peer): Client) -> Result<QuotaPermit, RouteError> {
        let quota = match what {
            LimitedUse::EventStream => &self.event_streams,
            LimitedUse::WaitingDownload => &self.waiting_downloads,
            LimitedUse::ProxiedDownload => &self.proxied_downloads,
        };
        quota.try_acquire(peer, 1).map_err(|exceeded| {
            metrics::counter!(HTTP_REFUSED, "reason" => what.reason()).increment(1);
            RouteError::TooMany { what, exceeded }
        })
    }
}

/// The client of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client(Peer);

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // The server sets it; tests that call the router have no peer.
        let unknown = || Peer::of(Ipv4Addr::UNSPECIFIED.into());
        Ok(Self(parts.extensions.get().copied().unwrap_or_else(unknown)))
    }
}

/// The response, which holds `permit` until its body is sent or its client has left.
pub(crate) fn hold_until_sent<T: Send + 'static>(response: Response, permit: T) -> Response {
    response.map(|body| {
        Body::from_stream(body.into_data_stream().inspect(move |_| {
            let _held = &permit;
        }))
    })
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use polyglot_runtime::quota::QuotaExceeded;

    use super::*;

    #[test]
    fn a_response_holds_its_permit() {
        let limits = ClientLimits::new(QuotaLimits { total: 8, per_peer: 2 });
        let client = Client(Peer::of([10, 0, 0, 1].into()));
        let permit = limits.acquire(LimitedUse::EventStream, client).unwrap();
        let response = hold_until_sent("text".into_response(), permit);
        let refused = limits.acquire(LimitedUse::EventStream, client).unwrap_err();
        assert!(matches!(
            refused,
            RouteError::TooMany { what: LimitedUse::EventStream, exceeded: QuotaExceeded::Peer }
        ));
        // Each use has a quota of its own.
        limits.acquire(LimitedUse::WaitingDownload, client).unwrap();
        drop(response);
        limits.acquire(LimitedUse::EventStream, client).unwrap();
    }
}
