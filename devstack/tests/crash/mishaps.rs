//! What befalls a running system in the soak: a random fault each second, lifted or mended a little later.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use polyglot_devstack::Proxy;
use polyglot_devstack::proxy::Direction;
use polyglot_devstack::s3_faults::{Answer, Forward};
use polyglot_devstack::s3_operation::Operation;
use rand::Rng;
use rand::rngs::StdRng;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::broker;
use crate::service::Service;
use crate::system::System;

/// A connection of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Ledger,
    Source,
    Amqp,
    Store,
}

impl Wire {
    const ALL: [Self; 4] = [Self::Ledger, Self::Source, Self::Amqp, Self::Store];

    fn of(self, system: &System) -> &Proxy {
        match self {
            Self::Ledger => &system.ledger_wire,
            Self::Source => &system.source_wire,
            Self::Amqp => &system.amqp,
            Self::Store => &system.s3_wire,
        }
    }
}

/// What is to be put right, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    Start(usize),
    Thaw(usize),
    StartApi,
    Restore(Wire),
    StoreAnswers,
}

/// The workers' places, and what is broken at the moment.
pub(crate) struct Mishaps<'a> {
    system: &'a mut System,
    random: StdRng,
    /// `None` where the worker was killed and is not back.
    places: Vec<Option<Service>>,
    frozen: Vec<bool>,
    /// Told to end, and not looked after since.
    leaving: Vec<Service>,
    repairs: Vec<(Instant, Repair)>,
    restarts_left: u32,
    started: u32,
    began: Instant,
}

impl<'a> Mishaps<'a> {
    /// Takes over the workers of `system`. `restarts`: how often a server may be restarted.
    pub(crate) fn new(system: &'a mut System, random: StdRng, restarts: u32) -> Self {
        let places: Vec<Option<Service>> = std::mem::take(&mut system.workers).into_iter().map(Some).collect();
        let (frozen, started) = (vec![false; places.len()], u32::try_from(places.len()).unwrap());
        let (leaving, repairs) = (Vec::new(), Vec::new());
        Self {
            system,
            random,
            places,
            frozen,
            leaving,
            repairs,
            restarts_left: restarts,
            started,
            began: Instant::now(),
        }
    }

    /// A fault a second for so long, then everything is put right.
    pub(crate) async fn befall(&mut self, duration: Duration) {
        let mut next = Instant::now();
        while self.began.elapsed() < duration {
            self.repair(Instant::now()).await;
            if Instant::now() >= next {
                next = Instant::now() + Duration::from_secs(1);
                let what = self.strike().await;
                println!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let late = Instant::now() + Duration::from_hours(1);
        self.repair(late).await;
        for mut service in std::mem::take(&mut self.leaving) {
            let status = service.ended().await;
            // The signal may come before there is a handler for it.
            let too_early = status.signal() == Some(Signal::TERM.as_raw()) && service.log().is_empty();
            assert!(status.success() || too_early, "{} ended with {status} after SIGTERM", service.name);
        }
        self.system.workers = std::mem::take(&mut self.places).into_iter().flatten().collect();
    }

    fn later(&mut self, milliseconds: std::ops::Range<u64>, repair: Repair) -> Duration {
        let after = Duration::from_millis(self.random.random_range(milliseconds));
        self.repairs.push((Instant::now() + after, repair));
        after
    }

    /// Puts right what is due at `now`.
    async fn repair(&mut self, now: Instant) {
        let (due, rest) = std::mem::take(&mut self.repairs).into_iter().partition::<Vec<_>, _>(|(at, _)| *at <= now);
        self.repairs = rest;
        for (_, repair) in due {
            match repair {
                Repair::Start(at) => self.places[at] = Some(self.hire()),
                Repair::Thaw(at) => {
                    self.frozen[at] = false;
                    if let Some(worker) = &self.places[at] {
                        worker.signal(Signal::CONT);
                    }
                }
                Repair::StartApi => self.system.start_api(),
                Repair::Restore(wire) => wire.of(self.system).restore().await.unwrap(),
                Repair::StoreAnswers => self.system.s3.restore(),
            }
        }
    }

    fn hire(&mut self) -> Service {
        self.started += 1;
        self.system.spawn_worker(&format!("worker-{}", self.started))
    }

    /// One of the workers that can be hurt.
    fn victim(&mut self) -> Option<usize> {
        let fit: Vec<usize> =
            (0..self.places.len()).filter(|&at| self.places[at].is_some() && !self.frozen[at]).collect();
        (!fit.is_empty()).then(|| fit[self.random.random_range(0..fit.len())])
    }

    async fn strike(&mut self) -> String {
        let wire = Wire::ALL[self.random.random_range(0..Wire::ALL.len())];
        match self.random.random_range(0..100) {
            0..16 => self.hurt_worker(|this, at| {
                this.places[at] = None;
                this.later(800..1200, Repair::Start(at));
                format!("worker {at} killed")
            }),
            16..30 => self.hurt_worker(|this, at| {
                if let Some(worker) = &this.places[at] {
                    worker.signal(Signal::STOP);
                }
                this.frozen[at] = true;
                let after = this.later(1000..8000, Repair::Thaw(at));
                format!("worker {at} frozen for {after:?}")
            }),
            30..38 => self.hurt_worker(|this, at| {
                if let Some(worker) = this.places[at].take() {
                    worker.signal(Signal::TERM);
                    this.leaving.push(worker);
                }
                this.places[at] = Some(this.hire());
                format!("worker {at} told to end, another one in its place")
            }),
            38..44 => {
                let running = self.system.api.take().is_some();
                if running {
                    self.later(300..1000, Repair::StartApi);
                }
                format!("api killed (it ran: {running})")
            }
            44..54 => {
                wire.of(self.system).cut_all();
                format!("{wire:?} cut")
            }
            54..64 => {
                wire.of(self.system).hold();
                let after = self.later(500..4000, Repair::Restore(wire));
                format!("{wire:?} held for {after:?}")
            }
            64..70 => {
                let rate = self.random.random_range(20_000..2_000_000);
                wire.of(self.system).slow_to(rate);
                let after = self.later(1000..4000, Repair::Restore(wire));
                format!("{wire:?} slowed to {rate} bytes/s for {after:?}")
            }
            70..80 => {
                let bytes = self.random.random_range(1000..20_000_000);
                let direction = if self.random.random() { Direction::ToServer } else { Direction::ToClient };
                wire.of(self.system).cut_after(direction, bytes);
                format!("{wire:?} cut after {bytes} bytes {direction:?}")
            }
            80..87 => {
                let answer = if self.random.random() { Answer::InternalError } else { Answer::SlowDown };
                self.system.s3.answer(None, answer, Forward::No, None);
                let after = self.later(500..4000, Repair::StoreAnswers);
                format!("the store answers {answer:?} for {after:?}")
            }
            87..93 => {
                let forward = if self.random.random() { Forward::First } else { Forward::No };
                let times = self.random.random_range(1..5);
                let complete = Some(Operation::CompleteMultipartUpload);
                self.system.s3.answer(complete, Answer::ErrorWithin200, forward, Some(times));
                format!("the next {times} Completes are errors within 200, forwarded: {forward:?}")
            }
            93..97 => {
                broker::purge(&self.system.servers.amqp_url, &self.system.name).await;
                "queue purged".to_owned()
            }
            which => self.restart(which == 97).await,
        }
    }

    fn hurt_worker(&mut self, hurt: impl FnOnce(&mut Self, usize) -> String) -> String {
        match self.victim() {
            Some(at) => hurt(self, at),
            None => "nothing: no worker is fit".to_owned(),
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
