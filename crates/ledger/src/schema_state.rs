//! What `migrate` would find in the database: the state of the ledger's schema, and whether the role may change it. Nothing is
//! changed here.

use std::collections::HashMap;

use crate::database::{Ledger, Result};
use crate::migration::MIGRATIONS;

/// The ledger's schema as the role of the connection finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaState {
    pub role: String,
    pub database: String,
    /// Whether there is a schema `polyglot`.
    pub exists: bool,
    /// Whether the role may create the schema, where there is none, or its tables.
    pub may_create: bool,
    /// Relations in the schema that belong to a role whose rights this one does not have, so that a migration could not change them.
    pub owned_by_others: i64,
    /// Relations in the schema that the role may not write to.
    pub not_writable: i64,
    /// Migrations of this version that are still to be run.
    pub pending: usize,
    /// Migrations that were run and that this version does not know.
    pub unknown: usize,
    /// Migrations that were run with another content, or only in part.
    pub damaged: usize,
}

const SCHEMA: &str = "
    SELECT current_user::text, current_database()::text, n.oid IS NOT NULL,
           CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE')
                ELSE has_schema_privilege(n.oid, 'CREATE') AND has_schema_privilege(n.oid, 'USAGE') END,
           (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'S')
                                              AND NOT pg_has_role(c.relowner, 'USAGE')),
           (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
                                              AND NOT has_table_privilege(c.oid, 'INSERT')),
           EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = '_sqlx_migrations'
                                            AND has_table_privilege(c.oid, 'SELECT'))
    FROM (VALUES ('polyglot')) AS wanted(name) LEFT JOIN pg_namespace n ON n.nspname = wanted.name";

impl Ledger {
    /// Looks at the schema without changing it.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn schema_state(&self) -> Result<SchemaState> {
        let mut connection = self.pool.acquire().await?;
        let (role, database, exists, may_create, owned_by_others, not_writable, is_migrated) =
            sqlx::query_as::<_, (String, String, bool, bool, i64, i64, bool)>(SCHEMA)
                .fetch_one(&mut *connection)
                .await?;
        let mut applied: HashMap<i64, (Vec<u8>, bool)> = HashMap::new();
        if is_migrated {
            let rows = sqlx::query_as::<_, (i64, Vec<u8>, bool)>(
                "SELECT version, checksum, success FROM polyglot._sqlx_migrations",
            );
            applied.extend(
                rows.fetch_all(&mut *connection).await?.into_iter().map(|(version, sum, ok)| (version, (sum, ok))),
            );
        }
        let (mut pending, mut damaged) = (0, 0);
        for migration in MIGRATIONS.iter() {
            match applied.remove(&migration.version) {
                None => pending += 1,
                Some((checksum, true)) if checksum == *migration.checksum => {}
                Some(_) => damaged += 1,
            }
        }
        let unknown = applied.len();
        Ok(SchemaState { role, database, exists, may_create, owned_by_others, not_writable, pending, unknown, damaged })
    }
}
