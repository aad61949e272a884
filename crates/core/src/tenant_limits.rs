//! What one tenant may have of the service at most, and the refusal of what would be more.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// The limits of a tenant. What is `None` has no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantLimits {
    /// Exports that have not ended, those that have begun among them.
    pub queued: Option<u32>,
    /// Exports that have begun and have not ended. More of them wait.
    pub running: Option<u32>,
    /// Rows of the exports that were completed in the last 24 hours.
    pub rows_per_day: Option<u64>,
    /// Bytes in the object store of the same exports.
    pub bytes_per_day: Option<u64>,
    /// Requests that say who asks, on average.
    pub requests_per_second: Option<u32>,
    /// Requests at once after a pause; `None`: those of a second.
    pub request_burst: Option<u32>,
    /// Shards of one export that are worked on at a time. A request for more gets so many.
    pub parallelism: Option<u16>,
    /// Event streams that are open.
    pub streams: Option<u32>,
    /// Total cost of an export's query, as `EXPLAIN` estimates it.
    pub planner_cost: Option<f64>,
}

/// How many requests a tenant may make: so many a second on average, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestRate {
    pub per_second: u32,
    /// At least `per_second`.
    pub burst: u32,
}

impl TenantLimits {
    /// These limits, and those of `default` where there is none of these.
    #[must_use]
    pub fn or(self, default: Self) -> Self {
        // The burst belongs to the rate: that of another rate would not fit.
        let rate = if self.requests_per_second.is_some() { self } else { default };
        Self {
            queued: self.queued.or(default.queued),
            running: self.running.or(default.running),
            rows_per_day: self.rows_per_day.or(default.rows_per_day),
            bytes_per_day: self.bytes_per_day.or(default.bytes_per_day),
            requests_per_second: rate.requests_per_second,
            request_burst: rate.request_burst,
            parallelism: self.parallelism.or(default.parallelism),
            streams: self.streams.or(default.streams),
            planner_cost: self.planner_cost.or(default.planner_cost),
        }
    }

    #[must_use]
    pub fn request_rate(&self) -> Option<RequestRate> {
        let per_second = self.requests_per_second?;
        Some(RequestRate { per_second, burst: self.request_burst.unwrap_or(per_second) })
    }

    /// The parallelism of an export whose request asks for `wanted`.
    #[must_use]
    pub fn parallelism_of(&self, wanted: Option<u16>) -> Option<u16> {
        match (wanted, self.parallelism) {
            (Some(wanted), Some(limit)) => Some(wanted.min(limit)),
            (wanted, limit) => wanted.or(limit),
        }
    }

    /// The first field that cannot be used, and why.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let is_zero = [
            ("queued", self.queued == Some(0)),
            ("running", self.running == Some(0)),
            ("rows_per_day", self.rows_per_day == Some(0)),
            ("bytes_per_day", self.bytes_per_day == Some(0)),
            ("requests_per_second", self.requests_per_second == Some(0)),
            ("request_burst", self.request_burst == Some(0)),
            ("parallelism", self.parallelism == Some(0)),
            ("streams", self.streams == Some(0)),
            // Not `<= 0`, which NaN is not either.
            ("planner_cost", self.planner_cost.is_some_and(|cost| !(cost > 0.0 && cost.is_finite()))),
        ];
        if let Some((field, _)) = is_zero.into_iter().find(|(_, it)| *it) {
            let problem =
                "expected a number above zero; leave it out for no limit, and revoke its keys to shut a tenant out";
            return Some((field, problem.to_owned()));
        }
        // What PostgreSQL's integer can hold.
        if self.running.is_some_and(|running| i32::try_from(running).is_err()) {
            return Some(("running", format!("expected at most {}", i32::MAX)));
        }
        match (self.requests_per_second, self.request_burst) {
            (None, Some(_)) => Some((
                "request_burst",
                "is for requests_per_second, which is not beside it; set that as well".to_owned(),
            )),
            (Some(rate), Some(burst)) if burst < rate => {
                Some(("request_burst", format!("expected at least requests_per_second, which is {rate}")))
            }
            _ => None,
        }
    }
}

/// A limit beyond which a request is refused until something has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantLimit {
    Queued,
    RowsPerDay,
    BytesPerDay,
    RequestsPerSecond,
    Streams,
}

impl TenantLimit {
    pub const ALL: [Self; 5] =
        [Self::Queued, Self::RowsPerDay, Self::BytesPerDay, Self::RequestsPerSecond, Self::Streams];

    /// The name of its field.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::RowsPerDay => "rows_per_day",
            Self::BytesPerDay => "bytes_per_day",
            Self::RequestsPerSecond => "requests_per_second",
            Self::Streams => "streams",
        }
    }
}

/// A tenant has as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReached {
    pub limit: TenantLimit,
    pub max: u64,
    pub used: u64,
    /// Time after which another try may succeed.
    pub retry_after: Duration,
}

impl fmt::Display for LimitReached {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the tenant has {} of {} ({})", self.used, self.max, self.limit.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_s_own_limit_comes_before_the_default() {
        let default = TenantLimits {
            queued: Some(10),
            streams: Some(2),
            requests_per_second: Some(5),
            request_burst: Some(50),
            ..TenantLimits::default()
        };
        let own = TenantLimits { queued: Some(100), requests_per_second: Some(80), ..TenantLimits::default() };
        let both = own.or(default);
        assert_eq!((both.queued, both.streams, both.running), (Some(100), Some(2), None));
        assert_eq!(both.request_rate(), Some(RequestRate { per_second: 80, burst: 80 }));
        let rate = TenantLimits::default().or(default).request_rate();
        assert_eq!(rate, Some(RequestRate { per_second: 5, burst: 50 }));
    }

    #[test]
    fn the_smaller_parallelism_holds() {
        let limited = TenantLimits { parallelism: Some(4), ..TenantLimits::default() };
        assert_eq!([None, Some(2), Some(9)].map(|wanted| limited.parallelism_of(wanted)), [Some(4), Some(2), Some(4)]);
        assert_eq!([None, Some(2)].map(|wanted| TenantLimits::default().parallelism_of(wanted)), [None, Some(2)]);
    }

    #[test]
    fn limits_that_make_no_sense_name_their_field() {
        let none = TenantLimits::default();
        for (limits, field) in [
            (TenantLimits { queued: Some(0), ..none }, "queued"),
            (TenantLimits { running: Some(u32::MAX), ..none }, "running"),
            (TenantLimits { request_burst: Some(5), ..none }, "request_burst"),
            (TenantLimits { request_burst: Some(5), requests_per_second: Some(6), ..none }, "request_burst"),
            (TenantLimits { planner_cost: Some(f64::NAN), ..none }, "planner_cost"),
            (TenantLimits { planner_cost: Some(-1.0), ..none }, "planner_cost"),
        ] {
            assert_eq!(limits.problem().map(|(field, _)| field), Some(field));
        }
        assert_eq!(TenantLimits { requests_per_second: Some(6), request_burst: Some(6), ..none }.problem(), None);
    }
}
