//! The limits of all tenants, as the handlers ask for them.

use polyglot_core::tenant_limits::TenantLimits;
use polyglot_ledger::{Ledger, LedgerError, with_timeout};

use super::config::LimitsByTenant;
use super::refusal;
use super::request_quota::{Quota, RequestQuotas};

/// The limits of all tenants, and what this process counts of them.
pub(crate) struct TenantGate {
    limits: LimitsByTenant,
    quotas: RequestQuotas,
}

impl TenantGate {
    pub(crate) fn new(limits: LimitsByTenant) -> Self {
        refusal::register_counters();
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
