//! Random faults of a running system, for the soak: one each second, repaired a little later.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use polyglot_devstack::proxy::Direction;
use polyglot_devstack::s3_faults::{ErrorResponse, Forward};
use polyglot_devstack::s3_operation::Operation;
use polyglot_test_kit::Process;
use rand::Rng;
use rand::rngs::StdRng;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::broker;
use crate::system::{Link, System};

/// The repair of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    /// Starts a worker in this place.
    StartWorker(usize),
    /// Resumes the frozen worker in this place.
    Resume(usize),
    StartApi,
    RestoreLink(Link),
    RestoreStoreResponses,
}

/// The workers of a system, and the faults that are not repaired yet.
pub(crate) struct RandomFaults<'a> {
    system: &'a mut System,
    random: StdRng,
    /// By place; `None` where the worker was killed and its successor is not started yet.
    workers: Vec<Option<Process>>,
    /// By place, whether the worker is stopped by SIGSTOP.
    frozen: Vec<bool>,
    /// Workers that got SIGTERM.
    terminating: Vec<Process>,
    /// Repairs to come, and when.
    repairs: Vec<(Instant, Repair)>,
    restarts_left: u32,
    started: u32,
    began: Instant,
}

impl<'a> RandomFaults<'a> {
    /// Takes over the workers of `system`. At most `restarts` times a server is restarted.
    pub(crate) fn new(system: &'a mut System, random: StdRng, restarts: u32) -> Self {
        let workers: Vec<Option<Process>> = std::mem::take(&mut system.workers).into_iter().map(Some).collect();
        let (frozen, started) = (vec![false; workers.len()], u32::try_from(workers.len()).unwrap());
        Self {
            system,
            random,
            workers,
            frozen,
            terminating: Vec::new(),
            repairs: Vec::new(),
            restarts_left: restarts,
            started,
            began: Instant::now(),
        }
    }

    /// Injects a fault each second for so long, then repairs everything.
    pub(crate) async fn run_for(&mut self, duration: Duration) {
        let mut next = Instant::now();
        while self.began.elapsed() < duration {
            self.repair(Instant::now()).await;
            if Instant::now() >= next {
                next = Instant::now() + Duration::from_secs(1);
                let what = self.inject_one().await;
                println!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
            }
            // The resolution of the plan: faults and repairs are at times, not after conditions.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let late = Instant::now() + Duration::from_hours(1);
        self.repair(late).await;
        for mut worker in std::mem::take(&mut self.terminating) {
            let status = worker.wait_for_exit().await;
            // The signal may come before there is a handler for it.
            let too_early = status.signal() == Some(Signal::TERM.as_raw()) && worker.log().is_empty();
            assert!(status.success() || too_early, "{} ended with {status} after SIGTERM", worker.name);
        }
        self.system.workers = std::mem::take(&mut self.workers).into_iter().flatten().collect();
    }

    /// Schedules a repair and returns the time until then.
    fn repair_after(&mut self, milliseconds: std::ops::Range<u64>, repair: Repair) -> Duration {
        let after = Duration::from_millis(self.random.random_range(milliseconds));
        self.repairs.push((Instant::now() + after, repair));
        after
    }

    /// Makes the repairs that are due at `now`.
    async fn repair(&mut self, now: Instant) {
        let (due, rest) = std::mem::take(&mut self.repairs).into_iter().partition::<Vec<_>, _>(|(at, _)| *at <= now);
        self.repairs = rest;
        for (_, repair) in due {
            match repair {
                Repair::StartWorker(at) => self.workers[at] = Some(self.start_worker()),
                Repair::Resume(at) => {
                    self.frozen[at] = false;
                    if let Some(worker) = &self.workers[at] {
                        worker.signal(Signal::CONT);
                    }
                }
                Repair::StartApi => self.system.start_api(),
                Repair::RestoreLink(link) => self.system.link(link).restore().await.unwrap(),
                Repair::RestoreStoreResponses => self.system.s3_faults.restore(),
            }
        }
    }

    fn start_worker(&mut self) -> Process {
        self.started += 1;
        self.system.spawn_worker(&format!("worker-{}", self.started))
    }

    /// Picks one of the workers that are neither dead nor frozen.
    fn pick_running_worker(&mut self) -> Option<usize> {
        let fit: Vec<usize> =
            (0..self.workers.len()).filter(|&at| self.workers[at].is_some() && !self.frozen[at]).collect();
        (!fit.is_empty()).then(|| fit[self.random.random_range(0..fit.len())])
    }

    /// Injects a random fault and describes it.
    async fn inject_one(&mut self) -> String {
        let link = Link::ALL[self.random.random_range(0..Link::ALL.len())];
        match self.random.random_range(0..100) {
            0..16 => self.inject_into_worker(|this, at| {
                this.workers[at] = None;
                this.repair_after(800..1200, Repair::StartWorker(at));
                format!("worker {at} killed")
            }),
            16..30 => self.inject_into_worker(|this, at| {
                if let Some(worker) = &this.workers[at] {
                    worker.signal(Signal::STOP);
                }
                this.frozen[at] = true;
                let after = this.repair_after(1000..8000, Repair::Resume(at));
                format!("worker {at} frozen for {after:?}")
            }),
            30..38 => self.inject_into_worker(|this, at| {
                if let Some(worker) = this.workers[at].take() {
                    worker.signal(Signal::TERM);
                    this.terminating.push(worker);
                }
                this.workers[at] = Some(this.start_worker());
                format!("worker {at} got SIGTERM, another one in its place")
            }),
            38..44 => {
                let running = self.system.api.take().is_some();
                if running {
                    self.repair_after(300..1000, Repair::StartApi);
                }
                format!("api killed (it ran: {running})")
            }
            44..54 => {
                self.system.link(link).disconnect_all();
                format!("{link:?} disconnected")
            }
            54..64 => {
                self.system.link(link).stall();
                let after = self.repair_after(500..4000, Repair::RestoreLink(link));
                format!("{link:?} stalled for {after:?}")
            }
            64..70 => {
                let rate = self.random.random_range(20_000..2_000_000);
                self.system.link(link).throttle(rate);
                let after = self.repair_after(1000..4000, Repair::RestoreLink(link));
                format!("{link:?} throttled to {rate} bytes/s for {after:?}")
            }
            70..80 => {
                let bytes = self.random.random_range(1000..20_000_000);
                let direction = if self.random.random() { Direction::ToServer } else { Direction::ToClient };
                self.system.link(link).disconnect_after(direction, bytes);
                format!("{link:?} disconnected after {bytes} bytes {direction:?}")
            }
            80..87 => {
                let response =
                    if self.random.random() { ErrorResponse::InternalError } else { ErrorResponse::SlowDown };
                self.system.s3_faults.respond(None, response, Forward::No, None);
                let after = self.repair_after(500..4000, Repair::RestoreStoreResponses);
                format!("the store answers {response:?} for {after:?}")
            }
            87..93 => {
                let forward = if self.random.random() { Forward::Yes } else { Forward::No };
                let times = self.random.random_range(1..5);
                let complete = Some(Operation::CompleteMultipartUpload);
                self.system.s3_faults.respond(complete, ErrorResponse::ErrorWithin200, forward, Some(times));
                format!("the next {times} Completes are errors within 200, forwarded: {forward:?}")
            }
            93..97 => {
                broker::purge(&self.system.servers.amqp_url, &self.system.name).await;
                "queue purged".to_owned()
            }
            which => self.restart(which == 97).await,
        }
    }

    fn inject_into_worker(&mut self, inject: impl FnOnce(&mut Self, usize) -> String) -> String {
        match self.pick_running_worker() {
            Some(at) => inject(self, at),
            None => "nothing: no worker is running".to_owned(),
        }
    }

    async fn restart(&mut self, broker: bool) -> String {
        if self.restarts_left == 0 {
            return "nothing: enough restarts".to_owned();
        }
        self.restarts_left -= 1;
        if broker {
            self.system.servers.restart_broker().await;
            "broker killed and started".to_owned()
        } else {
            self.system.servers.restart_postgres().await;
            "PostgreSQL restarted".to_owned()
        }
    }
}
