//! One system under test: a ledger, a bucket, a queue, an api and workers of its own.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use polyglot_devstack::scratch_database::ScratchDatabase;
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_devstack::wait::wait_until;
use polyglot_devstack::{free_port, seed};
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::process::{Process, binary, servers, with_environment};
use crate::{ApiClient, Bucket};

/// What a test wants different from the usual.
#[derive(Debug, Default)]
pub struct Setup {
    /// Rows in `public.records`.
    pub rows: u64,
    /// Variables for all processes, over the usual ones.
    pub env: Vec<(String, String)>,
}

impl Setup {
    pub fn new(rows: u64, env: &[(&str, &str)]) -> Self {
        Self { rows, env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect() }
    }
}

/// A system. Its api is called through it: it dereferences to the [`ApiClient`].
#[derive(Debug)]
pub struct System {
    /// Address of its ledger's database, which is the source as well unless a test sets `SOURCE_DATABASE_URL`.
    pub database_url: String,
    /// Connections to that database, past any proxy.
    pub pool: PgPool,
    pub bucket: Bucket,
    pub queue: String,
    pub api_client: ApiClient,
    /// `None` while the api is stopped. An api that is replaced or dropped is killed.
    pub api: Option<Process>,
    /// The workers that run. One that is removed is killed.
    pub workers: Vec<Process>,
    /// Logs and temporary files of the processes, and files of the test.
    pub files: ScratchDir,
    env: Vec<(String, String)>,
}

impl Deref for System {
    type Target = ApiClient;

    fn deref(&self) -> &ApiClient {
        &self.api_client
    }
}

impl System {
    /// Prepares a system called `name` (letters, digits and `_`) over a database, and starts no process. `env` has variables
    /// for all processes, over the usual ones.
    pub async fn prepare(name: &str, database_url: &str, env: Vec<(String, String)>) -> Self {
        let servers = servers();
        let port = unused_port();
        let usual = [
            ("DATABASE_URL", database_url),
            ("AMQP_URL", &servers.amqp_url),
            ("AMQP_QUEUE", name),
            ("S3_ENDPOINT", &servers.s3_endpoint),
            ("S3_BUCKET", &name.replace('_', "-")),
            ("AWS_ACCESS_KEY_ID", &servers.s3_access_key),
            ("AWS_SECRET_ACCESS_KEY", &servers.s3_secret_key),
            ("AWS_REGION", "us-east-1"),
            ("PORT", &port.to_string()),
            ("LISTEN", "127.0.0.1"),
            ("AUTH", "off"),
            ("BENCHMARK", "on"),
            // The server's superuser, but where a test is about roles.
            ("SOURCE_ALLOW_PRIVILEGED", "on"),
            ("LOG_FORMAT", "pretty"),
            ("NO_COLOR", "1"),
        ];
        let usual: Vec<(String, String)> = usual.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let bucket = Bucket::of_service(&usual).await;
        // Not the default of 30 s: a server that is being restarted is tried again by the caller.
        let options = PgPoolOptions::new().max_connections(3).acquire_timeout(Duration::from_secs(10));
        let mut system = Self {
            database_url: database_url.to_owned(),
            pool: options.connect(database_url).await.unwrap(),
            bucket,
            queue: name.to_owned(),
            api_client: ApiClient::new(port),
            api: None,
            workers: Vec::new(),
            files: ScratchDir::new("system-test").unwrap(),
            env: usual,
        };
        for (name, value) in env {
            system.set(&name, &value);
        }
        system
    }

    /// The api alone, listening, over a table of `setup.rows` rows.
    pub async fn without_worker(setup: Setup) -> Self {
        let database = scratch_database().await;
        seed::fill(database.url(), setup.rows).await.unwrap();
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let mut system = Self::prepare(&name, database.url(), setup.env).await;
        system.start_api();
        system.wait_until_ok("/health").await;
        system
    }

    /// The api and one worker, ready.
    pub async fn start(setup: Setup) -> Self {
        let mut system = Self::without_worker(setup).await;
        system.wait_until_ready().await;
        system.add_worker();
        system
    }

    /// The api and one worker, ready, over a table of so many rows.
    pub async fn with_rows(rows: u64) -> Self {
        Self::start(Setup { rows, ..Setup::default() }).await
    }

    pub async fn wait_until_ready(&self) {
        self.wait_until_ok("/health/ready").await;
    }

    /// Sets a variable for the processes that are started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Gives `command` the system's variables and no others, but for what a process needs to find its libraries and programs.
    pub fn environment<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        with_environment(command, &self.env)
    }

    pub fn start_api(&mut self) {
        self.start_api_as(Command::new(binary("polyglot-api")));
    }

    /// Starts the api by `command`.
    pub fn start_api_as(&mut self, command: Command) {
        self.api = Some(Process::start("api", command, &self.env, self.files.path()));
    }

    /// Starts another api over the same ledger; the second value is its address.
    pub async fn another_api(&self) -> (Process, String) {
        let port = unused_port();
        let mut env = self.env.clone();
        env.retain(|(name, _)| name != "PORT");
        env.push(("PORT".to_owned(), port.to_string()));
        let api = Process::start("api-2", Command::new(binary("polyglot-api")), &env, self.files.path());
        let client = ApiClient::new(port);
        client.wait_until_ok("/health").await;
        (api, client.url(""))
    }

    pub fn add_worker(&mut self) -> &mut Process {
        self.add_worker_as(Command::new(binary("polyglot-worker")))
    }

    /// Adds a worker that `command` starts.
    pub fn add_worker_as(&mut self, command: Command) -> &mut Process {
        let worker = self.spawn_worker_as(&format!("worker-{}", self.workers.len() + 1), command);
        self.workers.push(worker);
        self.workers.last_mut().unwrap()
    }

    /// Starts a worker that is not among `workers`.
    pub fn spawn_worker(&self, name: &str) -> Process {
        self.spawn_worker_as(name, Command::new(binary("polyglot-worker")))
    }

    fn spawn_worker_as(&self, name: &str, command: Command) -> Process {
        let folder = self.temporary_files().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut env = self.env.clone();
        env.push(("TMPDIR".to_owned(), folder.to_str().unwrap().to_owned()));
        Process::start(name, command, &env, self.files.path())
    }

    /// The folder that holds a folder of temporary files for each worker.
    pub fn temporary_files(&self) -> PathBuf {
        self.files.path().join("tmp")
    }

    /// Path of a file of the test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// One number out of the database. Waits while PostgreSQL is being restarted.
    pub async fn count(&self, sql: &'static str) -> i64 {
        self.query(sql, async || sqlx::query_scalar(sql).fetch_one(&self.pool).await).await
    }

    /// Result of a query, which is repeated while PostgreSQL is being restarted.
    pub async fn query<T>(&self, what: &str, query: impl AsyncFn() -> sqlx::Result<T>) -> T {
        wait_until(&format!("PostgreSQL answers {what}"), async || match query().await {
            Ok(found) => Ok(found),
            Err(error) if is_unavailable(&error) => Err(error.to_string()),
            Err(error) => panic!("{what}: {error}"),
        })
        .await
    }

    /// Waits until this count is 0.
    pub async fn wait_until_none(&self, what: &str, count: &'static str) {
        wait_until(what, async || match self.count(count).await {
            0 => Ok(()),
            count => Err(format!("The count is {count}.")),
        })
        .await;
    }

    /// Waits until neither the bucket nor the ledger holds anything of an export without a file.
    pub async fn wait_until_cleaned_up(&self) {
        self.wait_until_cleaned_up_except(0).await;
    }

    /// Waits until the bucket holds so many objects and nothing else, and no export is worked on.
    pub async fn wait_until_cleaned_up_except(&self, objects: usize) {
        wait_until("everything is cleaned up", async || {
            let (stored, uploads) = (self.bucket.objects().await, self.bucket.uploads().await);
            // A third check of each upload, a quarter of an hour later, is for stores that take minutes.
            let rows = self.count("SELECT count(*) FROM polyglot.uploads WHERE looks < 2").await;
            let leases = self.count("SELECT count(*) FROM polyglot.shards WHERE state = 'leased'").await;
            if stored.len() == objects && uploads.is_empty() && rows == 0 && leases == 0 {
                return Ok(());
            }
            Err(format!("There are {stored:?}, {uploads:?}, and in the ledger {rows} uploads and {leases} leases."))
        })
        .await;
    }
}

/// An empty database on the PostgreSQL of the tests. It goes with the server.
pub async fn scratch_database() -> ScratchDatabase {
    ScratchDatabase::create(&servers().database_url).await.unwrap_or_else(|error| panic!("{}", error.with_causes()))
}

/// Whether the server, and not the statement, is the reason.
fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        // 57P: the server shuts down or starts; 08: the connection is lost.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
        }
        _ => false,
    }
}

/// A free port that no other system of this process was given: between the choice and the bind of the api there is time.
fn unused_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = free_port().unwrap();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}
