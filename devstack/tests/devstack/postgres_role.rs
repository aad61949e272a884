//! The role of the private PostgreSQL: its tables land in `public`, and clusters that earlier versions have made get it.

use polyglot_devstack::free_port;
use polyglot_devstack::postgres::{Postgres, PostgresSettings};
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_test_servers::needs_servers;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

async fn start(dir: &ScratchDir, password: &str) -> Postgres {
    let port = free_port().unwrap();
    let settings = PostgresSettings {
        port,
        durable: false,
        password: Some(password.to_owned()),
        max_connections: 20,
        options: &[],
    };
    let dir = dir.path().canonicalize().unwrap();
    let started = Postgres::start(&dir, &dir.join("postgres.log"), settings).await;
    started.unwrap_or_else(|error| panic!("{}", error.with_causes()))
}

async fn run(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    connection.close().await.unwrap();
}

/// What somebody does who tries the service with a table of their own.
async fn assert_tables_land_in_public(server: &Postgres, table: &str) {
    let url = server.url("postgres");
    run(&url, &format!("CREATE TABLE {table} (id int PRIMARY KEY)")).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let schema: String = sqlx::query_scalar("SELECT schemaname::text FROM pg_tables WHERE tablename = $1")
        .bind(table)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(schema, "public");
}

#[tokio::test]
async fn a_table_without_a_schema_is_not_among_those_of_the_ledger() {
    needs_servers!();
    let (dir, password) = (ScratchDir::new("role").unwrap(), "secret0");
    let server = start(&dir, password).await;
    let url = server.url("postgres");
    // The ledger's schema, as the service makes it.
    run(&url, "CREATE SCHEMA polyglot").await;
    assert_tables_land_in_public(&server, "mine").await;

    // Now as an earlier version has made it, whose only superuser is `polyglot`.
    run(&url, "CREATE ROLE helper LOGIN SUPERUSER PASSWORD 'secret0'").await;
    let as_role = |role: &str| url.replace("postgres://postgres:", &format!("postgres://{role}:"));
    run(&as_role("helper"), "ALTER ROLE postgres RENAME TO polyglot").await;
    run(&as_role("polyglot"), "DROP ROLE helper").await;
    server.stop().await;
    for table in ["first", "second"] {
        let server = start(&dir, password).await;
        assert_tables_land_in_public(&server, table).await;
        // What the earlier version had is there.
        run(&server.url("postgres"), "SELECT FROM mine; CREATE TABLE IF NOT EXISTS polyglot.exports (id int)").await;
        server.stop().await;
    }
}
