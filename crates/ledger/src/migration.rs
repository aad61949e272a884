//! The migrations of the ledger's tables. They run while processes of the version before go on (rolling upgrade), so none of them
//! takes away what that version uses, and a process starts on tables that a newer one has migrated.

use std::sync::LazyLock;
use std::time::Duration;

use polyglot_core::failure::chain;
use polyglot_runtime::retry::retry;
use polyglot_source::session::is_unavailable;
use sqlx::migrate::{MigrateError, Migrator};

use crate::database::{Ledger, LedgerError, RETRY_PAUSE, Result};

pub(crate) static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("../../migrations");
    // Those of a newer version.
    migrations.set_ignore_missing(true);
    migrations
});

/// An index over a long history takes longer than the statements of the service may. A change of a table that cannot have its
/// lock soon gives up, for whoever comes after it would wait behind it.
const SESSION: &str =
    "SET statement_timeout TO 0; SET lock_timeout TO '5s'; SET idle_in_transaction_session_timeout TO 0";

/// `MIGRATE`: who runs the migrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationMode {
    /// The first process that starts.
    AtStart,
    /// `polyglot-api migrate`, for which processes wait.
    ByCommand,
}

/// A connection that breaks during a migration is the database's absence like any other.
fn migration_error(error: MigrateError) -> LedgerError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) if is_unavailable(&error) => {
            LedgerError::Unavailable(error)
        }
        other => LedgerError::Migration(other),
    }
}

fn may_pass(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Unavailable(_) | LedgerError::MigrationsPending(_))
}

impl Ledger {
    /// Creates or upgrades the tables. Safe to call from several processes at once.
    pub async fn migrate(&self) -> Result<()> {
        let mut connection = self.pool.acquire().await?;
        // With its settings it is of no use to others.
        connection.close_on_drop();
        sqlx::raw_sql(SESSION).execute(&mut *connection).await?;
        // Two processes that create the schema at once can collide, so they take turns. IF NOT EXISTS would need the right to create
        // schemas even where there is one, and the owner of the schema alone does not have it.
        sqlx::raw_sql(
            "BEGIN; SELECT pg_advisory_xact_lock(hashtext('polyglot schema'));
             DO $$ BEGIN IF to_regnamespace('polyglot') IS NULL THEN CREATE SCHEMA polyglot; END IF; END $$; COMMIT",
        )
        .execute(&mut *connection)
        .await?;
        MIGRATIONS.run(&mut *connection).await.map_err(migration_error)
    }

    /// Fails unless every migration of this version has been run.
    async fn require_migrations(&self) -> Result<()> {
        match self.schema_state().await?.pending {
            0 => Ok(()),
            pending => Err(LedgerError::MigrationsPending(pending)),
        }
    }

    /// Migrates, or waits for the command that does. While the database is unavailable it tries again every second, until `limit`
    /// has passed.
    pub async fn prepare(&self, mode: MigrationMode, limit: Duration) -> Result<()> {
        let log =
            |error: &LedgerError| tracing::warn!(error = chain(error), "the ledger is not ready yet, trying again");
        let prepared = || async {
            match mode {
                MigrationMode::AtStart => self.migrate().await,
                MigrationMode::ByCommand => self.require_migrations().await,
            }
        };
        retry(limit, RETRY_PAUSE, prepared, may_pass, log).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The newest migration of the first version that others may be running beside this one.
    const FIRST_RELEASE: i64 = 18;

    #[test]
    fn a_connection_that_breaks_during_a_migration_is_tried_again() {
        let broken = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        for error in [MigrateError::Execute(broken()), MigrateError::ExecuteMigration(broken(), 16)] {
            assert!(may_pass(&migration_error(error)));
        }
        assert!(!may_pass(&migration_error(MigrateError::VersionMismatch(3))));
    }

    /// What processes of the version before could not live with.
    fn incompatible(migration: &str) -> Option<&'static str> {
        let code: String =
            migration.lines().map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
        let words = code.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase();
        ["RENAME", "DROP TABLE", "DROP COLUMN", "SET NOT NULL", " TYPE ", "DROP FUNCTION", "DROP SCHEMA", "TRUNCATE"]
            .into_iter()
            .find(|words_of| words.contains(words_of))
            .or_else(|| {
                // A column that the version before does not fill.
                let added = words
                    .split("ADD COLUMN ")
                    .skip(1)
                    .map(|column| column.split([',', ';']).next().unwrap_or_default());
                added
                    .into_iter()
                    .any(|column| column.contains("NOT NULL") && !column.contains("DEFAULT"))
                    .then_some("ADD COLUMN … NOT NULL")
            })
    }

    #[test]
    fn the_version_before_can_live_with_every_migration() {
        for migration in MIGRATIONS.iter().filter(|migration| migration.version > FIRST_RELEASE) {
            let found = incompatible(migration.sql.as_str());
            assert_eq!(found, None, "migration {}: processes of the version before may still run", migration.version);
        }
        for (sql, found) in [
            ("ALTER TABLE exports ADD COLUMN a integer NOT NULL DEFAULT 0; -- RENAME", None),
            ("ALTER TABLE exports ADD COLUMN a integer,\n ADD COLUMN b text NOT NULL;", Some("ADD COLUMN … NOT NULL")),
            ("alter table exports\n  drop   column a", Some("DROP COLUMN")),
            ("ALTER TABLE exports ALTER a TYPE bigint", Some(" TYPE ")),
        ] {
            assert_eq!(incompatible(sql), found, "{sql}");
        }
    }
}
