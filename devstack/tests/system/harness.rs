//! One system under test: its database, bucket, queue and processes, and the few calls that tests make of it.
//! What is right or wrong is the tests' to say.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use polyglot_devstack::scratch_database::ScratchDatabase;
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_devstack::{free_port, seed};
use polyglot_storage::{ObjectStore, S3Store};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::postgres::{PgPool, PgPoolOptions};

pub(crate) use crate::service::{PATIENCE, Service, binary, service_variables};
use crate::service::{own_storage, with_environment};

pub(crate) const ALL_COLUMNS: [&str; 5] = ["id", "created_at", "name", "value", "metadata"];

/// What a test wants different from the usual.
#[derive(Default)]
pub(crate) struct Setup {
    /// Rows in `public.records`.
    pub rows: u64,
    /// Variables for all processes, over the usual ones.
    pub env: Vec<(String, String)>,
}

/// The system. Fields that a test may break are public.
pub(crate) struct System {
    pub pool: PgPool,
    pub database: ScratchDatabase,
    pub storage: S3Store,
    pub queue: String,
    pub api: Option<Service>,
    pub workers: Vec<Service>,
    pub files: ScratchDir,
    client: reqwest::Client,
    port: u16,
    env: Vec<(String, String)>,
}

impl System {
    /// The api alone, ready, over a table of `setup.rows` rows.
    pub(crate) async fn without_worker(setup: Setup) -> Self {
        let database = ScratchDatabase::for_test().await.unwrap_or_else(|error| panic!("{error}"));
        seed::fill(database.url(), setup.rows).await.unwrap();
        let id = uuid::Uuid::new_v4().simple().to_string();
        let queue = format!("test.{id}");
        let mut env = service_variables();
        env.push(("DATABASE_URL".to_owned(), database.url().to_owned()));
        env.push(("S3_BUCKET".to_owned(), format!("test-{id}")));
        env.push(("AMQP_QUEUE".to_owned(), queue.clone()));
        let port = free_port().unwrap();
        env.push(("PORT".to_owned(), port.to_string()));
        // The tests look at the store directly, past any proxy that a test puts before the services.
        let direct = own_storage(&env).await;
        env.extend(setup.env);
        let mut system = Self {
            pool: PgPoolOptions::new().max_connections(3).connect(database.url()).await.unwrap(),
            database,
            storage: direct,
            queue,
            api: None,
            workers: Vec::new(),
            files: ScratchDir::new("system-test").unwrap(),
            client: reqwest::Client::builder().timeout(PATIENCE).build().unwrap(),
            port,
            env,
        };
        system.start_api();
        system.wait_until_listening().await;
        system
    }

    /// The api and one worker, ready.
    pub(crate) async fn start(setup: Setup) -> Self {
        let mut system = Self::without_worker(setup).await;
        system.wait_until_ready().await;
        system.add_worker();
        system
    }

    pub(crate) async fn with_rows(rows: u64) -> Self {
        Self::start(Setup { rows, ..Setup::default() }).await
    }

    pub(crate) fn spawn(&self, binary: &str, name: &str, command: Command) -> Service {
        Service::start(binary, name, command, &self.env, self.files.path())
    }

    /// The system's variables and no others, but for what a process needs to find its libraries and programs.
    pub(crate) fn environment<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        with_environment(command, &self.env)
    }

    pub(crate) fn start_api(&mut self) {
        let binary = binary("polyglot-api");
        self.api = Some(self.spawn("polyglot-api", "api", Command::new(binary)));
    }

    /// Another api over the same ledger, and its address.
    pub(crate) async fn another_api(&self) -> (Service, String) {
        let port = free_port().unwrap().to_string();
        let mut command = Command::new("env");
        command.arg(format!("PORT={port}")).arg(binary("polyglot-api"));
        let api = self.spawn("polyglot-api", "api-2", command);
        let url = format!("http://127.0.0.1:{port}");
        let deadline = Instant::now() + PATIENCE;
        while !reqwest::get(format!("{url}/health")).await.is_ok_and(|answer| answer.status() == StatusCode::OK) {
            assert!(Instant::now() < deadline, "the second api never listens");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        (api, url)
    }

    pub(crate) fn add_worker(&mut self) -> &mut Service {
        self.add_worker_as(Command::new(binary("polyglot-worker")))
    }

    /// Adds a worker started by `command`.
    pub(crate) fn add_worker_as(&mut self, command: Command) -> &mut Service {
        let name = format!("worker-{}", self.workers.len() + 1);
        let service = self.spawn("polyglot-worker", &name, command);
        self.workers.push(service);
        self.workers.last_mut().unwrap()
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    async fn wait_until_listening(&self) {
        self.wait_for("/health", "listens").await;
    }

    pub(crate) async fn wait_until_ready(&self) {
        self.wait_for("/health/ready", "is ready").await;
    }

    async fn wait_for(&self, path: &str, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.client.get(self.url(path)).timeout(Duration::from_secs(10)).send().await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            assert!(Instant::now() < deadline, "the api never {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn post(&self, body: &Value) -> Response {
        self.request(Method::POST, "/exports").json(body).send().await.unwrap()
    }

    /// Submits an export of all columns of `records`; the answer is its id.
    pub(crate) async fn submit(&self, format: &str, compression: Option<&str>) -> String {
        let answer = self.post(&export_request(format, compression)).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        let body: Value = answer.json().await.unwrap();
        let id = body["exportId"].as_str().unwrap().to_owned();
        assert_eq!(location, format!("/exports/{id}"));
        assert_eq!(body["status"], "pending");
        id
    }

    pub(crate) async fn state(&self, id: &str) -> Value {
        let answer = self.get(&format!("/exports/{id}")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }

    /// Waits until `done` says so of the export's state.
    pub(crate) async fn wait_until(&self, id: &str, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.state(id).await;
            if done(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "export {id} is never {what}: {state:#}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Waits for the export to end, whichever way.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        let active = ["pending", "planning", "running", "finishing"];
        self.wait_until(id, "at its end", |state| !active.contains(&state["status"].as_str().unwrap())).await
    }

    pub(crate) async fn completed(&self, id: &str) -> Value {
        let state = self.ended(id).await;
        assert_eq!(state["status"], "completed", "{state:#}");
        state
    }

    /// Downloads a completed export, through whatever delivery is set, as the bytes on the wire.
    pub(crate) async fn download(&self, id: &str) -> Vec<u8> {
        let answer = self.get(&format!("/exports/{id}/download")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.bytes().await.unwrap().to_vec()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Keys of all objects, and ids of all unfinished uploads, in the bucket.
    pub(crate) async fn stored(&self) -> (Vec<String>, Vec<String>) {
        let uploads = self.storage.list_uploads("").await.unwrap().unwrap();
        let objects = self.storage.list_keys("").try_concat().await.unwrap();
        (objects, uploads.into_iter().map(|upload| upload.id).collect())
    }

    /// Waits until neither the bucket nor the ledger holds anything of an export without a file.
    pub(crate) async fn nothing_is_left(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stored = self.stored().await;
            let rows = self.count("SELECT count(*) FROM polyglot.uploads WHERE looks < 2").await;
            let leases = self.count("SELECT count(*) FROM polyglot.shards WHERE state = 'leased'").await;
            if stored.0.is_empty() && stored.1.is_empty() && rows == 0 && leases == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "left: {stored:?}, {rows} uploads and {leases} leases in the ledger");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

pub(crate) fn export_request(format: &str, compression: Option<&str>) -> Value {
    let columns: Vec<Value> = ALL_COLUMNS.iter().map(|name| json!({"source": name, "target": name})).collect();
    let mut request = json!({"format": format, "columns": columns});
    if let Some(compression) = compression {
        request["compression"] = compression.into();
    }
    request
}
