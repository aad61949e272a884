//! The refusal to work with a role of the source that may do more than read, unless the operator accepts it.

use std::sync::Arc;
use std::time::Duration;

use polyglot_core::failure::chain;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::connection::SourceConnection;
use crate::connection_limit::ConnectionLimit;
use crate::database_url::DatabaseUrl;
use crate::role_rights::{ExcessRight, RoleRights, role_rights};

/// Age up to which a result without findings is good enough.
const MAX_AGE: Duration = Duration::from_mins(1);
/// The same for a result with findings, which an operator is about to mend, and for a source that could not be asked.
const MAX_AGE_OTHERWISE: Duration = Duration::from_secs(5);
/// Time limit of a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// The check of the source's role; clones share its result.
#[derive(Clone)]
pub struct RoleCheck {
    url: DatabaseUrl,
    limit: ConnectionLimit,
    is_accepted: bool,
    /// The lock is held during a check, so that concurrent callers share its result.
    last: Arc<Mutex<Last>>,
}

#[derive(Default)]
struct Last {
    until: Option<Instant>,
    refusal: Option<Arc<RoleRights>>,
    /// The role could only read at the first check.
    was_accepted: bool,
}

impl RoleCheck {
    /// `is_accepted` is `SOURCE_ALLOW_PRIVILEGED`: the role is not asked about.
    #[must_use]
    pub fn new(url: impl Into<DatabaseUrl>, limit: ConnectionLimit, is_accepted: bool) -> Self {
        Self { url: url.into(), limit, is_accepted, last: Arc::default() }
    }

    /// The rights for which the role is refused, as of a minute ago at most; `None` if it is not. A source that cannot be
    /// asked is not refused, because what reads from it reports that, unless it was refused the last time.
    pub async fn refusal(&self) -> Option<Arc<RoleRights>> {
        if self.is_accepted {
            return None;
        }
        let mut last = self.last.lock().await;
        if last.until.is_some_and(|until| Instant::now() < until) {
            return last.refusal.clone();
        }
        let mut max_age = MAX_AGE_OTHERWISE;
        match timeout(CHECK_TIMEOUT, Box::pin(self.ask())).await {
            Ok(Ok(rights)) if rights.excess.is_empty() => {
                max_age = MAX_AGE;
                last.refusal = None;
                last.was_accepted = true;
            }
            // Everybody may grant rights on what they own. That must not stop the exports of all others.
            Ok(Ok(rights)) if last.was_accepted && rights.excess.iter().all(ExcessRight::is_for_owners_to_grant) => {
                max_age = MAX_AGE;
                last.refusal = None;
                tracing::error!(role = rights.role, problem = %rights, "the role of the source database may do more than at the start");
            }
            Ok(Ok(rights)) => {
                tracing::error!(role = rights.role, problem = %rights, "the role of the source database is refused");
                last.refusal = Some(Arc::new(rights));
            }
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "the role of the source could not be checked"),
            Err(_) => tracing::warn!(
                seconds = CHECK_TIMEOUT.as_secs(),
                "the role of the source could not be checked in time; what it may do is not known"
            ),
        }
        last.until = Some(Instant::now() + max_age);
        last.refusal.clone()
    }

    async fn ask(&self) -> Result<RoleRights, sqlx::Error> {
        let permit = self.limit.acquire_control().await;
        let mut connection = SourceConnection::open(permit, &self.url, "polyglot role").await?;
        let rights = role_rights(&mut connection).await?;
        connection.close();
        Ok(rights)
    }
}
