//! The system of the kit with a proxy in front of each server, over servers that can be restarted.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use polyglot_devstack::{Proxy, S3Faults};
use polyglot_test_kit::{System as PlainSystem, wait_until_within};

use crate::servers::Servers;

/// A connection of the services to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Ledger,
    Source,
    Broker,
    Store,
}

impl Link {
    pub(crate) const ALL: [Self; 4] = [Self::Ledger, Self::Source, Self::Broker, Self::Store];
}

/// The system. It dereferences to the one of the kit, which reads ledger and bucket past the proxies.
pub(crate) struct System {
    plain: PlainSystem,
    pub servers: Arc<Servers>,
    /// Name of its ledger's database, of the role that it reads the source with, and of its queue.
    pub name: String,
    /// The proxies in the order of [`Link::ALL`].
    links: [Proxy; 4],
    /// Behind the proxy of [`Link::Store`]: faults that know the operations of S3.
    pub s3_faults: S3Faults,
}

impl Deref for System {
    type Target = PlainSystem;

    fn deref(&self) -> &PlainSystem {
        &self.plain
    }
}

impl DerefMut for System {
    fn deref_mut(&mut self) -> &mut PlainSystem {
        &mut self.plain
    }
}

impl System {
    /// The api, ready; no worker.
    pub(crate) async fn start(servers: &Arc<Servers>, env: &[(&str, &str)]) -> Self {
        let name = format!("crash_{}", uuid::Uuid::new_v4().simple());
        servers.make_ledger(&name).await;
        let (user_and_broker, path) = servers.amqp_url.rsplit_once('/').unwrap();
        let (user, broker) = user_and_broker.rsplit_once('@').unwrap();
        let s3_faults = S3Faults::start(&servers.s3_endpoint).await.unwrap();
        let postgres = servers.postgres_address();
        let links = Link::ALL.map(|link| {
            let target = match link {
                Link::Ledger | Link::Source => postgres.clone(),
                Link::Broker => broker.to_owned(),
                Link::Store => s3_faults.address().to_string(),
            };
            Proxy::start(target).unwrap()
        });
        let address = |link: Link| links[link as usize].address().to_string();
        let through = |url: String, link: Link| url.replace(&postgres, &address(link));
        let database_url = servers.url("postgres", &name);
        let proxied = [
            ("AMQP_URL", format!("{user}@{}/{path}", address(Link::Broker))),
            ("DATABASE_URL", through(database_url.clone(), Link::Ledger)),
            ("SOURCE_DATABASE_URL", through(servers.source_url(&name), Link::Source)),
            ("S3_ENDPOINT", format!("http://{}", address(Link::Store))),
            ("S3_PUBLIC_ENDPOINT", servers.s3_endpoint.clone()),
            ("LEASE_SECONDS", "5".to_owned()),
            ("EXPORT_TIMEOUT_MS", "600000".to_owned()),
        ];
        let proxied = proxied.map(|(name, value)| (name.to_owned(), value));
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut plain = PlainSystem::prepare(&name, &database_url, proxied.into_iter().chain(env).collect()).await;
        plain.start_api();
        plain.wait_until_ready().await;
        Self { plain, servers: Arc::clone(servers), name, links, s3_faults }
    }

    /// The proxy in front of a server.
    pub(crate) fn link(&self, link: Link) -> &Proxy {
        &self.links[link as usize]
    }

    /// The worker whose name this statement finds in the ledger, by its place among the workers.
    pub(crate) async fn worker_named_by(&self, sql: &'static str) -> usize {
        let name: String = sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap();
        // `worker-`, the process, `-`, random digits.
        let process: u32 = name.split('-').nth(1).and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{name}"));
        let found = self.workers.iter().position(|worker| worker.child.id() == process);
        found.unwrap_or_else(|| panic!("{name} is not among the workers"))
    }

    /// Every claim of a worker of this system, dead ones included, out of their logs: the ledger forgets the shards of an
    /// export that has ended.
    pub(crate) fn claims(&self) -> Vec<ClaimedWork> {
        let logs = std::fs::read_dir(self.files.path()).unwrap().flatten().map(|entry| entry.path());
        let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        let texts: Vec<String> = logs.map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect();
        texts.iter().flat_map(|text| text.lines()).filter_map(ClaimedWork::parse).collect()
    }

    /// The ledger's row of an export.
    pub(crate) async fn record(&self, id: &str) -> Record {
        let sql = "SELECT state, attempt, failures, error_code, error_detail, object_key FROM polyglot.exports WHERE id = $1::uuid";
        self.query("for an export", async || sqlx::query_as(sql).bind(id).fetch_one(&self.pool).await).await
    }

    /// Waits for the end of an export as the ledger has it, since the api may be down.
    pub(crate) async fn wait_for_end_in_ledger(&self, id: &str, limit: Duration) -> Record {
        wait_until_within(limit, "the export has ended", async || {
            let record = self.record(id).await;
            if record.has_ended() { Ok(record) } else { Err(format!("{record:?}")) }
        })
        .await
    }
}

/// A piece of work as the log of the worker that claimed it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClaimedWork {
    pub attempt: i32,
    /// Counted from 1; 0 is the plan, or the end.
    pub shard: i32,
}

impl ClaimedWork {
    fn parse(line: &str) -> Option<Self> {
        // The fields are those of the span, which stands before the message.
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
