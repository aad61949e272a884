//! The time by which tokens expire and keys are fetched again. A test sets it.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

#[derive(Clone)]
pub(super) struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    pub(super) fn system() -> Self {
        Self::of(Utc::now)
    }

    pub(super) fn of(now: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        (self.0)()
    }
}

/// Whether `then` is less than `limit` before `now`. A time that is still to come is not: the clock was set back, and how long
/// ago it really was is unknown.
pub(super) fn is_within(limit: TimeDelta, then: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    (TimeDelta::zero()..limit).contains(&(now - then))
}
