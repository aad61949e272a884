//! Keeps services running, as an orchestrator would: a service that ends is started again after a second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::console::{print_line, seconds};
use crate::error::{Error, Result, indent};
use crate::launch::{Launch, Running, rotate, tail};
use crate::private_folder;

/// Pause between the end of a service and its next start.
const PAUSE: Duration = Duration::from_secs(1);
/// A service that ran for less than this has failed to start.
const SHORTEST_RUN: Duration = Duration::from_secs(5);

/// A program to keep running.
#[derive(Clone, Debug)]
pub struct Service {
    /// Name of the service, of its log and of its pid file.
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Variables of this process that the service must not have.
    pub without_env: Vec<String>,
}

/// Runs services until it is stopped. Dropping it kills them.
#[derive(Debug)]
pub struct Supervisor {
    owner: PathBuf,
    orders: watch::Sender<Order>,
    tasks: Vec<JoinHandle<()>>,
    exits: Arc<Mutex<Vec<Exit>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Run,
    Stop,
    Kill,
}

#[derive(Debug)]
struct Exit {
    service: String,
    status: String,
    ran_for: Duration,
    log: PathBuf,
}

impl Supervisor {
    /// Pid files go to `data_dir/pids`, logs to `data_dir/logs`.
    pub fn new(data_dir: &Path) -> Result<Self> {
        for folder in ["pids", "logs"] {
            private_folder::create(&data_dir.join(folder))?;
        }
        let pids = data_dir.join("pids");
        for stale in fs::read_dir(&pids).map_err(Error::path("read", &pids))?.flatten() {
            let _ = fs::remove_file(stale.path());
        }
        Ok(Self {
            owner: data_dir.to_owned(),
            orders: watch::channel(Order::Run).0,
            tasks: Vec::new(),
            exits: Arc::default(),
        })
    }

    /// Starts `service` and keeps it running. A missing program shows in its log and in [`Supervisor::check`].
    pub fn start(&mut self, service: Service) -> Result<()> {
        let task = ServiceTask {
            log: self.owner.join("logs").join(format!("{}.log", service.name)),
            pid_file: self.owner.join("pids").join(format!("{}.pid", service.name)),
            owner: self.owner.clone(),
            exits: Arc::clone(&self.exits),
            service,
        };
        rotate(&task.log)?;
        let first = task.launch()?;
        self.tasks.push(tokio::spawn(task.run(first, self.orders.subscribe())));
        Ok(())
    }

    /// An error once a service has ended three times in a row right after its start.
    pub fn check(&self) -> Result<()> {
        let exits = self.exits.lock().unwrap_or_else(PoisonError::into_inner);
        for exit in exits.iter().rev() {
            let last: Vec<_> = exits.iter().rev().filter(|other| other.service == exit.service).take(3).collect();
            if last.len() == 3 && last.iter().all(|exit| exit.ran_for < SHORTEST_RUN) {
                return Err(Error::Process {
                    name: exit.service.clone(),
                    problem: format!("ends again and again right after its start ({})", exit.status),
                    log: Some(exit.log.clone()),
                    tail: tail(&exit.log, 20),
                });
            }
        }
        Ok(())
    }

    /// An error that shows the end of a service's log.
    pub fn failure(&self, service: &str, problem: impl Into<String>) -> Error {
        let log = self.owner.join("logs").join(format!("{service}.log"));
        let tail = tail(&log, 20);
        Error::Process { name: service.to_owned(), problem: problem.into(), log: Some(log), tail }
    }

    /// Sends SIGTERM to all, and SIGKILL to those that still run after `grace` or when `at_once` resolves.
    pub async fn stop(mut self, grace: Duration, at_once: impl Future<Output = ()>) {
        self.orders.send_replace(Order::Stop);
        let mut tasks = std::mem::take(&mut self.tasks);
        let ended = async {
            for task in &mut tasks {
                let _ = task.await;
            }
        };
        tokio::select! {
            () = ended => return,
            () = tokio::time::sleep(grace) => print_line(format!("still running after {}: killed", seconds(grace))),
            () = at_once => {}
        }
        self.orders.send_replace(Order::Kill);
        for task in tasks.into_iter().filter(|task| !task.is_finished()) {
            let _ = task.await;
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // An aborted task drops its program, and that kills it.
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The task that keeps one service running.
struct ServiceTask {
    service: Service,
    owner: PathBuf,
    log: PathBuf,
    pid_file: PathBuf,
    exits: Arc<Mutex<Vec<Exit>>>,
}

impl ServiceTask {
    fn launch(&self) -> Result<Running> {
        let Service { name, program, args, env, without_env } = &self.service;
        let mut launch = Launch::new(name, program, &self.owner, &self.log).args(args);
        for key in without_env {
            launch = launch.without_env(key);
        }
        for (key, value) in env {
            launch = launch.env(key, value);
        }
        let running = launch.spawn()?;
        // Renamed into place: a reader must not see part of the number.
        let temporary = self.pid_file.with_extension("unfinished");
        let pid = running.pid().unwrap_or_default();
        fs::write(&temporary, format!("{pid}\n"))
            .and_then(|()| fs::rename(&temporary, &self.pid_file))
            .map_err(Error::path("write", &self.pid_file))?;
        Ok(running)
    }

    async fn run(self, first: Running, mut orders: watch::Receiver<Order>) {
        let mut running = first;
        loop {
            let started = Instant::now();
            let status = tokio::select! {
                status = running.wait() => status,
                () = at_least(&mut orders, Order::Stop) => {
                    terminate(running, &mut orders).await;
                    let _ = fs::remove_file(&self.pid_file);
                    return;
                }
            };
            let _ = fs::remove_file(&self.pid_file);
            self.report(status, started.elapsed());
            running = loop {
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = at_least(&mut orders, Order::Stop) => return,
                }
                match self.launch() {
                    Ok(running) => break running,
                    Err(error) => print_line(format!("{}: {}", self.service.name, error.with_causes())),
                }
            };
        }
    }

    fn report(&self, status: Result<ExitStatus>, ran_for: Duration) {
        let status = status.map_or_else(|error| error.with_causes(), |status| status.to_string());
        print_line(format!(
            "{} ended after {} ({status}) and is started again in a second; the end of {}:\n{}",
            self.service.name,
            seconds(ran_for),
            self.log.display(),
            indent(&tail(&self.log, 8))
        ));
        let mut exits = self.exits.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the last three exits of a service count, so older ones are dropped.
        if exits.len() > 100 {
            exits.drain(..50);
        }
        exits.push(Exit { service: self.service.name.clone(), status, ran_for, log: self.log.clone() });
    }
}

async fn at_least(orders: &mut watch::Receiver<Order>, wanted: Order) {
    // A dropped supervisor means stop.
    let _ = orders.wait_for(|order| *order >= wanted).await;
}

async fn terminate(mut running: Running, orders: &mut watch::Receiver<Order>) {
    running.signal(Signal::TERM);
    tokio::select! {
        _ = running.wait() => return,
        () = at_least(orders, Order::Kill) => {}
    }
    running.kill().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch_dir::ScratchDir;
    use crate::wait::wait_until;

    fn shell(name: &str, script: &str) -> Service {
        Service {
            name: name.into(),
            program: "sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("GREETING".into(), "hello".into())],
            without_env: Vec::new(),
        }
    }

    fn pid(dir: &ScratchDir, name: &str) -> Option<u32> {
        fs::read_to_string(dir.path().join(format!("pids/{name}.pid"))).ok()?.trim().parse().ok()
    }

    #[tokio::test]
    async fn a_killed_service_is_started_again_after_a_second() {
        let dir = ScratchDir::new("supervisor").unwrap();
        let mut supervisor = Supervisor::new(dir.path()).unwrap();
        supervisor.start(shell("worker-1", "echo $GREETING; exec sleep 60")).unwrap();
        let log = dir.path().join("logs/worker-1.log");
        wait_until("the service runs", async || tail(&log, 10) == "hello").await;
        let first = wait_until("its process id is known", async || pid(&dir, "worker-1")).await;
        let killed = Instant::now();
        crate::orphans::send(first, Signal::KILL);
        let second =
            wait_until("it is started again", async || pid(&dir, "worker-1").filter(|pid| *pid != first)).await;
        assert!(killed.elapsed() >= Duration::from_millis(900));
        assert!(fs::exists(format!("/proc/{second}")).unwrap());
        wait_until("the service runs again", async || tail(&log, 10) == "hello\nhello").await;
        supervisor.check().unwrap();
        supervisor.stop(Duration::from_secs(5), std::future::pending()).await;
        assert!(!fs::exists(format!("/proc/{second}")).unwrap());
        assert_eq!(pid(&dir, "worker-1"), None);
    }

    #[tokio::test]
    async fn a_service_that_never_starts_is_reported_with_the_end_of_its_log() {
        let dir = ScratchDir::new("supervisor").unwrap();
        let mut supervisor = Supervisor::new(dir.path()).unwrap();
        supervisor.start(shell("api", "echo no database; exit 3")).unwrap();
        let message = wait_until("the failure is noticed", async || supervisor.check().err()).await.to_string();
        assert!(
            message.contains("api ends again and again") && message.contains("no database") && message.contains('3'),
            "{message}"
        );
        supervisor.stop(Duration::from_secs(5), std::future::pending()).await;
    }

    #[tokio::test]
    async fn a_service_that_ignores_the_signal_is_killed_after_the_grace() {
        let dir = ScratchDir::new("supervisor").unwrap();
        let mut supervisor = Supervisor::new(dir.path()).unwrap();
        supervisor.start(shell("api", "trap '' TERM; echo up; while :; do sleep 1; done")).unwrap();
        let log = dir.path().join("logs/api.log");
        wait_until("the service runs", async || tail(&log, 1) == "up").await;
        let started = Instant::now();
        supervisor.stop(Duration::from_millis(500), std::future::pending()).await;
        assert!(started.elapsed() >= Duration::from_millis(500) && started.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_missing_program_is_reported() {
        let dir = ScratchDir::new("supervisor").unwrap();
        let mut supervisor = Supervisor::new(dir.path()).unwrap();
        supervisor.start(Service { program: "/no/such/program".into(), ..shell("api", "") }).unwrap();
        let message = wait_until("the failure is noticed", async || supervisor.check().err()).await.to_string();
        assert!(message.contains("/no/such/program"), "{message}");
    }
}
