//! The requests that a tenant may make: a token bucket in the ledger, from which each api takes a block at a time.

use crate::database::{Ledger, Result};
use polyglot_core::tenant_limits::RequestRate;

/// What an api got of a tenant's bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RequestBlock {
    /// Requests that the api may let through; a whole number.
    pub granted: f64,
    /// Requests that are left in the bucket, for every api.
    pub left: f64,
}

impl Ledger {
    /// Takes up to `wanted` requests out of the tenant's bucket, which is full at first.
    pub async fn take_requests(&self, tenant: &str, rate: RequestRate, wanted: u32) -> Result<RequestBlock> {
        // The clock of another session may be behind that of the one before.
        let (granted, left): (f64, f64) = sqlx::query_as(
            "INSERT INTO request_buckets AS b (tenant, tokens, granted, filled_at)
             VALUES ($1, $3 - least($3, $4), least($3, $4), ledger_now())
             ON CONFLICT (tenant) DO UPDATE SET (tokens, granted, filled_at) = (
                 SELECT filled - least($4, floor(filled)), least($4, floor(filled)), greatest(b.filled_at, ledger_now())
                 FROM (SELECT least($3, b.tokens + $2 * greatest(0, extract(epoch FROM ledger_now() - b.filled_at))::float8)
                           AS filled) AS bucket)
             RETURNING granted, tokens",
        )
        .bind(tenant)
        .bind(f64::from(rate.per_second))
        .bind(f64::from(rate.burst))
        .bind(f64::from(wanted))
        .fetch_one(&self.pool)
        .await?;
        Ok(RequestBlock { granted, left })
    }
}
