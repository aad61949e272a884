//! A private PostgreSQL: initdb once, start, wait, stop. `postgres_folder` chooses the folder of its cluster.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use tokio::process::Command;

use crate::error::{Error, Result, indent};
use crate::launch::{Launch, Running};
use crate::orphans;
use crate::postgres_folder::{self, ClusterFolder};

/// Settings of the server.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    pub port: u16,
    /// If false, a crash of the machine may lose the data: for tests.
    pub durable: bool,
    /// Password of the superuser; without one every local user may connect as that.
    pub password: Option<String>,
    pub max_connections: u32,
    /// Settings (`name=value`) that replace the usual ones.
    pub options: &'static [&'static str],
}

/// The superuser. It is not called like the schema of the ledger: `"$user"` comes first in the search path, so tables that are
/// created without a schema would land there, where no dataset finds them.
const SUPERUSER: &str = "postgres";
/// The superuser of clusters that earlier versions have made. It stays the owner of what is in them.
const FORMER_SUPERUSER: &str = "polyglot";

/// A running private server on 127.0.0.1. Dropping it kills it; [`Postgres::stop`] is the clean way.
#[derive(Debug)]
pub struct Postgres {
    running: Running,
    settings: PostgresSettings,
}

impl Postgres {
    /// Starts the server whose cluster is in (or linked from) `data_dir/postgres`, which is created when missing.
    ///
    /// A server that an earlier run left running is stopped first. Returns when the server accepts connections.
    pub async fn start(data_dir: &Path, log: &Path, settings: PostgresSettings) -> Result<Self> {
        let folder = postgres_folder::find_or_create(data_dir)?;
        let bin = find_programs(&folder)?;
        let cluster = folder.path.join("cluster");
        if !cluster.join("PG_VERSION").exists() {
            initdb(&bin, &folder, &cluster, &settings).await?;
        }
        check_version(&bin, &cluster).await?;
        stop_orphan(&cluster).await;

        // The children of a killed postmaster hold its shared memory for a moment; after that it can be started.
        let mut tries = 0;
        loop {
            tries += 1;
            let mut server = Self {
                running: launch(&bin, &folder, &cluster, data_dir, log, &settings)?,
                settings: settings.clone(),
            };
            match server.wait_ready().await {
                Err(Error::Process { tail, .. }) if tries < 10 && tail.contains("pre-existing shared memory block") => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
    }

    /// Starts a streaming standby over a copy of the cluster of `primary`, whose options have to allow for one. Neither may have
    /// a password: the copy is made by the superuser.
    pub async fn start_standby(
        primary: &Self,
        data_dir: &Path,
        log: &Path,
        settings: PostgresSettings,
    ) -> Result<Self> {
        let folder = postgres_folder::find_or_create(data_dir)?;
        // Where the version's own programs come without it, a newer one of the distribution will do.
        let own = find_programs(&folder)?.join("pg_basebackup");
        let program = if own.exists() { own } else { "pg_basebackup".into() };
        let mut command = as_owner(&folder);
        command.arg(program).args(["--wal-method=stream", "--checkpoint=fast", "--no-sync", "--write-recovery-conf"]);
        command.arg(format!("--dbname={}", primary.url("postgres"))).arg("--pgdata").arg(folder.path.join("cluster"));
        run_to_end("pg_basebackup", &mut command).await?;
        // A newer pg_basebackup writes options there which the libpq of an older server refuses, as `sslsni` before 14; the
        // receiver of the log then never connects. Of two lines the later one counts.
        let conf = folder.path.join("cluster/postgresql.auto.conf");
        let line = format!("primary_conninfo = '{}'\n", primary.url("postgres"));
        let appended =
            fs::OpenOptions::new().append(true).open(&conf).and_then(|mut file| file.write_all(line.as_bytes()));
        appended.map_err(Error::path("write", &conf))?;
        Self::start(data_dir, log, settings).await
    }

    /// Makes a primary of a standby. Returns when it accepts writes.
    pub async fn promote(&self) -> Result<()> {
        let action = "promote the standby";
        let mut connection = PgConnection::connect(&self.url("postgres")).await.map_err(Error::sql(action))?;
        let promoted: bool = sqlx::query_scalar("SELECT pg_promote(wait => true, wait_seconds => 60)")
            .fetch_one(&mut connection)
            .await
            .map_err(Error::sql(action))?;
        let _ = connection.close().await;
        if promoted { Ok(()) } else { Err(Error::Refused("the standby was not promoted within 60 s".into())) }
    }

    /// The URL of one of its databases, for the superuser.
    pub fn url(&self, database: &str) -> String {
        self.url_of(SUPERUSER, database)
    }

    /// The URL of one of its databases, for a role that has a password of its own.
    pub fn url_for(&self, role: &str, password: &str, database: &str) -> String {
        format!("postgres://{role}:{password}@127.0.0.1:{}/{database}", self.settings.port)
    }

    fn url_of(&self, role: &str, database: &str) -> String {
        let password = self.settings.password.as_ref().map(|password| format!(":{password}")).unwrap_or_default();
        format!("postgres://{role}{password}@127.0.0.1:{}/{database}", self.settings.port)
    }

    /// Creates the superuser in a cluster of an earlier version, which has one of another name.
    async fn add_superuser(&self) -> Result<()> {
        let action =
            format!("create the role {SUPERUSER} in the private PostgreSQL, which an earlier version has made");
        let url = self.url_of(FORMER_SUPERUSER, "postgres");
        let mut connection = PgConnection::connect(&url).await.map_err(Error::sql(&action))?;
        let password = self.settings.password.as_deref().unwrap_or_default().replace('\'', "''");
        let rights = "LOGIN SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS";
        let statement = format!("CREATE ROLE {SUPERUSER} {rights} PASSWORD '{password}'");
        connection.execute(sqlx::AssertSqlSafe(statement)).await.map_err(Error::sql(&action))?;
        let _ = connection.close().await;
        Ok(())
    }

    pub fn pid(&self) -> Option<u32> {
        self.running.pid()
    }

    /// Creates the database `name` unless it exists.
    pub async fn ensure_database(&self, name: &str) -> Result<()> {
        let action = format!("create the database {name}");
        let mut connection = PgConnection::connect(&self.url("postgres")).await.map_err(Error::sql(&action))?;
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(&mut connection)
            .await
            .map_err(Error::sql(&action))?;
        if !exists {
            let statement = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
            connection.execute(sqlx::AssertSqlSafe(statement)).await.map_err(Error::sql(&action))?;
        }
        let _ = connection.close().await;
        Ok(())
    }

    /// Stops the server by its "fast" shutdown: sessions are ended, data is written. Killed after 30 seconds.
    pub async fn stop(self) {
        self.running.stop(Signal::INT, Duration::from_secs(30)).await;
    }

    /// Stops the server by its "immediate" shutdown: nothing is written, and the next start recovers from the log.
    pub async fn stop_at_once(self) {
        self.running.stop(Signal::QUIT, Duration::from_secs(5)).await;
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.running.ended()? {
                return Err(self.running.failure(format!("ended while starting ({status})")));
            }
            match PgConnection::connect(&self.url("postgres")).await {
                Ok(connection) => {
                    let _ = connection.close().await;
                    return Ok(());
                }
                // The server does not say whether the role is missing or the password is wrong.
                Err(error) if is_refused(&error) => self.add_superuser().await?,
                // Recovery after a kill may take minutes.
                Err(error) if is_starting(&error) && started.elapsed() < Duration::from_mins(10) => {}
                Err(error) if started.elapsed() > Duration::from_secs(30) => {
                    return Err(Error::sql("connect to the private PostgreSQL after 30 s")(error));
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn is_refused(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "28P01" || code == "28000")
}

fn is_starting(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "57P03")
}

fn launch(
    bin: &Path,
    folder: &ClusterFolder,
    cluster: &Path,
    owner: &Path,
    log: &Path,
    settings: &PostgresSettings,
) -> Result<Running> {
    let mut options = vec![
        format!("port={}", settings.port),
        "listen_addresses=127.0.0.1".to_owned(),
        // A socket's path is limited to 107 bytes, which a data folder's path may exceed.
        "unix_socket_directories=".to_owned(),
        format!("max_connections={}", settings.max_connections),
        // Minimal, so that rows of a table that is created in the same transaction (the seed) skip the log.
        "wal_level=minimal".to_owned(),
        "max_wal_senders=0".to_owned(),
        "shared_buffers=128MB".to_owned(),
        "maintenance_work_mem=256MB".to_owned(),
        "max_wal_size=2GB".to_owned(),
        "checkpoint_timeout=15min".to_owned(),
        "logging_collector=off".to_owned(),
        "log_min_messages=warning".to_owned(),
    ];
    if !settings.durable {
        options.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(str::to_owned));
    }
    options.extend(settings.options.iter().map(|option| (*option).to_owned()));
    let mut launch = Launch::new("PostgreSQL", bin.join("postgres"), owner, log).without_env_prefix("PG");
    // What the server loads later, as postgres_fdw and the receiver of a standby, does not look where the server's own programs
    // do, and would find the distribution's library of another version.
    let libraries = bin.with_file_name("lib");
    if libraries.join("libpq.so.5").exists() {
        launch = launch.env("LD_LIBRARY_PATH", libraries);
    }
    launch
        .user(folder.run_as)
        .current_dir(&folder.path)
        .death_signal("INT")
        .arg("-D")
        .arg(cluster)
        .args(options.iter().flat_map(|option| ["-c", option.as_str()]))
        .spawn()
}

/// The folder of `postgres` and `initdb`: of the major version that `PG` names, otherwise the newest version that Debian's
/// packages installed, otherwise the one that `pg_config` names.
fn find_programs(folder: &ClusterFolder) -> Result<PathBuf> {
    if let Some(major) = std::env::var("PG").ok().filter(|major| !major.is_empty()) {
        return find_fetched(&major, folder);
    }
    let mut installed: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    installed.sort();
    let pg_config = std::process::Command::new("pg_config").arg("--bindir").stderr(Stdio::null()).output().ok();
    let configured = pg_config.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let candidates = installed.into_iter().rev().map(|(_, path)| path).chain(configured);
    candidates.into_iter().find(|path| has_programs(path)).ok_or_else(|| Error::Missing {
        what: "a PostgreSQL server".into(),
        advice: "install the package postgresql (devstack/install does it), or set DATABASE_URL to a server of yours"
            .into(),
    })
}

fn has_programs(bin: &Path) -> bool {
    bin.join("postgres").exists() && bin.join("initdb").exists()
}

/// The programs that `PG=MAJOR devstack/install --tests` has put into `.tools` of this folder or one above it. They are copied
/// into the cluster's folder where its user cannot reach them, as in a clone under `/root`: they find their libraries and
/// files by their own path, so the copy works like the original.
fn find_fetched(major: &str, folder: &ClusterFolder) -> Result<PathBuf> {
    if !major.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::config("PG", format!("{major:?} is not a major version of PostgreSQL, as 18")));
    }
    let name = format!("postgresql-{major}");
    let here = std::env::current_dir().map_err(Error::io("find the current folder"))?;
    let fetched =
        here.ancestors().map(|above| above.join(".tools").join(&name)).find(|it| has_programs(&it.join("bin")));
    let fetched = fetched.ok_or_else(|| Error::Missing {
        what: format!("PostgreSQL {major}, which PG names (.tools/{name})"),
        advice: format!("fetch it: PG={major} devstack/install --tests"),
    })?;
    let Some(user) = folder.run_as.filter(|user| !postgres_folder::reaches(*user, &fetched)) else {
        return Ok(fetched.join("bin"));
    };
    let copy = folder.path.join(&name);
    if !copy.exists() {
        // Under another name until it is complete.
        let unfinished = folder.path.join("programs-unfinished");
        let status = std::process::Command::new("cp").args(["-RT", "--"]).args([&fetched, &unfinished]).status();
        let status = status.map_err(Error::io("run cp"))?;
        if !status.success() {
            let (from, to) = (fetched.display(), unfinished.display());
            return Err(Error::Refused(format!("cp could not copy {from} to {to} ({status})")));
        }
        fs::rename(&unfinished, &copy).map_err(Error::path("rename", &unfinished))?;
    }
    if postgres_folder::reaches(user, &copy.join("bin")) {
        return Ok(copy.join("bin"));
    }
    Err(Error::Refused(format!("the user postgres cannot reach {}", copy.display())))
}

/// Refuses a cluster of another major version with advice; the server's own message has none.
async fn check_version(bin: &Path, cluster: &Path) -> Result<()> {
    let file = cluster.join("PG_VERSION");
    let cluster_version = fs::read_to_string(&file).map_err(Error::path("read", &file))?;
    let output = Command::new(bin.join("postgres"))
        .arg("--version")
        .output()
        .await
        .map_err(Error::io("ask postgres for its version"))?;
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    let major: String = version.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    if cluster_version.trim() == major {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "the database in {} was created by PostgreSQL {}, and {major} is installed: use another DATA_DIR, or remove the data with `make clean-data`",
        cluster.display(),
        cluster_version.trim()
    )))
}

async fn initdb(bin: &Path, folder: &ClusterFolder, cluster: &Path, settings: &PostgresSettings) -> Result<()> {
    // Under another name until it is complete, so that a run that is killed here leaves no partial cluster.
    let unfinished = folder.path.join("cluster-unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(Error::path("remove", &unfinished))?;
    }
    fs::DirBuilder::new().mode(0o700).create(&unfinished).map_err(Error::path("create", &unfinished))?;
    let password_file = folder.path.join("password-unfinished");
    if let Some((uid, gid)) = folder.run_as {
        chown(&unfinished, Some(uid), Some(gid)).map_err(Error::path("change the owner of", &unfinished))?;
    }
    let mut command = as_owner(folder);
    command.arg(bin.join("initdb")).arg("-D").arg(&unfinished);
    command.args(["-E", "UTF8", "--locale=C.UTF-8"]);
    if let Some(password) = &settings.password {
        fs::write(&password_file, password).map_err(Error::path("write", &password_file))?;
        fs::set_permissions(&password_file, fs::Permissions::from_mode(0o600))
            .map_err(Error::path("change the mode of", &password_file))?;
        if let Some((uid, gid)) = folder.run_as {
            chown(&password_file, Some(uid), Some(gid)).map_err(Error::path("change the owner of", &password_file))?;
        }
        command.args(["-U", SUPERUSER, "-A", "scram-sha-256"]).arg(format!("--pwfile={}", password_file.display()));
    } else {
        command.args(["-U", SUPERUSER, "-A", "trust"]);
    }
    if !settings.durable {
        command.arg("--no-sync");
    }
    let outcome = run_to_end("initdb", &mut command).await;
    let _ = fs::remove_file(&password_file);
    outcome?;
    fs::rename(&unfinished, cluster).map_err(Error::path("rename", &unfinished))
}

/// A command that the arguments to come name, as the owner of the cluster and in its folder.
fn as_owner(folder: &ClusterFolder) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some((uid, gid)) = folder.run_as {
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
    }
    command.arg("--").current_dir(&folder.path);
    command
}

/// Runs a command; what it has written to its standard error is in the error.
async fn run_to_end(name: &str, command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(Error::io(format!("run {name}")))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Error::Process {
        name: name.into(),
        problem: format!("failed ({}):\n{}", output.status, indent(&stderr)),
        log: None,
        tail: String::new(),
    })
}

/// Stops the server that still runs on `cluster`, and removes a pid file that would keep a new one from starting.
///
/// The caller holds the lock on the data folder, so whatever runs there is an orphan.
async fn stop_orphan(cluster: &Path) {
    let pid_file = cluster.join("postmaster.pid");
    let Some(pid) = fs::read_to_string(&pid_file).ok().and_then(|text| text.lines().next()?.trim().parse::<u32>().ok())
    else {
        return;
    };
    let runs_here = || {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            let wanted = cluster.to_string_lossy();
            line.split(|byte| *byte == 0).any(|argument| argument == wanted.as_bytes())
        })
    };
    let asked = Instant::now();
    while runs_here() {
        orphans::send(pid, if asked.elapsed() < Duration::from_secs(20) { Signal::INT } else { Signal::KILL });
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let _ = fs::remove_file(&pid_file);
}
