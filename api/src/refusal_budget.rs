//! How many refusals are recorded in the audit: whoever is refused decides how many there are, and must not fill the ledger
//! with them, nor take its connections.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Refusals that are recorded at once, and a second after that.
const BURST: f64 = 60.0;
const PER_SECOND: f64 = 2.0;

/// The refusals that may still be recorded, and when that was.
#[derive(Debug)]
pub(crate) struct RefusalBudget(Mutex<(f64, Instant)>);

impl Default for RefusalBudget {
    fn default() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }
}

impl RefusalBudget {
    /// Takes one, if there is one.
    pub(crate) fn take(&self) -> bool {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> bool {
        // A panic while the lock is held leaves two numbers.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, at) = *state;
        let left = (left + now.duration_since(at).as_secs_f64() * PER_SECOND).min(BURST);
        let taken = left >= 1.0;
        *state = (if taken { left - 1.0 } else { left }, now);
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_recorded_in_part() {
        let (budget, start) = (RefusalBudget::default(), Instant::now());
        assert_eq!((0..1000).filter(|_| budget.take_at(start)).count(), 60);
        let later = start + Duration::from_secs(10);
        assert_eq!((0..1000).filter(|_| budget.take_at(later)).count(), 20);
    }
}
