//! Keeps services running, as an orchestrator would: one that ends is started again after a second. What they are is not here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::console::{say, seconds};
use crate::error::{Error, Result, indent};
use crate::launch::{Launch, Running, rotate, tail};

/// Between the end of a service and its next start.
const PAUSE: Duration = Duration::from_secs(1);
/// A service that lives shorter than this did not get to work.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A program to keep running.
#[derive(Clone, Debug)]
pub struct Service {
    /// Also the name of its log and of its pid file.
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Variables of ours that it must not see.
    pub without_env: Vec<String>,
}

/// Runs services until it is stopped. Dropping it kills them.
#[derive(Debug)]
pub struct Supervisor {
    owner: PathBuf,
    orders: watch::Sender<Order>,
    tasks: Vec<JoinHandle<()>>,
    deaths: Arc<Mutex<Vec<Death>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Run,
    Stop,
    Kill,
}

#[derive(Debug)]
struct Death {
    service: String,
    status: String,
    lived: Duration,
    log: PathBuf,
}

impl Supervisor {
    /// Pid files go to `data_dir/pids`, logs to `data_dir/logs`.
    pub fn new(data_dir: &Path) -> Result<Self> {
        for folder in ["pids", "logs"] {
            let folder = data_dir.join(folder);
            fs::create_dir_all(&folder).map_err(Error::path("create", &folder))?;
        }
        let pids = data_dir.join("pids");
        for stale in fs::read_dir(&pids).map_err(Error::path("read", &pids))?.flatten() {
            let _ = fs::remove_file(stale.path());
        }
        Ok(Self {
            owner: data_dir.to_owned(),
            orders: watch::channel(Order::Run).0,
            tasks: Vec::new(),
            deaths: Arc::default(),
        })
    }

    /// Starts `service` and keeps it running. A program that is not there shows in its log and in [`Supervisor::check`].
    pub fn start(&mut self, service: Service) -> Result<()> {
        let keeper = Keeper {
            log: self.owner.join("logs").join(format!("{}.log", service.name)),
            pid_file: self.owner.join("pids").join(format!("{}.pid", service.name)),
            owner: self.owner.clone(),
            deaths: Arc::clone(&self.deaths),
            service,
        };
        rotate(&keeper.log)?;
        let first = keeper.launch()?;
        self.tasks.push(tokio::spawn(keeper.keep(first, self.orders.subscribe())));
        Ok(())
    }

    /// An error once a service ended three times in a row right after its start: it will not come up by itself.
    pub fn check(&self) -> Result<()> {
        let deaths = self.deaths.lock().unwrap_or_else(PoisonError::into_inner);
        for death in deaths.iter().rev() {
            let last: Vec<_> = deaths.iter().rev().filter(|other| other.service == death.service).take(3).collect();
            if last.len() == 3 && last.iter().all(|death| death.lived < AT_ONCE) {
                return Err(Error::Process {
                    name: death.service.clone(),
                    problem: format!("ends again and again right after its start ({})", death.status),
                    log: Some(death.log.clone()),
                    tail: tail(&death.log, 20),
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

    /// SIGTERM to all, SIGKILL to those that are still there after `grace` or when `at_once` resolves.
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
            () = tokio::time::sleep(grace) => say(format!("still running after {}: killed", seconds(grace))),
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

/// What one task needs to keep one service running.
struct Keeper {
    service: Service,
    owner: PathBuf,
    log: PathBuf,
    pid_file: PathBuf,
    deaths: Arc<Mutex<Vec<Death>>>,
}

impl Keeper {
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
        // Whole at once: a reader must not see half a number.
        let temporary = self.pid_file.with_extension("unfinished");
        let pid = running.pid().unwrap_or_default();
        fs::write(&temporary, format!("{pid}\n"))
            .and_then(|()| fs::rename(&temporary, &self.pid_file))
            .map_err(Error::path("write", &self.pid_file))?;
        Ok(running)
    }

    async fn keep(self, first: Running, mut orders: watch::Receiver<Order>) {
        let mut running = first;
        loop {
            let born = Instant::now();
            let status = tokio::select! {
                status = running.wait() => status,
                () = at_least(&mut orders, Order::Stop) => {
                    end(running, &mut orders).await;
                    let _ = fs::remove_file(&self.pid_file);
                    return;
                }
            };
            let _ = fs::remove_file(&self.pid_file);
            self.report(status, born.elapsed());
            running = loop {
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = at_least(&mut orders, Order::Stop) => return,
                }
                match self.launch() {
                    Ok(running) => break running,
                    Err(error) => say(format!("{}: {}", self.service.name, error.with_causes())),
                }
            };
        }
    }

    fn report(&self, status: Result<ExitStatus>, lived: Duration) {
        let status = status.map_or_else(|error| error.with_causes(), |status| status.to_string());
        say(format!(
            "{} ended after {} ({status}) and is started again in a second; the end of {}:\n{}",
            self.service.name,
            seconds(lived),
            self.log.display(),
            indent(&tail(&self.log, 8))
        ));
        let mut deaths = self.deaths.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the last three of a service count; a list that grows with every restart would be a leak.
        if deaths.len() > 100 {
            deaths.drain(..50);
        }
        deaths.push(Death { service: self.service.name.clone(), status, lived, log: self.log.clone() });
    }
}

async fn at_least(orders: &mut watch::Receiver<Order>, wanted: Order) {
    // Without a supervisor there is nobody to run for.
    let _ = orders.wait_for(|order| *order >= wanted).await;
}

async fn end(mut running: Running, orders: &mut watch::Receiver<Order>) {
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

    fn shell(name: &str, script: &str) -> Service {
        Service {
            name: name.into(),
            program: "sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("GREETING".into(), "hello".into())],
            without_env: Vec::new(),
        }
    }

    async fn until<T>(mut probe: impl FnMut() -> Option<T>) -> T {
        for _ in 0..200 {
            if let Some(found) = probe() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it did not happen within 10 s");
    }

    fn pid(dir: &ScratchDir, name: &str) -> Option<u32> {
        fs::read_to_string(dir.path().join(format!("pids/{name}.pid"))).ok()?.trim().parse().ok()
    }

    #[tokio::test]
    async fn a_killed_service_comes_back_after_a_second() {
        let dir = ScratchDir::new("supervisor").unwrap();
        let mut supervisor = Supervisor::new(dir.path()).unwrap();
        supervisor.start(shell("worker-1", "echo $GREETING; exec sleep 60")).unwrap();
        let log = dir.path().join("logs/worker-1.log");
        until(|| (tail(&log, 10) == "hello").then_some(())).await;
        let first = until(|| pid(&dir, "worker-1")).await;
        let killed = Instant::now();
        crate::leftovers::send(first, Signal::KILL);
        let second = until(|| pid(&dir, "worker-1").filter(|pid| *pid != first)).await;
        assert!(killed.elapsed() >= Duration::from_millis(900));
        assert!(fs::exists(format!("/proc/{second}")).unwrap());
        until(|| (tail(&log, 10) == "hello\nhello").then_some(())).await;
        supervisor.check().unwrap();
        supervisor.stop(Duration::from_secs(5), std::future::pending()).await;
        assert!(!fs::exists(format!("/proc/{second}")).unwrap());
        assert_eq!(pid(&dir, "worker-1"), None);
    }

    #[tokio::test]
    async fn one_that_never_comes_up_is_told_with_its_last_words() {
        let dir = ScratchDir::new("supervisor").unwrap();
        let mut supervisor = Supervisor::new(dir.path()).unwrap();
        supervisor.start(shell("api", "echo no database; exit 3")).unwrap();
        let words = until(|| supervisor.check().err()).await.to_string();
        assert!(
            words.contains("api ends again and again") && words.contains("no database") && words.contains('3'),
            "{words}"
        );
        supervisor.stop(Duration::from_secs(5), std::future::pending()).await;
    }

    #[tokio::test]
    async fn one_that_ignores_the_signal_is_killed_after_the_grace() {
        let dir = ScratchDir::new("supervisor").unwrap();
        let mut supervisor = Supervisor::new(dir.path()).unwrap();
        supervisor.start(shell("api", "trap '' TERM; echo up; while :; do sleep 1; done")).unwrap();
        let log = dir.path().join("logs/api.log");
        until(|| (tail(&log, 1) == "up").then_some(())).await;
        let started = Instant::now();
        supervisor.stop(Duration::from_millis(500), std::future::pending()).await;
        assert!(started.elapsed() >= Duration::from_millis(500) && started.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_told() {
        let dir = ScratchDir::new("supervisor").unwrap();
        let mut supervisor = Supervisor::new(dir.path()).unwrap();
        supervisor.start(Service { program: "/no/such/program".into(), ..shell("api", "") }).unwrap();
        let words = until(|| supervisor.check().err()).await.to_string();
        assert!(words.contains("/no/such/program"), "{words}");
    }
}
