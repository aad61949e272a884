//! Times as JSON documents have them.

use chrono::{DateTime, SecondsFormat, Utc};

/// RFC 3339 in UTC, with milliseconds.
pub(crate) fn timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
