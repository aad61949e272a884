//! The servers that the api and the workers use: private ones, or those that the user named, and their addresses.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::api_key;
use crate::config::{Broker, RunConfig};
use crate::console::{print_line, seconds};
use crate::embedded_s3::{EmbeddedS3, S3Keys, make_bucket};
use crate::error::{Error, Result};
use crate::launch::rotate;
use crate::listen;
use crate::ports::RememberedPorts;
use crate::postgres::{Postgres, PostgresSettings};
use crate::rabbitmq::{Rabbit, RabbitSettings};
use crate::secrets::Secrets;
use crate::signals::StopSignals;
use crate::stack_env;
use crate::trial_roles::{self, LEDGER_ROLE, READER_ROLE, TrialPasswords};

/// The database of the private PostgreSQL that holds the sample table and the ledger.
const DATABASE: &str = "polyglot";

/// The private servers that are running.
#[derive(Debug, Default)]
pub struct Servers {
    postgres: Option<Postgres>,
    rabbit: Option<Rabbit>,
    s3: Option<EmbeddedS3>,
}

/// Address of each part; in this order in `stack.env`.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub api: String,
    /// Where the api serves its metrics.
    api_metrics: String,
    /// The ledger's database.
    pub database: String,
    /// The database that rows are read from.
    pub source: String,
    /// The database of the sample table, for a role that may make tables in it.
    pub admin: String,
    /// Empty where there is no broker.
    pub amqp: String,
    pub s3_endpoint: String,
    /// `None` where the AWS clients find keys themselves.
    pub keys: Option<S3Keys>,
    /// Ports of `GET /metrics` of the workers, in their order.
    pub worker_metrics: Vec<u16>,
    /// Address on which the workers listen.
    listen: IpAddr,
}

impl Servers {
    /// Starts the servers that `config` does not name, in parallel, each into its field of `self`.
    ///
    /// On an error `self` has those that did start, which have to be stopped.
    pub async fn start(&mut self, config: &RunConfig, data_dir: &Path) -> Result<Addresses> {
        let mut secrets = Secrets::open(&data_dir.join("secrets.env"))?;
        let mut ports = RememberedPorts::open(data_dir.join("ports.env"));
        let log = |name: &str| -> Result<PathBuf> {
            let log = data_dir.join("logs").join(format!("{name}.log"));
            rotate(&log).map(|()| log)
        };

        let postgres_settings = PostgresSettings {
            port: ports.get("postgres")?,
            durable: true,
            password: Some(secrets.get("POSTGRES_PASSWORD")?),
            // A worker has at most 7 to the source and 8 to the ledger, the api 6 and 12.
            max_connections: 100 + u32::from(config.workers) * 15,
            options: &[],
        };
        let passwords = TrialPasswords {
            ledger: secrets.get("POSTGRES_LEDGER_PASSWORD")?,
            reader: secrets.get("POSTGRES_READER_PASSWORD")?,
        };
        let postgres_log = log("postgres")?;
        let postgres = async {
            if config.database_url.is_some() {
                return Ok(None);
            }
            let began = Instant::now();
            let server = Postgres::start(data_dir, &postgres_log, postgres_settings.clone()).await?;
            server.ensure_database(DATABASE).await?;
            trial_roles::set_up(&server.url(DATABASE), &passwords).await?;
            print_line(format!(
                "PostgreSQL on 127.0.0.1:{} after {}",
                postgres_settings.port,
                seconds(began.elapsed())
            ));
            Ok(Some(server))
        };

        let rabbit_settings = RabbitSettings {
            amqp_port: ports.get("amqp")?,
            distribution_port: ports.get("amqp-distribution")?,
            epmd_port: ports.get("epmd")?,
            password: secrets.get("AMQP_PASSWORD")?,
        };
        let rabbit_log = log("rabbitmq")?;
        let rabbit = async {
            match config.broker {
                Broker::Private if Rabbit::is_installed() => {}
                Broker::External(_) => return Ok(None),
                Broker::Private => {
                    print_line(
                        "RabbitMQ is not installed: running without a broker, workers look for work in the ledger",
                    );
                    return Ok(None);
                }
                Broker::Without => {
                    print_line("AMQP_URL is empty: running without a broker, workers look for work in the ledger");
                    return Ok(None);
                }
            }
            let began = Instant::now();
            let server = Rabbit::start(data_dir, &rabbit_log, rabbit_settings.clone()).await?;
            print_line(format!(
                "RabbitMQ on 127.0.0.1:{} after {}",
                rabbit_settings.amqp_port,
                seconds(began.elapsed())
            ));
            Ok(Some(server))
        };

        let keys =
            S3Keys { access_key: secrets.get("AWS_ACCESS_KEY_ID")?, secret_key: secrets.get("AWS_SECRET_ACCESS_KEY")? };
        let s3_port = ports.get("s3")?;
        let worker_metrics = (1..=config.workers).map(|number| ports.get(&format!("worker-{number}-metrics")));
        let worker_metrics = worker_metrics.collect::<Result<Vec<u16>>>()?;
        let s3 = async {
            if config.s3.is_some() {
                return Ok(None);
            }
            let root = data_dir.join("s3");
            make_bucket(&root, &config.bucket)?;
            let server = EmbeddedS3::start(&root, s3_port, Some(keys.clone())).await?;
            print_line(format!("object storage on 127.0.0.1:{s3_port}, its files in {}", root.display()));
            Ok::<_, Error>(Some(server))
        };

        // All are awaited, so that one that fails does not drop, and with that kill, the others.
        let (postgres, rabbit, s3) = tokio::join!(postgres, rabbit, s3);
        let mut failure = None;
        match postgres {
            Ok(server) => self.postgres = server,
            Err(error) => failure = Some(error),
        }
        match rabbit {
            Ok(server) => self.rabbit = server,
            Err(error) => failure = failure.or(Some(error)),
        }
        match s3 {
            Ok(server) => self.s3 = server,
            Err(error) => failure = failure.or(Some(error)),
        }
        if let Some(failure) = failure {
            return Err(failure);
        }

        // A server of the user's is used as the role that the user has named.
        let given = config.database_url.clone().unwrap_or_default();
        let private = |url: &dyn Fn(&Postgres) -> String| self.postgres.as_ref().map_or_else(|| given.clone(), url);
        let database = private(&|server| server.url_for(LEDGER_ROLE, &passwords.ledger, DATABASE));
        let source = private(&|server| server.url_for(READER_ROLE, &passwords.reader, DATABASE));
        let (s3_endpoint, keys) = match (&config.s3, &self.s3) {
            (Some(external), _) => {
                let pair = external.access_key.clone().zip(external.secret_key.clone());
                (external.endpoint.clone(), pair.map(|(access_key, secret_key)| S3Keys { access_key, secret_key }))
            }
            (None, server) => {
                (server.as_ref().map(|server| server.endpoint().to_owned()).unwrap_or_default(), Some(keys))
            }
        };
        Ok(Addresses {
            api: listen::url(config.listen, config.port),
            api_metrics: listen::url(config.listen, config.api_metrics_port.unwrap_or(config.port)),
            database,
            source: config.source_database_url.clone().unwrap_or(source),
            admin: private(&|server| server.url(DATABASE)),
            amqp: match (&config.broker, &self.rabbit) {
                (Broker::External(url), _) => url.clone(),
                (Broker::Private | Broker::Without, server) => server.as_ref().map(Rabbit::url).unwrap_or_default(),
            },
            s3_endpoint,
            keys,
            worker_metrics,
            listen: config.listen,
        })
    }

    /// Stops all servers in order; a second stop signal kills them.
    pub async fn stop(self, signals: &StopSignals) {
        let started = self.postgres.is_some() || self.rabbit.is_some() || self.s3.is_some();
        let (postgres_pid, rabbit_pid) =
            (self.postgres.as_ref().and_then(Postgres::pid), self.rabbit.as_ref().and_then(Rabbit::pid));
        let orderly = async {
            let postgres = async {
                if let Some(server) = self.postgres {
                    server.stop().await;
                }
            };
            let rabbit = async {
                if let Some(server) = self.rabbit {
                    server.stop().await;
                }
            };
            tokio::join!(postgres, rabbit);
        };
        tokio::select! {
            () = orderly => if started { print_line("stopped") },
            () = signals.forced() => {
                // Dropping them has killed them; PostgreSQL recovers at its next start.
                print_line(format!("stopped at once (PostgreSQL {postgres_pid:?}, RabbitMQ {rabbit_pid:?})"));
            }
        }
        drop(self.s3);
    }
}

impl Addresses {
    /// URL of the api's metrics.
    pub fn api_metrics_url(&self) -> String {
        format!("{}/metrics", self.api_metrics)
    }

    /// URLs of the workers' metrics, separated by commas.
    pub fn worker_metrics_urls(&self) -> String {
        let urls = self.worker_metrics.iter().map(|port| format!("{}/metrics", listen::url(self.listen, *port)));
        urls.collect::<Vec<_>>().join(",")
    }

    /// Writes `stack.env`, in which scripts and tests find the addresses.
    pub fn write(&self, config: &RunConfig, api_key: Option<&str>, data_dir: &Path) -> Result<()> {
        let keys = self.keys.as_ref();
        stack_env::write(
            &data_dir.join("stack.env"),
            [
                ("API_URL", self.api.as_str()),
                (api_key::VARIABLE, api_key.unwrap_or_default()),
                ("DATABASE_URL", &self.database),
                ("SOURCE_DATABASE_URL", &self.source),
                ("ADMIN_DATABASE_URL", &self.admin),
                ("AMQP_URL", &self.amqp),
                ("S3_ENDPOINT", &self.s3_endpoint),
                ("S3_BUCKET", &config.bucket),
                ("AWS_ACCESS_KEY_ID", keys.map_or("", |keys| &keys.access_key)),
                ("AWS_SECRET_ACCESS_KEY", keys.map_or("", |keys| &keys.secret_key)),
                ("AWS_REGION", &config.region),
                ("WORKER_METRICS_URLS", &self.worker_metrics_urls()),
            ],
        )
    }
}
