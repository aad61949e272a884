//! What a tenant has of everything that is limited.

use super::running::count_begun;
use super::streams::count_streams;
use super::submission::{completed_of_day, count_active};
use crate::database::{Ledger, Result};

/// What a tenant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantUsage {
    /// Exports that have not ended.
    pub queued: u64,
    /// Those of them that have begun.
    pub running: u64,
    /// Rows of the exports that were completed in the last 24 hours.
    pub rows_of_day: u64,
    /// Bytes of the same.
    pub bytes_of_day: u64,
    /// Event streams that are open, if they are limited.
    pub streams: u64,
}

impl Ledger {
    /// What the tenant has.
    pub async fn usage_of(&self, tenant: &str) -> Result<TenantUsage> {
        let mut connection = self.pool.acquire().await?;
        let queued = count_active(&mut connection, tenant).await?;
        let running = count_begun(&mut connection, tenant).await?.unsigned_abs();
        let (rows_of_day, bytes_of_day) = completed_of_day(&mut connection, tenant).await?;
        let streams = count_streams(&mut connection, tenant).await?;
        Ok(TenantUsage { queued, running, rows_of_day, bytes_of_day, streams })
    }
}
