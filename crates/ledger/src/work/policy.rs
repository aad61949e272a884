//! The limits under which work is handed out: lease, deadlines and retries; and how an export ends that has reached one.

use polyglot_core::request::ExportRequest;
use std::time::Duration;

use uuid::Uuid;

use polyglot_core::failure::{Failure, FailureKind};

/// The limits under which work is claimed.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub lease: Duration,
    /// Longest time from the export's first claim to its end.
    pub timeout: Option<Duration>,
    /// Longest time that an attempt may use its snapshot.
    pub snapshot_age: Option<Duration>,
    pub retry: RetryPolicy,
    /// Number of exports that may keep a snapshot open at a time, for all workers together.
    pub max_open_snapshots: u16,
    /// Returns why this version cannot work on a request, if it cannot.
    pub check_request: fn(&ExportRequest) -> Result<(), String>,
}

/// The number of failures after which an export fails, and the pauses after each.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    pub max_attempts: i32,
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl RetryPolicy {
    #[must_use]
    pub fn new(max_attempts: i32) -> Self {
        Self { max_attempts, first_pause: Duration::from_secs(1), longest_pause: Duration::from_mins(1) }
    }

    /// The pause after that many failures. It doubles with each, and up to half of it is added so that many exports are not
    /// retried at the same moment.
    pub(super) fn pause(self, failures: i32, id: Uuid) -> Duration {
        let doublings = u32::try_from(failures.clamp(1, 16) - 1).unwrap_or(0);
        let base = (self.first_pause * 2_u32.pow(doublings)).min(self.longest_pause);
        // The random bits of the id are jitter enough, and make the pause repeatable.
        base + base * u32::from(id.as_bytes()[15]) / 512
    }
}

/// The failure of an export whose deadline has passed.
#[must_use]
pub fn deadline_failure() -> Failure {
    Failure::new(
        FailureKind::DeadlineExceeded,
        "The export took longer than it may (EXPORT_TIMEOUT_MS).",
        "deadline_at went by",
    )
}

/// The failure of an export that used its snapshot for too long.
#[must_use]
pub fn snapshot_age_failure() -> Failure {
    Failure::new(
        FailureKind::SnapshotTooOld,
        "The export needed its snapshot of the source for longer than it may (SNAPSHOT_MAX_AGE_SECONDS).",
        "snapshot_until went by",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_stay_bounded() {
        let policy = RetryPolicy::new(5);
        let id = Uuid::nil();
        assert_eq!(policy.pause(1, id), Duration::from_secs(1));
        assert_eq!(policy.pause(3, id), Duration::from_secs(4));
        assert_eq!(policy.pause(i32::MAX, id), Duration::from_mins(1));
        assert!(policy.pause(9, Uuid::max()) < Duration::from_secs(90));
    }
}
