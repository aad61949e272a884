//! The refusal of a pooler that gives each transaction another session of the server. A session's settings, on which the meaning
//! of names and the text of values depend, would be those of another client, and its prepared statements missing.

use std::time::Duration;

use polyglot_core::failure::chain;
use tokio::time::timeout;

use crate::connection::SourceConnection;
use crate::connection_limit::ConnectionLimit;
use crate::database_url::DatabaseUrl;

/// Time limit of the look, for a server that does not answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why the source is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "SOURCE_DATABASE_URL: a pooler answers that shares one session of the server among several connections (transaction or \
     statement mode), and an export needs a session of its own for its settings and its snapshot: set pool_mode = session for \
     this database in the pooler, or name the server itself"
)]
pub struct SharedSessions;

/// Looks whether two connections are one session of the server. Between two transactions a pooler that shares sessions gives the
/// one that became free last to the next connection that asks, so it is seen where no other client comes between. A source that
/// cannot be asked is not refused, for what reads from it says so; neither is one of which every connection is in use.
///
/// # Errors
/// When they are.
pub async fn find_shared_sessions(limit: &ConnectionLimit, url: &DatabaseUrl) -> Result<(), SharedSessions> {
    let Some(permit) = limit.try_acquire() else { return Ok(()) };
    let asking = async {
        let control = limit.acquire_control().await;
        let first = SourceConnection::open(permit, url, "polyglot pooler").await?;
        let second = SourceConnection::open(control, url, "polyglot pooler").await?;
        let are_one = first.pid() == second.pid();
        first.close();
        second.close();
        Ok::<_, sqlx::Error>(are_one)
    };
    match timeout(TIMEOUT, Box::pin(asking)).await {
        Ok(Ok(true)) => Err(SharedSessions),
        Ok(Ok(false)) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "the source could not be asked whether a pooler shares its sessions");
            Ok(())
        }
        Err(_) => {
            tracing::warn!(
                seconds = TIMEOUT.as_secs(),
                "the source has not said in time whether a pooler shares its sessions"
            );
            Ok(())
        }
    }
}
