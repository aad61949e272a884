//! How many exports of a tenant may be begun at a time. Workers begin no more, and the others wait.

use sqlx::PgConnection;

use crate::database::{Ledger, Result};

/// The row for tenants without one, under what is no tenant's name.
const EVERY_OTHER: &str = "*";

impl Ledger {
    /// Replaces all limits of begun exports: of each of these tenants, and of every other one. A change takes effect with the
    /// next claim; what has begun goes on.
    pub async fn set_running_limits(&self, tenants: &[(String, u32)], other: Option<u32>) -> Result<()> {
        let all = tenants.iter().map(|(tenant, limit)| (tenant.clone(), *limit));
        let (names, limits): (Vec<String>, Vec<i64>) = all
            .chain(other.map(|limit| (EVERY_OTHER.to_owned(), limit)))
            .map(|(tenant, limit)| (tenant, i64::from(limit)))
            .unzip();
        let mut transaction = self.pool.begin().await?;
        // Several apis may start at once.
        sqlx::query("LOCK TABLE running_limits IN SHARE ROW EXCLUSIVE MODE").execute(&mut *transaction).await?;
        sqlx::query("DELETE FROM running_limits WHERE tenant <> ALL($1)")
            .bind(&names)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO running_limits (tenant, running) SELECT * FROM unnest($1::text[], $2::bigint[])
             ON CONFLICT (tenant) DO UPDATE SET running = excluded.running WHERE running_limits.running <> excluded.running",
        )
        .bind(&names)
        .bind(&limits)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// Waits for others that begin an export of the tenant, until the transaction ends, and returns whether it may have one more. No
/// transaction waits for a row of another export after this.
pub(crate) async fn may_begin(connection: &mut PgConnection, tenant: &str, limit: i32) -> Result<bool> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('polyglot running ' || $1, 0))")
        .bind(tenant)
        .execute(&mut *connection)
        .await?;
    Ok(count_begun(connection, tenant).await? < i64::from(limit))
}

/// Number of the tenant's exports that have begun.
pub(super) async fn count_begun(connection: &mut PgConnection, tenant: &str) -> Result<i64> {
    let query = sqlx::query_scalar(
        "SELECT count(*) AS begun FROM exports WHERE tenant = $1 AND state IN ('planning', 'running', 'finishing')",
    );
    Ok(query.bind(tenant).fetch_one(connection).await?)
}
