//! The lock that lets one benchmark run at a time, however many processes could start one.

use sqlx::{Connection, PgConnection, Row};

use crate::database::{Ledger, Result};

/// Held for as long as its connection lives, so a process that dies lets go of it.
#[derive(Debug)]
#[must_use]
pub struct BenchmarkLock {
    connection: PgConnection,
}

impl BenchmarkLock {
    /// Lets the next benchmark run. Dropping the lock does too, once the server sees that the connection is gone.
    pub async fn release(mut self) -> Result<()> {
        sqlx::query("SELECT pg_advisory_unlock(hashtext('polyglot benchmark'))").execute(&mut self.connection).await?;
        Ok(self.connection.close().await?)
    }
}

impl Ledger {
    /// The lock, or `None` while another benchmark holds it. It gets a connection of its own, beside the pool's.
    pub async fn try_benchmark_lock(&self) -> Result<Option<BenchmarkLock>> {
        let mut connection = self.pool.acquire().await?.detach();
        let ours: bool = sqlx::query("SELECT pg_try_advisory_lock(hashtext('polyglot benchmark')) AS ours")
            .fetch_one(&mut connection)
            .await?
            .try_get("ours")?;
        Ok(ours.then_some(BenchmarkLock { connection }))
    }
}
