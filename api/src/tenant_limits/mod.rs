//! What each tenant may have at most: the operator's `TENANT_LIMITS` file, and the limits that this process enforces with the
//! ledger, of requests and of event streams. Those of submissions and of begun exports are the ledger's alone.

mod config;
mod request_block;
mod request_quota;
mod stream_slot;

use polyglot_core::tenant_limits::{LimitReached, TenantLimit, TenantLimits};
use polyglot_ledger::{Ledger, LedgerError, with_timeout};
use polyglot_runtime::telemetry::HTTP_REFUSED;

pub(crate) use config::LimitsByTenant;
pub(crate) use request_quota::{Quota, RequestQuotas};
pub(crate) use stream_slot::HeldStream;

use crate::problem::RouteError;

/// The limits of all tenants, and what this process counts of them.
pub(crate) struct TenantGate {
    limits: LimitsByTenant,
    quotas: RequestQuotas,
}

impl TenantGate {
    pub(crate) fn new(limits: LimitsByTenant) -> Self {
        for limit in TenantLimit::ALL {
            metrics::counter!(HTTP_REFUSED, "reason" => reason(limit)).increment(0);
        }
        Self { limits, quotas: RequestQuotas::default() }
    }

    /// The limits of a tenant.
    pub(crate) fn of(&self, tenant: &str) -> &TenantLimits {
        self.limits.of(tenant)
    }

    /// Counts a request of the tenant. `None`: it has no limit of requests.
    pub(crate) async fn count_request(&self, tenant: &str, ledger: &Ledger) -> Option<Quota> {
        let rate = self.of(tenant).request_rate()?;
        Some(self.quotas.count_request(tenant, rate, ledger).await)
    }
}

/// Writes the limits of begun exports into the ledger, where workers look them up.
pub(crate) async fn store_running(limits: &LimitsByTenant, ledger: &Ledger) -> Result<(), LedgerError> {
    let (tenants, other) = limits.running();
    with_timeout(ledger.set_running_limits(&tenants, other)).await
}

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
