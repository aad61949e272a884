//! Who brings the ledger's tables up to a version, and processes of a version that is older than the tables.

use std::process::Command;

use polyglot_devstack::seed;
use polyglot_ledger::Ledger;
use polyglot_test_kit::{Setup, System, binary, scratch_database, wait_until};
use polyglot_test_servers::needs_servers;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

fn migrate(system: &System) -> String {
    let done = system.environment(&mut Command::new(binary("polyglot-api"))).arg("migrate").output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && done.stdout.is_empty(), "{said}");
    said
}

#[tokio::test]
async fn processes_wait_for_the_command_where_they_are_not_to_migrate() {
    needs_servers!();
    let database = scratch_database().await;
    seed::fill(database.url(), 1000).await.unwrap();
    let name = format!("test_{}", uuid::Uuid::new_v4().simple());
    let mut system = System::prepare(&name, database.url(), vec![("MIGRATE".to_owned(), "off".to_owned())]).await;
    system.start_api();
    system.add_worker();
    wait_until("both say what they wait for", async || {
        let waits = "migrations of this version are still to be run: run `polyglot-api migrate`, or set MIGRATE=on";
        system.api.iter().chain(&system.workers).all(|process| process.log().contains(waits))
    })
    .await;
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'polyglot'";
    assert_eq!(system.count(schemas).await, 0, "nobody has migrated");
    for _ in 0..2 {
        assert_eq!(migrate(&system), "polyglot-api: the ledger's tables are those of this version\n");
    }
    system.wait_until_ready().await;
    let id = system.submit("csv", None).await;
    assert_eq!(system.wait_until_completed(&id).await["progress"]["rows"], 1000);
}

#[tokio::test]
async fn a_process_starts_on_the_tables_of_a_newer_version() {
    needs_servers!();
    let mut system = System::start(Setup::new(1000, &[])).await;
    // What a newer version may do: see the rules for migrations in CONTRIBUTING.md.
    sqlx::raw_sql(
        "INSERT INTO polyglot._sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (1000000, 'of a newer version', true, '', 0);
         ALTER TABLE polyglot.exports ADD COLUMN of_a_newer_version integer NOT NULL DEFAULT 0",
    )
    .execute(&system.pool)
    .await
    .unwrap();
    system.workers.clear();
    system.start_api();
    system.wait_until_ready().await;
    system.add_worker();
    let id = system.submit("parquet", None).await;
    assert_eq!(system.wait_until_completed(&id).await["progress"]["rows"], 1000);
}

/// The first index takes longer than the 10 seconds that the service gives its own statements.
const SLOW: &str = "CREATE FUNCTION public.slow() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
        IF to_regclass('public.slept') IS NULL THEN CREATE TABLE public.slept (); PERFORM pg_sleep(11); END IF;
    END $$;
    CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION public.slow()";

#[tokio::test]
async fn a_migration_may_take_longer_than_a_statement_of_the_service() {
    needs_servers!();
    let database = scratch_database().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql(SLOW).execute(&mut connection).await.unwrap();
    let ledger = Ledger::new(database.url(), 1, "migrations-test").unwrap();
    ledger.migrate().await.unwrap();
    ledger.ping().await.unwrap();
    let slept: bool =
        sqlx::query_scalar("SELECT to_regclass('public.slept') IS NOT NULL").fetch_one(&mut connection).await.unwrap();
    assert!(slept);
}
