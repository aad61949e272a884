//! Waiting for a condition, for tests: one deadline and one rule for how often a condition is checked.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Longest time that a test waits for anything. It ends tests that hang and measures nothing: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// Bounds of the pause between two checks. In between it is a tenth of the time waited so far: what happens soon is
/// noticed soon, and a long wait costs few checks.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];

/// Result of one check of a condition.
pub trait Check {
    /// What [`wait_until`] returns once the condition is met.
    type Value;

    /// The value, or the state that the condition found instead, for the message of a test that gives up.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl Check for bool {
    type Value = ();

    fn outcome(self) -> Result<(), String> {
        if self { Ok(()) } else { Err(String::new()) }
    }
}

impl<T> Check for Option<T> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(String::new)
    }
}

impl<T> Check for Result<T, String> {
    type Value = T;

    fn outcome(self) -> Self {
        self
    }
}

/// Waits until `condition` is met: until it returns `true`, `Some` or `Ok`.
///
/// # Panics
///
/// With `what` and the last `Err` of the condition when it is not met within [`DEADLINE`].
pub async fn wait_until<C: Check>(what: &str, condition: impl AsyncFnMut() -> C) -> C::Value {
    wait_until_within(DEADLINE, what, condition).await
}

/// As [`wait_until`], with another limit: where a test is about how long something takes.
pub async fn wait_until_within<C: Check>(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> C,
) -> C::Value {
    let began = Instant::now();
    loop {
        match condition().await.outcome() {
            Ok(value) => return value,
            Err(state) => assert!(began.elapsed() < limit, "not met within {limit:?}: {what}. {state}"),
        }
        sleep((began.elapsed() / 10).clamp(PAUSES[0], PAUSES[1])).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_value_is_returned_once_it_is_there() {
        let mut left = 3;
        let found = wait_until("three checks were made", async || {
            left -= 1;
            (left == 0).then_some("value")
        });
        assert_eq!(found.await, "value");
    }

    #[tokio::test]
    #[should_panic(expected = "it rains. The sun shines.")]
    async fn a_condition_that_is_never_met_fails_with_its_last_state() {
        let limit = Duration::from_millis(30);
        wait_until_within(limit, "it rains", async || Err::<(), _>("The sun shines.".to_owned())).await;
    }
}
