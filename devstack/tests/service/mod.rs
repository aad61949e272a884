//! What every test target needs that runs the real binaries: a process with its variables and its log, and the store as
//! those variables name it. What a system is made of is each target's own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use polyglot_devstack::launch::MARK;
use polyglot_devstack::scratch_database::test_variable;
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_ledger::Connections;
use polyglot_runtime::config::Environment;
use polyglot_storage::S3Store;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take here before a test gives up. Not a measurement: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// A running api or worker. Killed when it goes out of scope; its log is shown when the test failed.
pub(crate) struct Service {
    pub name: String,
    pub child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts `command` with these variables alone, and its log in `logs`.
    pub(crate) fn start(binary: &str, name: &str, mut command: Command, env: &[(String, String)], logs: &Path) -> Self {
        let log = logs.join(format!("{name}-{}.log", uuid::Uuid::new_v4().simple()));
        let output = File::create(&log).unwrap();
        with_environment(&mut command, env);
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().unwrap_or_else(|error| panic!("start {binary}: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {}: {error}", self.name));
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} did not end", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("--- end of the log of {}", self.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

pub(crate) fn service_variables() -> Vec<(String, String)> {
    let test = |name| test_variable(name).unwrap_or_else(|error| panic!("{error}"));
    [
        ("AMQP_URL", test("TEST_AMQP_URL")),
        ("S3_ENDPOINT", test("TEST_S3_ENDPOINT")),
        ("AWS_ACCESS_KEY_ID", test("TEST_S3_ACCESS_KEY")),
        ("AWS_SECRET_ACCESS_KEY", test("TEST_S3_SECRET_KEY")),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("LOG_FORMAT", "pretty".to_owned()),
        ("NO_COLOR", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// These variables and no others, but for what a process needs to find its libraries and programs, and by what it is found
/// when we are killed.
pub(crate) fn with_environment<'c>(command: &'c mut Command, env: &[(String, String)]) -> &'c mut Command {
    let own = std::env::vars().filter(|(key, _)| ["PATH", "HOME", MARK].contains(&key.as_str()));
    command.env_clear().envs(env.iter().cloned()).envs(own)
}

/// The path of a binary that is built with this test.
pub(crate) fn binary(name: &str) -> PathBuf {
    let folder = test_variable("TEST_BIN_DIR").unwrap_or_else(|error| panic!("{error}"));
    Path::new(&folder).join(name)
}

/// The bucket that `env` names, for the test itself.
pub(crate) async fn own_storage(env: &[(String, String)]) -> S3Store {
    let mut variables = env.to_vec();
    // As files would be: so that the client takes these and not what this process's environment says.
    let keys = ScratchDir::new("keys").unwrap();
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        let value = &variables.iter().find(|(known, _)| known == name).unwrap().1;
        let path = keys.path().join(name);
        std::fs::write(&path, value).unwrap();
        variables.push((format!("{name}_FILE"), path.to_str().unwrap().to_owned()));
    }
    let pairs: Vec<(&str, &str)> = variables.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let connections = Connections::from_environment(&Environment::fixed(&pairs)).unwrap();
    S3Store::new(&connections.storage).await
}
