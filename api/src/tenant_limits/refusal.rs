//! The refusal of what would pass a limit, which is counted.

use polyglot_core::tenant_limits::{LimitReached, TenantLimit};
use polyglot_runtime::telemetry::HTTP_REFUSED;

use crate::problem::RouteError;

/// The answer to a request that would pass a limit, which is counted.
pub(crate) fn refused(reached: LimitReached) -> RouteError {
    metrics::counter!(HTTP_REFUSED, "reason" => reason(reached.limit)).increment(1);
    RouteError::TenantLimit(reached)
}

/// As [`refused`], of a call of the ledger. Other errors are as they are.
pub(crate) fn refused_by_ledger(error: RouteError) -> RouteError {
    match error {
        RouteError::TenantLimit(reached) => refused(reached),
        other => other,
    }
}

/// Registers the counters with the value 0: one that appears with its first event shows no increase for it.
pub(super) fn register_counters() {
    for limit in TenantLimit::ALL {
        metrics::counter!(HTTP_REFUSED, "reason" => reason(limit)).increment(0);
    }
}

/// The value of the metric's label.
fn reason(limit: TenantLimit) -> &'static str {
    match limit {
        TenantLimit::Queued => "tenant_queued",
        TenantLimit::RowsPerDay => "tenant_rows_per_day",
        TenantLimit::BytesPerDay => "tenant_bytes_per_day",
        TenantLimit::RequestsPerSecond => "tenant_requests_per_second",
        TenantLimit::Streams => "tenant_streams",
    }
}
