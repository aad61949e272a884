//! One system of its own: a ledger, a bucket, a queue, an api and workers, with a proxy on each connection, and what the
//! tests ask of it past those proxies.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_devstack::{Proxy, S3Faults, free_port};
use polyglot_storage::S3Store;
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::door::Door;
use crate::servers::Servers;
use crate::service::{PATIENCE, Service, binary, own_storage, service_variables};

pub(crate) struct System {
    pub servers: Arc<Servers>,
    /// Of its ledger, of the role that it reads the source with, and of its queue.
    pub name: String,
    pub ledger: PgPool,
    pub storage: S3Store,
    /// To RabbitMQ, to the ledger, to the source, and to `s3`.
    pub amqp: Proxy,
    pub ledger_wire: Proxy,
    pub source_wire: Proxy,
    pub s3_wire: Proxy,
    pub s3: S3Faults,
    pub api: Option<Service>,
    pub workers: Vec<Service>,
    pub files: ScratchDir,
    pub door: Door,
    env: Vec<(String, String)>,
}

impl System {
    /// The api, ready; no worker.
    pub(crate) async fn start(servers: &Arc<Servers>, env: &[(&str, &str)]) -> Self {
        let name = format!("crash_{}", uuid::Uuid::new_v4().simple());
        servers.make_ledger(&name).await;
        let proxy = |target: &str| Proxy::start(target).unwrap();
        let (user_and_broker, path) = servers.amqp_url.rsplit_once('/').unwrap();
        let (user, broker) = user_and_broker.rsplit_once('@').unwrap();
        let amqp = proxy(broker);
        let ledger_wire = proxy(&servers.postgres_address());
        let source_wire = proxy(&servers.postgres_address());
        let s3 = S3Faults::start(&servers.s3_endpoint).await.unwrap();
        let s3_wire = proxy(&s3.address().to_string());
        let port = own_port();
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
            door: Door::new(port),
            env: variables,
        };
        system.start_api();
        system.door.answers("/health/ready").await;
        system
    }

    pub(crate) fn start_api(&mut self) {
        let command = Command::new(binary("polyglot-api"));
        self.api = Some(Service::start("polyglot-api", "api", command, &self.env, self.files.path()));
    }

    pub(crate) fn add_worker(&mut self) {
        let name = format!("worker-{}", self.workers.len() + 1);
        let service = self.spawn_worker(&name);
        self.workers.push(service);
    }

    /// Which of the workers the ledger means by the name that this statement finds.
    pub(crate) async fn worker_named_by(&self, sql: &'static str) -> usize {
        let name: String = sqlx::query_scalar(sql).fetch_one(&self.ledger).await.unwrap();
        // `worker-`, the process, `-`, random digits.
        let process: u32 = name.split('-').nth(1).and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{name}"));
        let found = self.workers.iter().position(|worker| worker.child.id() == process);
        found.unwrap_or_else(|| panic!("{name} is not among the workers"))
    }

    /// Every piece of work that a worker of this system was given, dead ones too, as their logs have it. The ledger forgets
    /// the shards of an export that has ended.
    pub(crate) fn claims(&self) -> Vec<ClaimedWork> {
        let logs = std::fs::read_dir(self.files.path()).unwrap().flatten().map(|entry| entry.path());
        let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        let texts: Vec<String> = logs.map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect();
        texts.iter().flat_map(|text| text.lines()).filter_map(ClaimedWork::of).collect()
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

/// A port that no other system of this process has, for between the choice and the api's bind there is time.
fn own_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = free_port().unwrap();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// A piece of work as a worker's log tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClaimedWork {
    pub attempt: i32,
    /// Counted from 1; 0 is the plan, or the end.
    pub shard: i32,
}

impl ClaimedWork {
    fn of(line: &str) -> Option<Self> {
        // They are the span's, which stands before the words.
        let (fields, _) = line.split_once("work claimed")?;
        let field = |name: &str| {
            let value = fields.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='))?;
            value.parse().ok()
        };
        Some(Self { attempt: field("attempt")?, shard: field("shard")? })
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
