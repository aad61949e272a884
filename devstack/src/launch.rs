//! Starting one program so that it ends with this process, and stopping it. Callers decide which program, and when it is
//! ready.
//!
//! Three things prevent orphans. `setpriv --pdeathsig` has the kernel signal the program when this process ends. Each program
//! has [`OWNER_VARIABLE`] in its environment, by which the next run finds one that is still running. And a dropped
//! [`Running`] kills its program.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::error::{Error, Result};

/// Environment variable of every program that is started here: the data folder that the program belongs to.
pub const OWNER_VARIABLE: &str = "POLYGLOT_DEVSTACK";

/// A program to start.
#[derive(Debug)]
pub struct Launch {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    owner: PathBuf,
    log: PathBuf,
    cwd: Option<PathBuf>,
    user: Option<(u32, u32)>,
    death_signal: &'static str,
}

impl Launch {
    /// `owner` is the data folder that the program belongs to; its standard output and error are appended to `log`.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, owner: &Path, log: &Path) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            owner: owner.to_owned(),
            log: log.to_owned(),
            cwd: None,
            user: None,
            death_signal: "TERM",
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    pub fn without_env(mut self, key: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), None));
        self
    }

    /// Removes variables of this process that begin with `prefix` from the program's environment.
    pub fn without_env_prefix(mut self, prefix: &str) -> Self {
        let ours = std::env::vars_os().map(|(key, _)| key);
        self.env.extend(ours.filter(|key| key.to_string_lossy().starts_with(prefix)).map(|key| (key, None)));
        self
    }

    pub fn current_dir(mut self, dir: &Path) -> Self {
        self.cwd = Some(dir.to_owned());
        self
    }

    /// Runs the program as another user; only root can.
    pub fn user(mut self, user: Option<(u32, u32)>) -> Self {
        self.user = user;
        self
    }

    /// The signal that the program gets when this process ends (its name without `SIG`); TERM by default.
    pub fn death_signal(mut self, signal: &'static str) -> Self {
        self.death_signal = signal;
        self
    }

    /// Starts the program in a process group of its own, so that Ctrl-C at the terminal reaches this process alone.
    pub fn spawn(self) -> Result<Running> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.log)
            .map_err(Error::path("open the log", &self.log))?;
        let errors = log.try_clone().map_err(Error::path("open the log", &self.log))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", self.death_signal]);
        if let Some((uid, gid)) = self.user {
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
        }
        command.arg("--").arg(&self.program).args(&self.args);
        for (key, value) in &self.env {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command.env(OWNER_VARIABLE, &self.owner);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0).kill_on_drop(true);
        let child = spawn_from_permanent_thread(command)
            .map_err(Error::io(format!("start {} through setpriv (from util-linux)", self.program.display())))?;
        Ok(Running { name: self.name, child, log: self.log })
    }
}

/// A program that was started by [`Launch`]. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, until the end of the program was waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub async fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().await.map_err(Error::io(format!("wait for {}", self.name)))
    }

    /// The exit status when the program has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(Error::io(format!("read the state of {}", self.name)))
    }

    /// Sends a signal; a program that has ended gets none, and that is no error.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(pid_of) {
            // It may end between the two lines. As it was not waited for, its id is not reused yet.
            let _ = kill_process(pid, signal);
        }
    }

    /// Sends `signal`, waits at most `grace`, then kills. True when the program ended by itself.
    pub async fn stop(mut self, signal: Signal, grace: Duration) -> bool {
        self.signal(signal);
        if timeout(grace, self.child.wait()).await.is_ok() {
            return true;
        }
        let _ = self.child.kill().await;
        false
    }

    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }

    /// An error that shows the end of the program's log.
    pub fn failure(&self, problem: impl Into<String>) -> Error {
        Error::Process {
            name: self.name.clone(),
            problem: problem.into(),
            log: Some(self.log.clone()),
            tail: tail(&self.log, 20),
        }
    }
}

/// The process id in the form that the system calls take.
pub(crate) fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The last lines of a file, at most 16 KiB of it; empty when it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    const WINDOW: u64 = 16 * 1024;
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        let mut bytes = Vec::new();
        file.take(WINDOW).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Renames the log of the previous run to `NAME.log.1`, in place of an older one.
pub fn rotate(log: &Path) -> Result<()> {
    let mut old = log.as_os_str().to_owned();
    old.push(".1");
    match fs::rename(log, PathBuf::from(old)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::path("rename the log", log)(error)),
        _ => Ok(()),
    }
}

/// Spawns from a thread that lives as long as the process.
///
/// The kernel sends the death signal when the *thread* that started the program ends, and threads of the async runtime may
/// end earlier than the process (in a test they end with the test).
fn spawn_from_permanent_thread(command: Command) -> io::Result<Child> {
    type Job = (Command, Handle, mpsc::SyncSender<io::Result<Child>>);
    static THREAD: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let jobs = THREAD.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        let spawned = std::thread::Builder::new().name("launcher".into()).spawn(move || {
            for (mut command, runtime, answer) in jobs {
                let _runtime = runtime.enter();
                let _ = answer.send(command.spawn());
            }
        });
        // Without the thread there is no receiver, and each send below fails.
        drop(spawned);
        sender
    });
    let (answer, result) = mpsc::sync_channel(1);
    let ended = || io::Error::other("the launcher thread has ended");
    jobs.send((command, Handle::current(), answer)).map_err(|_| ended())?;
    result.recv().map_err(|_| ended())?
}
