//! The lock that lets one benchmark run at a time, however many processes could start one.

use sqlx::{Connection, PgConnection};

use crate::database::{Ledger, Result};

/// An advisory lock, held for as long as its connection lives, so the end of its process releases it.
#[derive(Debug)]
#[must_use]
pub struct BenchmarkLock {
    connection: PgConnection,
}

impl BenchmarkLock {
    /// Releases the lock. Dropping it does too, once the server notices that the connection has closed.
    pub async fn release(mut self) -> Result<()> {
        sqlx::query("SELECT pg_advisory_unlock(hashtext('polyglot benchmark'))").execute(&mut self.connection).await?;
        Ok(self.connection.close().await?)
    }
}

impl Ledger {
    /// Takes the lock, or returns `None` while another benchmark holds it. The lock has a connection of its own, outside the pool.
    pub async fn try_benchmark_lock(&self) -> Result<Option<BenchmarkLock>> {
        let mut connection = self.pool.acquire().await?.detach();
        let ours: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtext('polyglot benchmark')) AS ours")
            .fetch_one(&mut connection)
            .await?;
        Ok(ours.then_some(BenchmarkLock { connection }))
    }
}
