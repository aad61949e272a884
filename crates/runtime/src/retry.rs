//! Repeating what fails for a while: calls until a time limit, and connections for as long as the process runs.

use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use tokio::time::Instant;
use uuid::Uuid;

/// Repeats `call` after a pause of `pause` while it fails with a transient error, until `limit` has passed. `notify` gets every
/// error after which the call is repeated. The call may take effect more than once.
pub async fn retry<T, E, F>(
    limit: Duration,
    pause: Duration,
    call: impl Fn() -> F,
    is_transient: impl Fn(&E) -> bool,
    notify: impl Fn(&E),
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + limit;
    call.retry(ConstantBuilder::new().with_delay(pause).without_max_times())
        .when(|error| is_transient(error) && Instant::now() < deadline)
        .notify(|error, _| notify(error))
        .await
}

/// The pause, with up to half of it added at random, so that processes which wait for the same do not all go on at the same moment.
#[must_use]
pub fn with_jitter(pause: Duration) -> Duration {
    pause + pause * u32::from(Uuid::new_v4().as_bytes()[0]) / 512
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The pause before the next try to connect: none at first, then doubling from 250 ms to 5 s, [with jitter](with_jitter)
/// (that of `backon` adds up to all of the pause).
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff(u32);

impl Backoff {
    /// Begins again without a pause, after a success.
    pub fn reset(&mut self) {
        self.0 = 0;
    }

    /// Waits before the next try.
    pub async fn pause(&mut self) {
        let tries = self.0;
        self.0 += 1;
        if tries == 0 {
            return;
        }
        let pause = (FIRST_PAUSE * (1 << (tries - 1).min(5))).min(LONGEST_PAUSE);
        tokio::time::sleep(with_jitter(pause)).await;
    }
}
