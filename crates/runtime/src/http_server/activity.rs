//! What happens on one connection, as far as its time limits go: whether the head of a request is awaited, and since when the
//! client has not read.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionTimeouts {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) write: Duration,
}

/// The limit that a connection has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// The head of a request did not arrive in time.
    Head,
    /// Nobody has sent another request.
    Idle,
    /// The client has not read what was sent to it.
    Write,
}

/// The activity of one connection. The stream and the service report to it, and the connection's task asks it for the
/// next deadline after each turn, so that one timer is enough.
#[derive(Debug)]
pub(super) struct ConnectionActivity {
    timeouts: ConnectionTimeouts,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Since when the socket has accepted no byte of those that wait for it.
    blocked_since: Option<Instant>,
    /// The client has closed its side.
    ended: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The head of a request is due: the first one of the connection, or one that has begun to arrive.
    Head { since: Instant },
    /// A request is being answered.
    Request,
    /// Between two requests.
    Idle { since: Instant },
}

impl ConnectionActivity {
    /// The activity of a connection that was accepted now.
    pub(super) fn new(timeouts: ConnectionTimeouts) -> Self {
        let phase = Phase::Head { since: Instant::now() };
        Self { timeouts, state: Mutex::new(State { phase, blocked_since: None, ended: false }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head of the first request is due from now on.
    pub(super) fn head_begins(&self) {
        self.state().phase = Phase::Head { since: Instant::now() };
    }

    /// Bytes have arrived, or, if there are none, the client has closed its side.
    pub(super) fn received(&self, bytes: usize) {
        let mut state = self.state();
        state.ended |= bytes == 0;
        if let Phase::Idle { .. } = state.phase {
            state.phase = Phase::Head { since: Instant::now() };
        }
    }

    /// The socket has accepted bytes, or, if there are none, has no room for those that wait.
    pub(super) fn sent(&self, bytes: usize) {
        let mut state = self.state();
        if bytes > 0 {
            state.blocked_since = None;
        } else {
            state.blocked_since.get_or_insert_with(Instant::now);
        }
    }

    /// The head of a request is complete.
    pub(super) fn request_began(&self) {
        self.state().phase = Phase::Request;
    }

    /// The last byte of the answer is on its way to the socket.
    pub(super) fn request_ended(&self) {
        self.state().phase = Phase::Idle { since: Instant::now() };
    }

    /// Whether the client has closed its side.
    pub(super) fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// The next limit of time that the connection will pass, and when.
    pub(super) fn deadline(&self) -> Option<(Instant, Expired)> {
        let (phase, blocked_since) = {
            let state = self.state();
            (state.phase, state.blocked_since)
        };
        let of_phase = match phase {
            Phase::Head { since } => Some((since + self.timeouts.head, Expired::Head)),
            Phase::Request => None,
            Phase::Idle { since } => Some((since + self.timeouts.idle, Expired::Idle)),
        };
        let of_writing = blocked_since.map(|since| (since + self.timeouts.write, Expired::Write));
        of_phase.into_iter().chain(of_writing).min_by_key(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_its_limit() {
        let seconds = Duration::from_secs;
        let timeouts = ConnectionTimeouts { head: seconds(1000), idle: seconds(6000), write: seconds(3000) };
        let activity = ConnectionActivity::new(timeouts);
        let expires = |limit: Duration, expired| {
            let (deadline, found) = activity.deadline().unwrap();
            let left = deadline.duration_since(Instant::now());
            assert!(found == expired && left <= limit && left > limit.mul_f32(0.9), "{found:?} in {left:?}");
            deadline
        };
        let head = expires(timeouts.head, Expired::Head);
        // More of the same head gives no more time.
        activity.received(1);
        assert_eq!(expires(timeouts.head, Expired::Head), head);
        activity.request_began();
        assert_eq!(activity.deadline(), None);
        activity.sent(0);
        let blocked = expires(timeouts.write, Expired::Write);
        activity.sent(0);
        assert_eq!(expires(timeouts.write, Expired::Write), blocked);
        activity.sent(1);
        assert_eq!(activity.deadline(), None);
        activity.request_ended();
        expires(timeouts.idle, Expired::Idle);
        // The rest of an answer that is not read counts before the pause after it.
        activity.sent(0);
        expires(timeouts.write, Expired::Write);
        activity.sent(1);
        activity.received(1);
        expires(timeouts.head, Expired::Head);
        assert!(!activity.has_ended());
        activity.received(0);
        assert!(activity.has_ended());
    }
}
