//! `devstack run`: starts the whole system on this machine, part by part, and stops it. Each part has a module of its own.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::api_key::TrialKey;
use crate::binaries::Binaries;
use crate::config::RunConfig;
use crate::console::{ProgressLine, grouped, print_line, seconds, size};
use crate::data_lock::DataLock;
use crate::embedded_s3::S3Keys;
use crate::error::{Error, Result};
use crate::listen;
use crate::orphans;
use crate::private_folder;
use crate::sample_export;
use crate::seed::{self, Seeded};
use crate::servers::{Addresses, Servers};
use crate::signals::StopSignals;
use crate::supervisor::{Service, Supervisor};

/// Longest time that the api and the workers get to finish their work when the system is stopped.
const GRACE: Duration = Duration::from_secs(40);
/// Whether the services read with a role that may do more than read.
const ALLOW_PRIVILEGED: &str = "SOURCE_ALLOW_PRIVILEGED";
/// Longest time until the api is ready.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// Starts the system and keeps it running until a stop signal. When this returns, every process has ended.
pub async fn run(config: RunConfig) -> Result<()> {
    let signals = StopSignals::install()?;
    let binaries = Binaries::find()?;
    let data_dir = create_data_dir(&config.data_dir)?;
    let _lock = DataLock::take(&data_dir)?;

    let mut stack = Stack { supervisor: None, servers: Servers::default() };
    let outcome = tokio::select! {
        outcome = stack.bring_up(&config, &data_dir, &binaries) => outcome,
        () = signals.requested() => Ok(()),
    };
    if outcome.is_ok() {
        signals.requested().await;
    }
    stack.stop(&signals).await;
    // Processes that were being started when the signal came.
    orphans::kill(&data_dir).await;
    outcome
}

/// The parts that have been started so far.
struct Stack {
    supervisor: Option<Supervisor>,
    servers: Servers,
}

impl Stack {
    async fn bring_up(&mut self, config: &RunConfig, data_dir: &Path, binaries: &Binaries) -> Result<()> {
        let began = Instant::now();
        let left = orphans::stop(data_dir, Duration::from_secs(20)).await;
        if left > 0 {
            print_line(format!("stopped {left} processes that an earlier run had left running"));
        }
        listen::check_free(config.listen, config.port, "PORT")?;
        if let Some(port) = config.api_metrics_port {
            listen::check_free(config.listen, port, "API_METRICS_PORT")?;
        }
        let addresses = self.servers.start(config, data_dir).await?;
        if config.source_database_url.is_none() {
            seed_records(&addresses.admin, config.seed_rows).await?;
        } else {
            print_line("rows come from SOURCE_DATABASE_URL: nothing is seeded");
        }
        let api_key = if config.auth_is_off {
            None
        } else {
            Some(TrialKey::ensure(&binaries.api, &addresses.database, data_dir).await?)
        };
        // Without identity nobody needs the key; it stays for the next start.
        let kept_key = api_key.as_ref().map(|key| key.key.clone()).or_else(|| TrialKey::kept(data_dir));
        addresses.write(config, kept_key.as_deref(), data_dir)?;
        self.start_services(config, data_dir, binaries, &addresses)?;
        self.wait_ready(&addresses.api).await?;
        print_line(format!("api and {} worker(s) ready after {}", config.workers, seconds(began.elapsed())));
        print_line(format!("metrics: {},{}", addresses.api_metrics_url(), addresses.worker_metrics_urls()));

        let source = &addresses.source;
        if seed::has_sample_columns(source).await? {
            self.export_sample(source, &addresses.api, api_key.as_ref(), &data_dir.join("sample-export.csv")).await?;
        } else {
            print_line("no sample export: the database has no table records with the columns of the sample");
        }
        print_addresses(&addresses.api, api_key.as_ref(), data_dir);
        Ok(())
    }

    fn start_services(
        &mut self,
        config: &RunConfig,
        data_dir: &Path,
        binaries: &Binaries,
        addresses: &Addresses,
    ) -> Result<()> {
        let supervisor = self.supervisor.insert(Supervisor::new(data_dir)?);
        let mut env = vec![
            ("DATABASE_URL".to_owned(), addresses.database.clone()),
            ("SOURCE_DATABASE_URL".to_owned(), addresses.source.clone()),
            ("AMQP_URL".to_owned(), addresses.amqp.clone()),
            ("S3_ENDPOINT".to_owned(), addresses.s3_endpoint.clone()),
            ("S3_BUCKET".to_owned(), config.bucket.clone()),
            ("AWS_REGION".to_owned(), config.region.clone()),
        ];
        let one_role = config.database_url.is_some() && config.source_database_url.is_none();
        if one_role && std::env::var_os(ALLOW_PRIVILEGED).is_none() {
            // The role that the user has named is that of the ledger, which may write.
            env.push((ALLOW_PRIVILEGED.to_owned(), "on".to_owned()));
        }
        // A value that was read from a file is passed as the value itself.
        let mut without_env: Vec<String> =
            ["DATABASE_URL_FILE", "SOURCE_DATABASE_URL_FILE", "AMQP_URL_FILE", "S3_ENDPOINT_FILE"]
                .map(str::to_owned)
                .into();
        if let Some(S3Keys { access_key, secret_key }) = &addresses.keys {
            env.push(("AWS_ACCESS_KEY_ID".to_owned(), access_key.clone()));
            env.push(("AWS_SECRET_ACCESS_KEY".to_owned(), secret_key.clone()));
            without_env.extend(["AWS_ACCESS_KEY_ID_FILE", "AWS_SECRET_ACCESS_KEY_FILE"].map(str::to_owned));
        }
        if config.s3.is_none() {
            // Settings of the user's own AWS account must not reach the clients of the embedded store.
            without_env.extend(
                ["AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "S3_PUBLIC_ENDPOINT"]
                    .map(str::to_owned),
            );
        }

        env.push(("LISTEN".to_owned(), config.listen.to_string()));
        without_env
            .extend(["LISTEN_FILE", "PORT_FILE", "API_METRICS_PORT_FILE", "ALLOWED_HOSTS_FILE"].map(str::to_owned));

        let mut api_env = env.clone();
        let allowed_hosts = listen::allowed_hosts(config.listen, config.allowed_hosts.as_deref());
        api_env.extend([
            ("PORT".to_owned(), config.port.to_string()),
            ("ALLOWED_HOSTS".to_owned(), allowed_hosts),
            ("BENCHMARK".to_owned(), config.benchmark.clone()),
        ]);
        api_env.extend(config.download_mode.iter().map(|mode| ("DOWNLOAD_MODE".to_owned(), mode.clone())));
        supervisor.start(Service {
            name: "api".into(),
            program: binaries.api.clone(),
            args: Vec::new(),
            env: api_env,
            without_env: without_env.clone(),
        })?;
        without_env.extend(["PORT", "METRICS_PORT_FILE"].map(str::to_owned));
        for (number, port) in (1..).zip(&addresses.worker_metrics) {
            let mut worker_env = env.clone();
            worker_env.push(("METRICS_PORT".to_owned(), port.to_string()));
            supervisor.start(Service {
                name: format!("worker-{number}"),
                program: binaries.worker.clone(),
                args: Vec::new(),
                env: worker_env,
                without_env: without_env.clone(),
            })?;
        }
        Ok(())
    }

    fn supervisor(&self) -> Result<&Supervisor> {
        self.supervisor.as_ref().ok_or_else(|| Error::Refused("no service was started".into()))
    }

    async fn wait_ready(&self, api: &str) -> Result<()> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()
            .map_err(Error::http("make an HTTP client"))?;
        let supervisor = self.supervisor()?;
        let began = Instant::now();
        let mut last = "no answer".to_owned();
        while began.elapsed() < READY_WITHIN {
            supervisor.check()?;
            match client.get(format!("{api}/health/ready")).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => last = format!("{} {}", answer.status(), answer.text().await.unwrap_or_default()),
                Err(error) => last = format!("no answer ({error})"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Err(supervisor.failure("api", format!("is not ready after {}: {last}", seconds(READY_WITHIN))))
    }

    async fn export_sample(&self, source: &str, api: &str, api_key: Option<&TrialKey>, file: &Path) -> Result<()> {
        let supervisor = self.supervisor()?;
        let failing = async {
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                if let Err(error) = supervisor.check() {
                    return error;
                }
            }
        };
        let sample = tokio::select! {
            sample = sample_export::run(api, api_key.map(|key| key.key.as_str()), file) => sample?,
            error = failing => return Err(error),
        };
        print_line(format!(
            "sample export: {} rows, {} in {}: {}",
            grouped(sample.rows),
            size(sample.bytes),
            seconds(sample.took),
            sample.file.display()
        ));
        let (expected, _) = seed::count_rows(source).await?;
        if expected != sample.rows {
            return Err(Error::Sample(format!(
                "has {} rows and the table {}",
                grouped(sample.rows),
                grouped(expected)
            )));
        }
        Ok(())
    }

    /// Stops the api and the workers, then the servers. A second signal kills all of them at once.
    async fn stop(self, signals: &StopSignals) {
        if self.supervisor.is_some() {
            print_line("stopping: the api and the workers finish their work (Ctrl-C again to stop at once)");
        }
        if let Some(supervisor) = self.supervisor {
            supervisor.stop(GRACE, signals.forced()).await;
        }
        self.servers.stop(signals).await;
    }
}

fn create_data_dir(path: &Path) -> Result<PathBuf> {
    // Other users may traverse it (PostgreSQL may run as one) but not list it.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .map_err(|error| Error::config("DATA_DIR", format!("cannot create the folder {}: {error}", path.display())))?;
    let path = path.canonicalize().map_err(Error::path("resolve", path))?;
    private_folder::create(&path.join("logs")).map_err(|error| Error::config("DATA_DIR", error.to_string()))?;
    Ok(path)
}

async fn seed_records(url: &str, rows: u64) -> Result<()> {
    let began = Instant::now();
    let mut line = ProgressLine::new();
    let seeded = seed::fill_with_progress(url, rows, |done| {
        let took = seconds(began.elapsed());
        if done < rows {
            line.show(format!("seeding the table records: about {} of {} rows, {took}", grouped(done), grouped(rows)));
        } else {
            line.show(format!(
                "seeding the table records: {} rows written, now index and statistics, {took}",
                grouped(rows)
            ));
        }
    })
    .await?;
    match seeded {
        Seeded::Filled { rows } => line.finish(format!("table records: {} rows seeded in {}", grouped(rows), seconds(began.elapsed()))),
        Seeded::Kept { rows: there } if there == rows => line.finish(format!("table records: {} rows, kept", grouped(there))),
        Seeded::Kept { rows: there } => line.finish(format!(
            "table records: {} rows, kept (SEED_ROWS={rows} applies to an empty table only; `make clean-data` removes the data)",
            grouped(there)
        )),
    }
    Ok(())
}

fn print_addresses(api: &str, api_key: Option<&TrialKey>, data_dir: &Path) {
    let (take_key, header) = match api_key {
        Some(_) => (
            format!("\n  API_KEY=$(sed -n 's/^API_KEY=//p' {}/stack.env)", data_dir.display()),
            " -H \"Authorization: Bearer $API_KEY\"",
        ),
        None => (String::new(), ""),
    };
    let key = match api_key {
        Some(TrialKey { key, is_new: true }) => {
            format!("API key, to sign in with and for programs (shown once; it is in stack.env, too): {key}\n")
        }
        Some(_) => "The API key is the one of the first start, API_KEY in stack.env.\n".to_owned(),
        None => "AUTH is off: everyone who can reach the api may export.\n".to_owned(),
    };
    print_line(format!(
        "
Up. The page: {api}/
{key}Addresses and keys of every part: {dir}/stack.env   logs: {dir}/logs/   Ctrl-C stops everything.
Tables of your own are made with ADMIN_DATABASE_URL of that file; the service itself may only read them.

Another export, to copy:{take_key}
  id=$(curl -s{header} {api}/exports -H 'Content-Type: application/json' -d '{{\"format\":\"json\",\"columns\":[{{\"source\":\"id\",\"target\":\"id\"}},{{\"source\":\"name\",\"target\":\"name\"}}]}}' | grep -o '[0-9a-f-]\\{{36\\}}' | head -1)
  curl -sSfL{header} -o export.json {api}/exports/$id/download
",
        dir = data_dir.display()
    ));
}
