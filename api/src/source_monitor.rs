//! Whether the source database can be reached, and what the service's sessions do there. Each measurement opens a connection,
//! so that it also finds out whether that is possible.

use std::time::Duration;

use polyglot_core::failure::chain;
use polyglot_source::{ConnectionLimit, DatabaseUrl, RoleCheck, SessionActivity, SourceConnection, session_activity};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// Age up to which the result of an earlier measurement is answered again.
const MAX_AGE: Duration = Duration::from_secs(5);

/// Time limit of a measurement.
const MEASUREMENT_TIMEOUT: Duration = Duration::from_secs(3);

/// Measures the source, at most one at a time.
pub(crate) struct SourceMonitor {
    url: DatabaseUrl,
    limit: ConnectionLimit,
    role_check: RoleCheck,
    /// The lock is held during a measurement, so that concurrent callers share its result.
    last: Mutex<Option<(Instant, Option<SessionActivity>)>>,
}

impl SourceMonitor {
    pub(crate) fn new(url: DatabaseUrl, limit: ConnectionLimit, role_check: RoleCheck) -> Self {
        Self { url, limit, role_check, last: Mutex::default() }
    }

    /// Whether exports are refused because the source's role may do more than read.
    pub(crate) async fn is_refused(&self) -> bool {
        self.role_check.refusal().await.is_some()
    }

    /// The activity of the service's sessions, as of a few seconds ago at most; `None` if the source could not be reached.
    pub(crate) async fn activity(&self) -> Option<SessionActivity> {
        let mut last = self.last.lock().await;
        if let Some((at, activity)) = *last
            && at.elapsed() < MAX_AGE
        {
            return activity;
        }
        let activity = match timeout(MEASUREMENT_TIMEOUT, Box::pin(self.measure())).await {
            Ok(Ok(activity)) => Some(activity),
            Ok(Err(error)) => {
                tracing::warn!(what = "source", error = chain(&error), "readiness probe failed");
                None
            }
            Err(_) => {
                tracing::warn!(what = "source", "readiness probe timed out");
                None
            }
        };
        *last = Some((Instant::now(), activity));
        activity
    }

    async fn measure(&self) -> Result<SessionActivity, sqlx::Error> {
        let permit = self.limit.acquire_control().await;
        let mut connection = SourceConnection::open(permit, &self.url, "polyglot monitor").await?;
        let activity = session_activity(&mut connection).await?;
        connection.close();
        Ok(activity)
    }
}
