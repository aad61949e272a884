//! A process of the system under test: its variables, its log, its signals and its end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use polyglot_devstack::launch::OWNER_VARIABLE;
use polyglot_devstack::wait::wait_until;
use polyglot_test_servers::TestServers;
use rustix::process::{Pid, Signal, kill_process};

/// A running api or worker. Killed when it is dropped; the end of its log is printed when the test has failed.
#[derive(Debug)]
pub struct Process {
    pub name: String,
    pub child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with the variables `env` alone, and with its log in the folder `logs`.
    pub fn start(name: &str, mut command: Command, env: &[(String, String)], logs: &Path) -> Self {
        let log = logs.join(format!("{name}-{}.log", uuid::Uuid::new_v4().simple()));
        let output = File::create(&log).unwrap();
        with_environment(&mut command, env);
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().unwrap_or_else(|error| panic!("start {name}: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {}: {error}", self.name));
    }

    /// Waits for the process to end by itself.
    pub async fn wait_for_exit(&mut self) -> ExitStatus {
        let Self { name, child, .. } = self;
        wait_until(&format!("{name} has ended"), async || child.try_wait().unwrap()).await
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
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

/// Gives `command` the variables `env` and no others, except those that a process needs to find its libraries and programs
/// and the mark by which the devstack finds processes that outlive a killed test run.
pub(crate) fn with_environment<'c>(command: &'c mut Command, env: &[(String, String)]) -> &'c mut Command {
    let own = std::env::vars().filter(|(key, _)| ["PATH", "HOME", OWNER_VARIABLE].contains(&key.as_str()));
    command.env_clear().envs(env.iter().cloned()).envs(own)
}

/// The servers of the tests. A test that gets here has begun with `needs_servers!()`.
pub(crate) fn servers() -> TestServers {
    TestServers::from_environment()
        .unwrap_or_else(|problem| panic!("{problem}; does the test begin with needs_servers!()?"))
}

/// Path of a binary that is built with this test.
pub fn binary(name: &str) -> PathBuf {
    Path::new(&servers().bin_dir).join(name)
}
