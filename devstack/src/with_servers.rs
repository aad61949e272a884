//! `devstack with-servers -- CMD`: throw-away servers for one command, for the tests. Nothing of `devstack run` is here.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use polyglot_test_servers::TestServers;
use rustix::process::{Signal, kill_process};
use tokio::process::{Child, Command};

use crate::binaries::binaries_folder;
use crate::console::{print_line, seconds};
use crate::data_lock::DataLock;
use crate::embedded_s3::{EmbeddedS3, S3Keys};
use crate::error::{Error, Result};
use crate::launch::{OWNER_VARIABLE, pid_of};
use crate::orphans;
use crate::ports::free_ports;
use crate::postgres::{Postgres, PostgresSettings};
use crate::postgres_folder;
use crate::rabbitmq::{Rabbit, RabbitSettings};
use crate::scratch_dir::{GARBAGE, ScratchDir, remove_garbage};
use crate::seaweedfs::SeaweedFs;
use crate::secrets;
use crate::signals::StopSignals;

const PURPOSE: &str = "servers";
/// Exit code that a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// Longest time that the command may take to end after a stop signal.
const GRACE: Duration = Duration::from_secs(10);

/// Runs `command` with servers of its own and returns its exit code (128 and the signal's number when a signal ended it).
///
/// When this returns, every process that was started, by us or by the command, has ended, and the folder is being removed.
pub async fn run(command: &[OsString]) -> Result<u8> {
    let signals = StopSignals::install()?;
    remove_stale().await;
    let scratch = ScratchDir::new(PURPOSE)?;
    let dir = scratch.path().canonicalize().map_err(Error::path("resolve", scratch.path()))?;
    let _lock = DataLock::take(&dir)?;

    let outcome = run_with(&dir, command, &signals).await;
    orphans::kill(&dir).await;
    if dir.join("postgres").is_symlink() {
        postgres_folder::remove(&dir)?;
    }
    scratch.remove_later();
    outcome
}

async fn run_with(dir: &Path, command: &[OsString], signals: &StopSignals) -> Result<u8> {
    let servers = tokio::select! {
        servers = RunningServers::start(dir) => servers?,
        // The caller kills whatever was started.
        () = signals.requested() => return Ok(INTERRUPTED),
    };
    let code = servers.run(command, dir, signals).await;
    servers.stop().await;
    code
}

struct RunningServers {
    postgres: Postgres,
    rabbit: Rabbit,
    seaweed: SeaweedFs,
    embedded: EmbeddedS3,
    keys: S3Keys,
}

impl RunningServers {
    async fn start(dir: &Path) -> Result<Self> {
        let began = Instant::now();
        let ports = free_ports(4)?;
        let log = |name: &str| dir.join(format!("{name}.log"));
        let keys = S3Keys { access_key: secrets::random(), secret_key: secrets::random() };
        let (postgres_log, rabbit_log, seaweed_log) = (log("postgres"), log("rabbitmq"), log("seaweedfs"));
        let settings =
            PostgresSettings { port: ports[0], durable: false, password: None, max_connections: 300, options: &[] };
        let rabbit_settings = RabbitSettings {
            amqp_port: ports[1],
            distribution_port: ports[2],
            epmd_port: ports[3],
            password: secrets::random(),
        };
        let s3_root = dir.join("s3");
        let (postgres, rabbit, seaweed, embedded) = tokio::try_join!(
            Postgres::start(dir, &postgres_log, settings),
            Rabbit::start(dir, &rabbit_log, rabbit_settings),
            SeaweedFs::start(dir, &seaweed_log, &keys.access_key, &keys.secret_key),
            EmbeddedS3::start(&s3_root, 0, Some(keys.clone())),
        )?;
        print_line(format!(
            "PostgreSQL, RabbitMQ, SeaweedFS and the embedded S3 are up after {}",
            seconds(began.elapsed())
        ));
        Ok(Self { postgres, rabbit, seaweed, embedded, keys })
    }

    async fn run(&self, command: &[OsString], dir: &Path, signals: &StopSignals) -> Result<u8> {
        let Some(program) = command.first() else {
            return Err(Error::Refused("with-servers needs a command: devstack with-servers -- CMD ARGS…".into()));
        };
        // In our own process group, so that it can read from the terminal and receives its Ctrl-C.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .args(command)
            .envs(self.addresses()?.variables())
            .env(OWNER_VARIABLE, dir)
            .envs(test_threads())
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::io(format!("run {}", program.to_string_lossy())))?;
        let status = tokio::select! {
            status = child.wait() => status,
            () = signals.requested() => terminate(&mut child, signals).await,
        };
        status.map(exit_code).map_err(Error::io(format!("wait for {}", program.to_string_lossy())))
    }

    fn addresses(&self) -> Result<TestServers> {
        let bin_dir = binaries_folder()?;
        let bin_dir = bin_dir.to_str().ok_or_else(|| Error::Refused(format!("{} is not UTF-8", bin_dir.display())))?;
        Ok(TestServers {
            database_url: self.postgres.url("postgres"),
            amqp_url: self.rabbit.url(),
            s3_endpoint: self.seaweed.endpoint().to_owned(),
            s3_embedded_endpoint: self.embedded.endpoint().to_owned(),
            s3_access_key: self.keys.access_key.clone(),
            s3_secret_key: self.keys.secret_key.clone(),
            bin_dir: bin_dir.to_owned(),
        })
    }

    /// Kills the servers: their data is thrown away.
    async fn stop(self) {
        tokio::join!(self.postgres.stop_at_once(), self.rabbit.stop_at_once(), self.seaweed.stop_at_once());
        drop(self.embedded);
    }
}

/// The variable that has `cargo test` run more tests at once than there are cores, unless it is set: tests of the whole
/// system mostly wait for it.
fn test_threads() -> Option<(&'static str, String)> {
    const VARIABLE: &str = "RUST_TEST_THREADS";
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::env::var_os(VARIABLE).is_none().then(|| (VARIABLE, (cores + 2).to_string()))
}

async fn terminate(child: &mut Child, signals: &StopSignals) -> std::io::Result<ExitStatus> {
    if let Some(pid) = child.id().and_then(pid_of) {
        let _ = kill_process(pid, Signal::TERM);
    }
    tokio::select! {
        status = child.wait() => return status,
        () = tokio::time::sleep(GRACE) => {}
        () = signals.forced() => {}
    }
    child.kill().await?;
    child.wait().await
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// Removes folders whose devstack was killed: those whose lock is free, and those whose removal was interrupted.
async fn remove_stale() {
    let prefix = format!("polyglot-{PURPOSE}-");
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        let Ok(path) = entry.path().canonicalize() else { continue };
        if path.extension().is_some_and(|extension| extension == GARBAGE) {
            remove_garbage(&path);
            continue;
        }
        // A folder without a lock file is being created at this moment.
        if !path.join("devstack.lock").exists() {
            continue;
        }
        if let Ok(_lock) = DataLock::take(&path) {
            orphans::kill(&path).await;
            let _ = postgres_folder::remove(&path);
            let _ = fs::remove_dir_all(&path);
        }
    }
}
