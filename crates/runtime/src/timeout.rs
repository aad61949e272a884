//! Time limits for calls to other servers. A server that is down refuses at once; one that is frozen or cut off never answers.

use std::time::Duration;

/// A call was not answered within its time limit.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs_f64())]
pub struct TimedOut(pub Duration);

/// Waits for the answer of `call` for at most `limit`. A call that is given up may still take effect.
pub async fn with_timeout<T, F, E>(limit: Duration, call: impl Future<Output = Result<T, F>>) -> Result<T, E>
where
    E: From<TimedOut> + From<F>,
{
    Ok(tokio::time::timeout(limit, call).await.map_err(|_| TimedOut(limit))??)
}
