//! Waiting for an export to end, so that `curl -L` right after a submission gets the file. A waiting request is woken by the
//! event feed, holds no connection to the ledger, and its handler is dropped when the client disconnects.

use std::time::Duration;

use axum::http::HeaderMap;
use polyglot_ledger::Export;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::config::MAX_WAIT;
use crate::exports::inspect::find;
use crate::problem::RouteError;
use crate::state::AppState;

/// Time after which a waiting request reads its export by itself, in case that the feed cannot. The feed looks for exports that
/// have ended without a notification more often.
const SAFETY_INTERVAL: Duration = Duration::from_secs(5);

/// Returns the export when it has ended, after `limit`, or when the process is stopping, whichever comes first.
pub(super) async fn until_ended(app: &AppState, id: Uuid, limit: Duration) -> Result<Export, RouteError> {
    let deadline = Instant::now() + limit;
    let mut wait = app.feed.wait_for_end(id);
    loop {
        // Read after the wait has begun, even the first time: it may have ended just before.
        let export = find(app, id).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        if !export.status.is_active() || left.is_zero() {
            return Ok(export);
        }
        tokio::select! {
            () = wait.ended() => {}
            () = sleep(SAFETY_INTERVAL.min(left)) => {}
            () = app.lifecycle.stopping.cancelled() => return Ok(export),
        }
    }
}

/// The first `wait` of the `Prefer` header (RFC 7240) that is a number, capped at `MAX_WAIT`.
pub(super) fn preferred(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.split(';').next()?.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .find_map(|(_, seconds)| seconds.trim().trim_matches('"').parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read() {
        for (header, seconds) in [
            ("wait=10", Some(10)),
            ("respond-async, WAIT = \"7\"; x=y", Some(7)),
            ("wait=0", Some(0)),
            ("wait=3, wait=9", Some(3)),
            ("wait=99999", Some(120)),
            ("wait=soon", None),
            ("wait=-1", None),
            ("respond-async", None),
        ] {
            let headers = HeaderMap::from_iter([("prefer".parse().unwrap(), header.parse().unwrap())]);
            assert_eq!(preferred(&headers), seconds.map(Duration::from_secs), "{header}");
        }
    }
}
