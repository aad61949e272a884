//! The servers of all systems of this target: a private PostgreSQL and RabbitMQ, which can be restarted while the systems
//! run, and the object store of the test run, which cannot.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use polyglot_devstack::ports::free_ports;
use polyglot_devstack::postgres::{Postgres, PostgresSettings};
use polyglot_devstack::rabbitmq::{Rabbit, RabbitSettings};
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_devstack::{secrets, seed};
use polyglot_ledger::Ledger;
use polyglot_test_servers::TestServers;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::sync::Mutex;

/// Held by a test while it runs: each needs the whole machine.
pub(crate) static ONE_TEST_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A ledger without exports, of which each system's is a copy.
const TEMPLATE: &str = "ledger_template";
/// The database that is exported from.
const SOURCE: &str = "source";

pub(crate) struct Servers {
    postgres: Mutex<Option<Postgres>>,
    rabbit: Mutex<Option<Rabbit>>,
    postgres_settings: PostgresSettings,
    rabbit_settings: RabbitSettings,
    dir: PathBuf,
    pub amqp_url: String,
    pub s3_endpoint: String,
    /// Removed when everything above has ended.
    _scratch: ScratchDir,
}

impl Servers {
    /// Starts them, with `rows` rows in the table `records`.
    pub(crate) async fn start(rows: u64) -> Arc<Self> {
        let scratch = ScratchDir::new("crash").unwrap();
        let dir = scratch.path().canonicalize().unwrap();
        let ports = free_ports(4).unwrap();
        let postgres_settings =
            PostgresSettings { port: ports[0], durable: false, password: None, max_connections: 800, options: &[] };
        let rabbit_settings = RabbitSettings {
            amqp_port: ports[1],
            distribution_port: ports[2],
            epmd_port: ports[3],
            password: secrets::random(),
        };
        let (postgres_log, rabbit_log) = (dir.join("postgres.log"), dir.join("rabbitmq.log"));
        let (postgres, rabbit) = tokio::try_join!(
            Postgres::start(&dir, &postgres_log, postgres_settings.clone()),
            Rabbit::start(&dir, &rabbit_log, rabbit_settings.clone())
        )
        .unwrap_or_else(|error| panic!("{}", error.with_causes()));
        let amqp_url = rabbit.url();
        let servers = Self {
            postgres: Mutex::new(Some(postgres)),
            rabbit: Mutex::new(Some(rabbit)),
            postgres_settings,
            rabbit_settings,
            dir,
            amqp_url,
            s3_endpoint: TestServers::from_environment().unwrap().s3_endpoint,
            _scratch: scratch,
        };
        // A commit must outlive a crash of the server, though not one of the machine. The setting of the test servers may
        // lose the last commits.
        servers.sql("ALTER ROLE postgres SET synchronous_commit TO on".to_owned()).await;
        servers.sql(format!("CREATE DATABASE {TEMPLATE}")).await;
        servers.sql(format!("CREATE DATABASE {SOURCE}")).await;
        Ledger::new(servers.url("postgres", TEMPLATE), 1, "template").unwrap().migrate().await.unwrap();
        seed::fill(&servers.url("postgres", SOURCE), rows).await.unwrap();
        Arc::new(servers)
    }

    /// The port of PostgreSQL.
    pub(crate) fn postgres_address(&self) -> String {
        format!("127.0.0.1:{}", self.postgres_settings.port)
    }

    pub(crate) fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@{}/{database}", self.postgres_address())
    }

    pub(crate) fn source_url(&self, role: &str) -> String {
        self.url(role, SOURCE)
    }

    /// Creates an empty ledger and a role that reads the source, both of this name. By the role the sessions of
    /// one system are distinguished from those of the others.
    pub(crate) async fn make_ledger(&self, name: &str) {
        self.sql(format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await;
        self.sql(format!("CREATE ROLE {name} LOGIN IN ROLE pg_read_all_data")).await;
    }

    pub(crate) async fn drop_ledger(&self, name: &str) {
        self.sql(format!("DROP DATABASE {name} WITH (FORCE)")).await;
    }

    async fn sql(&self, statement: String) {
        let mut connection = PgConnection::connect(&self.url("postgres", "postgres")).await.unwrap();
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
        let _ = connection.close().await;
    }

    /// Restarts PostgreSQL by an immediate shutdown, which for clients is like a crash.
    pub(crate) async fn restart_postgres(&self) {
        let mut postgres = self.postgres.lock().await;
        if let Some(running) = postgres.take() {
            running.stop_at_once().await;
        }
        let log = self.dir.join("postgres.log");
        *postgres = Some(Postgres::start(&self.dir, &log, self.postgres_settings.clone()).await.unwrap());
    }

    /// Kills the broker and starts it again.
    pub(crate) async fn restart_broker(&self) {
        let mut rabbit = self.rabbit.lock().await;
        if let Some(running) = rabbit.take() {
            running.stop_at_once().await;
        }
        let log = self.dir.join("rabbitmq.log");
        *rabbit = Some(Rabbit::start(&self.dir, &log, self.rabbit_settings.clone()).await.unwrap());
    }

    /// Stops both servers. Without it they are killed when this is dropped.
    pub(crate) async fn stop(&self) {
        if let Some(postgres) = self.postgres.lock().await.take() {
            postgres.stop_at_once().await;
        }
        if let Some(rabbit) = self.rabbit.lock().await.take() {
            rabbit.stop_at_once().await;
        }
        // The children of a killed postmaster notice its end after a moment; the folder is removed after that.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
