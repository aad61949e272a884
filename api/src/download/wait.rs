//! Waiting for an export to end, so that `curl -L` right after a submission gets the file. A waiting request is woken by the
//! event feed, holds no connection to the ledger, and its handler is dropped when the client disconnects.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use polyglot_ledger::Export;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::config::MAX_WAIT;
use crate::exports::inspect::find;
use crate::identity::Caller;
use crate::problem::RouteError;
use crate::state::AppState;

/// Time after which a waiting request reads its export by itself, in case that the feed cannot. The feed looks for exports that
/// have ended without a notification more often.
const SAFETY_INTERVAL: Duration = Duration::from_secs(5);

/// How often a client is redirected to wait on. curl follows 50 redirects unless told, and one more leads to the file: with the
/// default `DOWNLOAD_WAIT_MS` of 25 seconds this makes twenty minutes.
pub(super) const MAX_CONTINUATIONS: u64 = 48;

/// Returns the export when it has ended, after `limit`, or when the process is stopping, whichever comes first.
pub(super) async fn until_ended(
    app: &AppState,
    caller: &Caller,
    id: Uuid,
    limit: Duration,
) -> Result<Export, RouteError> {
    let deadline = Instant::now() + limit;
    let mut wait = app.feed.wait_for_end(id);
    loop {
        // Read after the wait has begun, even the first time: it may have ended just before.
        let export = find(app, caller, id).await?;
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

/// What the `Prefer` header (RFC 7240) says about waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WaitPreference {
    /// The first `wait` that is a number, capped at `MAX_WAIT`.
    pub(super) wait: Option<Duration>,
    /// `respond-async`.
    respond_async: bool,
}

impl WaitPreference {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut preference = Self::default();
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for text in values.flat_map(|value| value.split(',')) {
            let text = text.split(';').next().unwrap_or_default();
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            if name.trim().eq_ignore_ascii_case("respond-async") {
                preference.respond_async = true;
            } else if name.trim().eq_ignore_ascii_case("wait") && preference.wait.is_none() {
                let seconds = value.trim().trim_matches('"').parse().ok();
                preference.wait = seconds.map(|seconds| Duration::from_secs(seconds).min(MAX_WAIT));
            }
        }
        preference
    }

    /// Whether the client takes 202 for an answer.
    pub(super) fn takes_accepted(self) -> bool {
        self.wait.is_some() || self.respond_async
    }

    /// The header `Preference-Applied`. A time in the query goes before the preferred one.
    pub(super) fn applied(self, with_wait: bool) -> Option<HeaderValue> {
        let respond_async = self.respond_async.then(|| "respond-async".to_owned());
        let wait = self.wait.filter(|_| with_wait).map(|wait| format!("wait={}", wait.as_secs()));
        let applied: Vec<String> = respond_async.into_iter().chain(wait).collect();
        let value = HeaderValue::try_from(applied.join(", ")).expect("names and digits are a header value");
        (!applied.is_empty()).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read() {
        for (header, seconds, respond_async, applied) in [
            ("wait=10", Some(10), false, Some("wait=10")),
            ("respond-async, WAIT = \"7\"; x=y", Some(7), true, Some("respond-async, wait=7")),
            ("wait=0", Some(0), false, Some("wait=0")),
            ("wait=3, wait=9", Some(3), false, Some("wait=3")),
            ("wait=99999", Some(120), false, Some("wait=120")),
            ("wait=soon", None, false, None),
            ("wait=-1", None, false, None),
            ("Respond-Async", None, true, Some("respond-async")),
            ("return=minimal", None, false, None),
        ] {
            let headers = HeaderMap::from_iter([("prefer".parse().unwrap(), header.parse().unwrap())]);
            let preference = WaitPreference::of(&headers);
            assert_eq!(
                preference,
                WaitPreference { wait: seconds.map(Duration::from_secs), respond_async },
                "{header}"
            );
            assert_eq!(preference.takes_accepted(), applied.is_some(), "{header}");
            let said = preference.applied(true);
            assert_eq!(said.as_ref().map(|value| value.to_str().unwrap()), applied, "{header}");
        }
        assert_eq!(WaitPreference::of(&HeaderMap::new()), WaitPreference::default());
    }
}
