//! What one process has of the requests that a tenant may make: a block that it took out of the tenant's bucket in the ledger.

use std::time::Duration;

use polyglot_core::tenant_limits::RequestRate;
use polyglot_ledger::RequestBlock;
use tokio::time::Instant;

/// Shortest time between two looks at a bucket that was found empty, so that a flood asks the ledger a few times a second.
const EMPTY_PAUSE: Duration = Duration::from_millis(100);

/// Time for which the process lets through as many requests as the tenant may make by itself, after the ledger gave no answer.
const LOCAL_TIME: Duration = Duration::from_secs(1);

/// The requests of a tenant that this process may let through.
#[derive(Debug)]
pub(super) struct HeldBlock {
    rate: RequestRate,
    held: f64,
    /// What was left in the bucket at `at`, when the ledger was asked last.
    left: f64,
    at: Instant,
    /// Earliest time at which the ledger is asked again.
    next_look: Instant,
}

/// What is to be done with a request.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// `remaining`: requests that the tenant may still make at once, as far as this process knows.
    Accept {
        remaining: f64,
    },
    Refuse {
        retry_after: Duration,
    },
    /// The process has none, and may take another block.
    TakeBlock,
}

impl HeldBlock {
    pub(super) fn new(rate: RequestRate, now: Instant) -> Self {
        Self { rate, held: 0.0, left: f64::from(rate.burst), at: now, next_look: now }
    }

    /// Requests of one block: a quarter of what the tenant may make in a second.
    pub(super) fn block(&self) -> u32 {
        self.rate.per_second.div_ceil(4)
    }

    /// Takes one request, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> Verdict {
        if self.held >= 1.0 {
            self.held -= 1.0;
            return Verdict::Accept { remaining: self.remaining(now) };
        }
        match self.next_look.checked_duration_since(now) {
            Some(wait) if !wait.is_zero() => Verdict::Refuse { retry_after: wait },
            _ => Verdict::TakeBlock,
        }
    }

    fn remaining(&self, now: Instant) -> f64 {
        let refilled = now.duration_since(self.at).as_secs_f64() * f64::from(self.rate.per_second);
        (self.held + self.left + refilled).min(f64::from(self.rate.burst)).floor()
    }

    /// Adds what the ledger has granted.
    pub(super) fn add(&mut self, block: RequestBlock, now: Instant) {
        self.held += block.granted;
        (self.left, self.at, self.next_look) = (block.left, now, now);
        if block.granted < f64::from(self.block()) {
            // The next one is there after the rest of a token's time.
            let one = Duration::from_secs_f64((1.0 - block.left).max(0.0) / f64::from(self.rate.per_second));
            self.next_look = now + if block.granted < 1.0 { one.max(EMPTY_PAUSE) } else { EMPTY_PAUSE };
        }
    }

    /// Goes on without the ledger, which gave no answer: for a while the process has the tenant's requests to itself. With the
    /// ledger away no limit would be an invitation, and no request would be an outage of what needs no ledger.
    pub(super) fn add_local(&mut self, now: Instant) {
        self.held = f64::from(self.rate.per_second) * LOCAL_TIME.as_secs_f64();
        (self.left, self.at, self.next_look) = (0.0, now, now + LOCAL_TIME);
    }

    /// Time of the last look at the bucket.
    pub(super) fn last_look(&self) -> Instant {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: RequestRate = RequestRate { per_second: 20, burst: 40 };

    fn accepted(block: &mut HeldBlock, now: Instant) -> usize {
        std::iter::from_fn(|| matches!(block.take(now), Verdict::Accept { .. }).then_some(())).count()
    }

    #[test]
    fn a_block_is_used_up_and_another_one_is_taken_at_once() {
        let start = Instant::now();
        let mut block = HeldBlock::new(RATE, start);
        assert_eq!(block.take(start), Verdict::TakeBlock);
        block.add(RequestBlock { granted: 5.0, left: 35.0 }, start);
        assert_eq!(block.take(start), Verdict::Accept { remaining: 39.0 });
        assert_eq!(accepted(&mut block, start), 4);
        assert_eq!(block.take(start), Verdict::TakeBlock);
    }

    #[test]
    fn an_empty_bucket_is_not_looked_at_for_each_request() {
        let start = Instant::now();
        let mut block = HeldBlock::new(RATE, start);
        block.add(RequestBlock { granted: 0.0, left: 0.5 }, start);
        assert_eq!(block.take(start), Verdict::Refuse { retry_after: EMPTY_PAUSE });
        assert_eq!(block.take(start + EMPTY_PAUSE), Verdict::TakeBlock);
        // Of a slow rate the next request is far away.
        let mut slow = HeldBlock::new(RequestRate { per_second: 1, burst: 1 }, start);
        slow.add(RequestBlock { granted: 0.0, left: 0.25 }, start);
        assert_eq!(slow.take(start), Verdict::Refuse { retry_after: Duration::from_millis(750) });
    }

    #[test]
    fn without_the_ledger_the_process_has_the_rate_to_itself() {
        let start = Instant::now();
        let mut block = HeldBlock::new(RATE, start);
        let later = |seconds| start + Duration::from_secs(seconds);
        for second in 0..5 {
            block.add_local(later(second));
            assert_eq!(accepted(&mut block, later(second)), 20);
            assert!(matches!(block.take(later(second)), Verdict::Refuse { .. }));
            assert_eq!(block.take(later(second + 1)), Verdict::TakeBlock);
        }
    }
}
