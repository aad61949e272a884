//! The limit of a tenant's requests, in blocks from the ledger, and the header fields that tell a client of it
//! (draft-ietf-httpapi-ratelimit-headers).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use polyglot_core::failure::chain;
use polyglot_core::tenant_limits::{LimitReached, RequestRate, TenantLimit};
use polyglot_ledger::Ledger;
use tokio::time::{Instant, timeout};

use super::request_block::{HeldBlock, Verdict};

const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Longest wait for a block. Requests of the tenant wait meanwhile.
const BLOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// Tenants whose blocks are kept at most. Tokens decide which tenants there are, so they must not fill the memory.
const CAPACITY: usize = 10_000;

/// Time without a look at its bucket after which a tenant's block may be dropped, when there are too many.
const IDLE: Duration = Duration::from_mins(1);

/// The blocks that this process has, by tenant.
#[derive(Default)]
pub(crate) struct RequestQuotas(Mutex<HashMap<String, Arc<TenantBlock>>>);

struct TenantBlock {
    block: Mutex<HeldBlock>,
    /// Who takes a block; the others wait for it.
    taking: tokio::sync::Mutex<()>,
}

/// What a tenant has left of its requests, and whether the request that was counted may be answered.
#[derive(Debug)]
pub(crate) struct Quota {
    rate: RequestRate,
    remaining: f64,
    /// Of a request that is refused.
    retry_after: Option<Duration>,
}

impl RequestQuotas {
    pub(super) async fn count_request(&self, tenant: &str, rate: RequestRate, ledger: &Ledger) -> Quota {
        let of_tenant = self.of(tenant, rate);
        if let Some(quota) = of_tenant.quota(rate) {
            return quota;
        }
        let _turn = of_tenant.taking.lock().await;
        loop {
            // Another request may have taken a block, or, between a block and this look, all of it.
            if let Some(quota) = of_tenant.quota(rate) {
                return quota;
            }
            let wanted = of_tenant.lock().block();
            let taking = Box::pin(ledger.take_requests(tenant, rate, wanted));
            let taken = timeout(BLOCK_TIMEOUT, taking).await;
            let mut block = of_tenant.lock();
            match taken {
                Ok(Ok(taken)) => block.add(taken, Instant::now()),
                Ok(Err(error)) => {
                    tracing::warn!(error = chain(&error), "requests are limited by this process alone");
                    block.add_local(Instant::now());
                }
                Err(_) => {
                    tracing::warn!("requests are limited by this process alone: the ledger gave no answer in time");
                    block.add_local(Instant::now());
                }
            }
        }
    }

    fn of(&self, tenant: &str, rate: RequestRate) -> Arc<TenantBlock> {
        // A panic while the lock is held leaves the map intact.
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = tenants.get(tenant) {
            return Arc::clone(found);
        }
        let now = Instant::now();
        if tenants.len() >= CAPACITY {
            tenants.retain(|_, block| now.duration_since(block.lock().last_look()) < IDLE);
        }
        if tenants.len() >= CAPACITY {
            tenants.clear();
        }
        let new = TenantBlock { block: Mutex::new(HeldBlock::new(rate, now)), taking: tokio::sync::Mutex::default() };
        let new = Arc::new(new);
        tenants.insert(tenant.to_owned(), Arc::clone(&new));
        new
    }
}

impl TenantBlock {
    /// Counts a request; `None`: a block is to be taken first.
    fn quota(&self, rate: RequestRate) -> Option<Quota> {
        match self.lock().take(Instant::now()) {
            Verdict::Accept { remaining } => Some(Quota { rate, remaining, retry_after: None }),
            Verdict::Refuse { retry_after } => Some(Quota { rate, remaining: 0.0, retry_after: Some(retry_after) }),
            Verdict::TakeBlock => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HeldBlock> {
        // A panic while the lock is held leaves a few numbers.
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Quota {
    /// The refusal, if the request is over the limit.
    pub(crate) fn reached(&self) -> Option<LimitReached> {
        let max = self.rate.per_second.into();
        Some(LimitReached { limit: TenantLimit::RequestsPerSecond, max, used: max, retry_after: self.retry_after? })
    }

    /// Tells the client of its limit. `w` and `t` are whole seconds, rounded up: the time in which an empty quota is full again,
    /// and that until it is.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        let (burst, per_second) = (f64::from(self.rate.burst), f64::from(self.rate.per_second));
        let window = (burst / per_second).ceil();
        let reset = ((burst - self.remaining) / per_second).ceil();
        let policy = format!("\"requests\";q={burst};w={window}");
        let state = format!("\"requests\";r={};t={reset}", self.remaining);
        for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
            headers.insert(name, HeaderValue::try_from(value).expect("letters and digits are a header value"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_of_its_quota() {
        let told = |quota: Quota| {
            let mut headers = HeaderMap::new();
            quota.add_to(&mut headers);
            ["ratelimit-policy", "ratelimit"].map(|name| headers[name].to_str().unwrap().to_owned())
        };
        let rate = RequestRate { per_second: 20, burst: 50 };
        let accepted = Quota { rate, remaining: 29.0, retry_after: None };
        assert!(accepted.reached().is_none());
        assert_eq!(told(accepted), ["\"requests\";q=50;w=3", "\"requests\";r=29;t=2"]);
        let refused = Quota { rate, remaining: 0.0, retry_after: Some(Duration::from_millis(20)) };
        let reached = refused.reached().unwrap();
        assert_eq!((reached.max, reached.retry_after), (20, Duration::from_millis(20)));
        assert_eq!(told(refused), ["\"requests\";q=50;w=3", "\"requests\";r=0;t=3"]);
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let (quotas, rate) = (RequestQuotas::default(), RequestRate { per_second: 1, burst: 1 });
        for number in 0..2 * CAPACITY {
            quotas.of(&format!("tenant-{number}"), rate);
        }
        assert!(quotas.0.lock().unwrap().len() <= CAPACITY);
    }
}
