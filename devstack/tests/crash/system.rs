//! One system of its own: a ledger, a bucket, a queue, an api and workers, with a proxy on each connection, and what the
//! tests ask of it past those proxies.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_devstack::{Proxy, S3Faults, free_port};
use polyglot_export::storage::Storage;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::servers::Servers;
use crate::service::{PATIENCE, Service, binary, own_storage, service_variables};

pub(crate) struct System {
    pub servers: Arc<Servers>,
    /// Of its ledger, of the role that it reads the source with, and of its queue.
    pub name: String,
    pub ledger: PgPool,
    pub storage: Storage,
    /// To RabbitMQ, to the ledger, to the source, and to `s3`.
    pub amqp: Proxy,
    pub ledger_wire: Proxy,
    pub source_wire: Proxy,
    pub s3_wire: Proxy,
    pub s3: S3Faults,
    pub api: Option<Service>,
    pub workers: Vec<Service>,
    pub files: ScratchDir,
    client: reqwest::Client,
    port: u16,
    env: Vec<(String, String)>,
}

impl System {
    /// The api, ready; no worker.
    pub(crate) async fn start(servers: &Arc<Servers>, env: &[(&str, &str)]) -> Self {
        let name = format!("crash_{}", uuid::Uuid::new_v4().simple());
        servers.make_ledger(&name).await;
        let proxy = async |target: &str| Proxy::start(target).await.unwrap();
        let (user_and_broker, path) = servers.amqp_url.rsplit_once('/').unwrap();
        let (user, broker) = user_and_broker.rsplit_once('@').unwrap();
        let amqp = proxy(broker).await;
        let ledger_wire = proxy(&servers.postgres_address()).await;
        let source_wire = proxy(&servers.postgres_address()).await;
        let s3 = S3Faults::start(&servers.s3_endpoint).await.unwrap();
        let s3_wire = proxy(&s3.address().to_string()).await;
        let port = free_port().unwrap();
        let through = |url: String, wire: &Proxy| url.replace(&servers.postgres_address(), &wire.address().to_string());

        let mut variables = service_variables();
        let bucket = name.replace('_', "-");
        variables.push(("S3_BUCKET".to_owned(), bucket));
        // The test looks at the store directly.
        let storage = own_storage(&variables).await;
        let ours = [
            ("AMQP_URL", format!("{user}@{}/{path}", amqp.address())),
            ("AMQP_QUEUE", name.clone()),
            ("DATABASE_URL", through(servers.url("postgres", &name), &ledger_wire)),
            ("SOURCE_DATABASE_URL", through(servers.source_url(&name), &source_wire)),
            ("S3_ENDPOINT", format!("http://{}", s3_wire.address())),
            ("S3_PUBLIC_ENDPOINT", servers.s3_endpoint.clone()),
            ("PORT", port.to_string()),
            ("LEASE_SECONDS", "5".to_owned()),
            ("EXPORT_TIMEOUT_MS", "600000".to_owned()),
        ];
        variables.retain(|(name, _)| !["AMQP_URL", "S3_ENDPOINT"].contains(&name.as_str()));
        variables.extend(ours.map(|(name, value)| (name.to_owned(), value)));
        variables.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let options = PgPoolOptions::new().max_connections(3).acquire_timeout(Duration::from_secs(10));
        let mut system = Self {
            ledger: options.connect(&servers.url("postgres", &name)).await.unwrap(),
            servers: Arc::clone(servers),
            name,
            storage,
            amqp,
            ledger_wire,
            source_wire,
            s3_wire,
            s3,
            api: None,
            workers: Vec::new(),
            files: ScratchDir::new("crash-system").unwrap(),
            client: reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap(),
            port,
            env: variables,
        };
        system.start_api();
        system.wait_for_api("/health/ready").await;
        system
    }

    pub(crate) fn start_api(&mut self) {
        let command = Command::new(binary("polyglot-api"));
        self.api = Some(Service::start("polyglot-api", "api", command, &self.env, self.files.path()));
    }

    pub(crate) async fn wait_for_api(&self, path: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.client.get(self.url(path)).timeout(Duration::from_secs(5)).send().await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            assert!(Instant::now() < deadline, "the api never answers {path}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn add_worker(&mut self) {
        let name = format!("worker-{}", self.workers.len() + 1);
        let service = self.spawn_worker(&name);
        self.workers.push(service);
    }

    /// Starts a worker with a folder of its own for temporary files.
    pub(crate) fn spawn_worker(&self, name: &str) -> Service {
        let folder = self.temporary_files().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut env = self.env.clone();
        env.push(("TMPDIR".to_owned(), folder.to_str().unwrap().to_owned()));
        let command = Command::new(binary("polyglot-worker"));
        Service::start("polyglot-worker", name, command, &env, self.files.path())
    }

    /// Holds a folder for each worker.
    pub(crate) fn temporary_files(&self) -> PathBuf {
        self.files.path().join("tmp")
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Submits `request`, again and again while the api cannot take it.
    pub(crate) async fn submit(&self, request: &Value) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sent = self.client.post(self.url("/exports")).json(request).send().await;
            match sent {
                Ok(answer) if answer.status() == StatusCode::CREATED => {
                    let body: Value = answer.json().await.unwrap();
                    return body["exportId"].as_str().unwrap().to_owned();
                }
                Ok(answer) => {
                    let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
                    assert!(status.is_server_error(), "{status}: {text}");
                }
                Err(_) => {}
            }
            assert!(Instant::now() < deadline, "the api never accepts an export");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Asks for the deletion of an export until the api has answered.
    pub(crate) async fn delete(&self, id: &str) -> StatusCode {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sent = self.client.request(Method::DELETE, self.url(&format!("/exports/{id}"))).send().await;
            if let Ok(answer) = sent
                && !answer.status().is_server_error()
            {
                return answer.status();
            }
            assert!(Instant::now() < deadline, "the api never deletes {id}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The bytes of a completed export.
    pub(crate) async fn download(&self, id: &str) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sent = self.client.get(self.url(&format!("/exports/{id}/download"))).send().await;
            match sent {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    if let Ok(bytes) = answer.bytes().await {
                        return bytes.to_vec();
                    }
                }
                Ok(answer) => assert!(answer.status().is_server_error(), "{}", answer.status()),
                Err(_) => {}
            }
            assert!(Instant::now() < deadline, "export {id} cannot be downloaded");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// One value out of the ledger, past the proxies. Waits while PostgreSQL is being restarted.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match sqlx::query_scalar(sql).fetch_one(&self.ledger).await {
                Ok(count) => return count,
                Err(error) => assert!(Instant::now() < deadline, "{sql}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What the ledger says of an export.
    pub(crate) async fn record(&self, id: &str) -> Record {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = sqlx::query_as(
                "SELECT state, attempt, failures, error_code, error_detail, object_key FROM polyglot.exports WHERE id = $1::uuid",
            );
            match found.bind(id).fetch_one(&self.ledger).await {
                Ok(record) => return record,
                Err(error) => assert!(Instant::now() < deadline, "export {id} in the ledger: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the ledger says that the export has ended.
    pub(crate) async fn ended(&self, id: &str, patience: Duration) -> Record {
        let deadline = Instant::now() + patience;
        loop {
            let record = self.record(id).await;
            if record.has_ended() {
                return record;
            }
            assert!(Instant::now() < deadline, "after {} s not at its end: {record:?}", patience.as_secs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Record {
    pub state: String,
    pub attempt: i32,
    pub failures: i32,
    pub error_code: Option<String>,
    #[expect(dead_code, reason = "for the reader of a failed test")]
    pub error_detail: Option<String>,
    pub object_key: Option<String>,
}

impl Record {
    pub(crate) fn has_ended(&self) -> bool {
        ["completed", "expired", "failed", "cancelled"].contains(&self.state.as_str())
    }
}

/// A request for the columns of `records`; with `rows`, for so many of them, counted from the first.
pub(crate) fn request(format: &str, compression: Option<&str>, rows: Option<u64>) -> Value {
    let columns: Vec<Value> = ["id", "created_at", "name", "value", "metadata"]
        .iter()
        .map(|name| json!({"source": name, "target": name}))
        .collect();
    let mut request = json!({"format": format, "columns": columns});
    if let Some(rows) = rows {
        request["filters"] = json!([{"column": "id", "op": "<=", "value": rows}]);
    }
    if let Some(compression) = compression {
        request["compression"] = compression.into();
    }
    request
}
