//! What goes wrong at a step, once, and the help that the world gives afterwards: another worker in a dead one's place,
//! the api and the servers started again.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use polyglot_devstack::proxy::Direction;
use polyglot_devstack::s3_faults::{Answer, Forward};
use polyglot_devstack::s3_operation::Operation;
use rustix::process::Signal;

use crate::broker;
use crate::remains;
use crate::steps::{File, Held, Step};
use crate::system::System;

/// How long the object store is away: longer than the SDK's own repetitions last as a rule.
const STORE_AWAY: Duration = Duration::from_secs(4);
/// How often an operation is refused: as often as the SDK tries it.
const SDK_ATTEMPTS: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    WorkerKilled,
    /// What it had sent reaches the store only when another worker has done the export and the store has been searched
    /// for what the dead one left.
    WorkerKilledRequestLate,
    /// The one that is not kept at the step.
    OtherWorkerKilled,
    WorkerFrozen,
    WorkerTerminated,
    ApiKilled,
    BrokerRestarted,
    QueuePurged,
    PostgresRestarted,
    SourceCut,
    LedgerCut,
    StoreRefuses,
    StoreCuts,
    StoreFails,
    CompleteFails,
    CompleteFailsDone,
    Deleted,
}

impl Fault {
    pub(crate) const ALL: [Self; 17] = [
        Self::WorkerKilled,
        Self::WorkerKilledRequestLate,
        Self::OtherWorkerKilled,
        Self::WorkerFrozen,
        Self::WorkerTerminated,
        Self::ApiKilled,
        Self::BrokerRestarted,
        Self::QueuePurged,
        Self::PostgresRestarted,
        Self::SourceCut,
        Self::LedgerCut,
        Self::StoreRefuses,
        Self::StoreCuts,
        Self::StoreFails,
        Self::CompleteFails,
        Self::CompleteFailsDone,
        Self::Deleted,
    ];

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::WorkerKilled => "worker killed",
            Self::WorkerKilledRequestLate => "worker killed, its request late",
            Self::OtherWorkerKilled => "the other worker killed",
            Self::WorkerFrozen => "worker frozen past its lease",
            Self::WorkerTerminated => "worker SIGTERM",
            Self::ApiKilled => "api killed",
            Self::BrokerRestarted => "broker killed",
            Self::QueuePurged => "queue purged",
            Self::PostgresRestarted => "PostgreSQL restarted",
            Self::SourceCut => "source cut",
            Self::LedgerCut => "ledger cut",
            Self::StoreRefuses => "S3 refuses",
            Self::StoreCuts => "S3 cuts",
            Self::StoreFails => "S3 500",
            Self::CompleteFails => "Complete 200 + error",
            Self::CompleteFailsDone => "Complete 200 + error, but done",
            Self::Deleted => "DELETE",
        }
    }

    /// Whether it hits all systems at once.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Self::BrokerRestarted | Self::PostgresRestarted)
    }

    pub(crate) fn applies_to(self, step: Step) -> bool {
        if step.is_cut() {
            return self.applies_to_shards(step);
        }
        match self {
            Self::OtherWorkerKilled | Self::SourceCut | Self::LedgerCut => false,
            Self::WorkerKilled | Self::WorkerFrozen | Self::WorkerTerminated => step.has_worker(),
            Self::WorkerKilledRequestLate => {
                matches!(step, Step::CreateSent | Step::PartSent | Step::CompleteSent | Step::PutSent)
            }
            Self::CompleteFails | Self::CompleteFailsDone => {
                step.file() != File::Small && !matches!(step, Step::CommitPending | Step::Completed)
            }
            _ => true,
        }
    }

    /// Where shards make a difference, within some minutes for all of them. That a worker is killed is tried at each step; that
    /// it sleeps or leaves, with a shard and with the finish. The servers are not: a shard's request
    /// to the store fails like any part's, so one of a shard and one of the end is enough for each answer; messages matter
    /// while there are shards to be told of; and the snapshot while there are rows to be read. The api has no part in it.
    /// A gzip file differs in its end alone, and takes longest.
    fn applies_to_shards(self, step: Step) -> bool {
        use Step::{
            CutCompleteDone, CutCompleteSent, EndSent, LastShardStored, ShardCommitPending, ShardSent, ShardStored,
            ShardsPlanned,
        };
        match self {
            Self::WorkerKilled | Self::Deleted => true,
            Self::WorkerKilledRequestLate => matches!(step, ShardSent | EndSent | CutCompleteSent),
            Self::WorkerFrozen => matches!(step, ShardSent | ShardCommitPending | CutCompleteDone),
            Self::WorkerTerminated => matches!(step, ShardsPlanned | ShardSent | CutCompleteSent),
            Self::ApiKilled => false,
            Self::BrokerRestarted => matches!(step, ShardsPlanned | LastShardStored),
            Self::QueuePurged => matches!(step, ShardsPlanned | ShardSent),
            Self::PostgresRestarted => {
                matches!(step, ShardsPlanned | ShardCommitPending)
            }
            Self::OtherWorkerKilled => matches!(step, ShardSent | LastShardStored),
            Self::SourceCut => matches!(step, ShardsPlanned | ShardSent),
            Self::LedgerCut => matches!(step, ShardCommitPending | CutCompleteDone),
            Self::StoreRefuses => matches!(step, ShardSent | CutCompleteSent),
            Self::StoreCuts => matches!(step, ShardSent | EndSent | CutCompleteDone),
            Self::StoreFails => matches!(step, ShardStored | CutCompleteSent),
            Self::CompleteFails | Self::CompleteFailsDone => step == CutCompleteSent,
        }
    }

    /// In which attempts an export that is cut may end; one that is not may need any number.
    pub(crate) fn attempts(self, step: Step) -> RangeInclusive<i32> {
        match (self, step) {
            _ if !step.is_cut() => 0..=i32::MAX,
            // The only process that kept the snapshot.
            (Self::WorkerKilled | Self::SourceCut | Self::PostgresRestarted, Step::ShardsPlanned) => 2..=2,
            // As that one, unless the other one joins in the moment between.
            (Self::WorkerTerminated, Step::ShardsPlanned)
            // Every keeper is lost, and the other shards may or may not have been read by then.
            | (Self::SourceCut, Step::ShardSent)
            // The same, and whether the commit can wait for the ledger depends on how long the server takes to start.
            | (Self::PostgresRestarted, _) => 1..=2,
            _ => 1..=1,
        }
    }

    /// Does it to `system`, and returns when it is over. A shared fault is the caller's to do before.
    pub(crate) async fn strike(self, system: &mut System, held: &mut Held) {
        match self {
            Self::WorkerKilled => {
                // Killed when it is dropped.
                system.workers.remove(held.worker(system).await);
                held.release(system).await;
                staff(system);
            }
            Self::OtherWorkerKilled => {
                let other = 1 - held.worker(system).await;
                system.workers.remove(other);
                held.release(system).await;
            }
            Self::WorkerKilledRequestLate => {
                system.workers.remove(held.worker(system).await);
                staff(system);
                held.ended(system).await;
                // Until somebody has looked for what the dead worker had begun, and found nothing.
                no_more(system, "SELECT count(*) FROM polyglot.uploads WHERE looks = 0").await;
                held.release(system).await;
            }
            Self::WorkerFrozen => {
                let frozen = held.worker(system).await;
                system.workers[frozen].signal(Signal::STOP);
                held.release(system).await;
                staff_beside(system);
                held.ended(system).await;
                // Its snapshot must not last for as long as it sleeps.
                no_more(system, remains::OPEN_ON_SOURCE).await;
                system.workers[frozen].signal(Signal::CONT);
            }
            Self::WorkerTerminated => {
                let leaving = held.worker(system).await;
                system.workers[leaving].signal(Signal::TERM);
                staff_beside(system);
                // Longer than the grace, which is a second.
                tokio::time::sleep(Duration::from_millis(1500)).await;
                held.release(system).await;
                let mut terminated = system.workers.remove(leaving);
                let status = terminated.ended().await;
                assert!(status.success(), "the worker ended with {status} after SIGTERM");
            }
            Self::ApiKilled => {
                system.api = None;
                held.release(system).await;
                staff(system);
                system.start_api();
                system.door.answers("/health").await;
            }
            Self::QueuePurged => {
                broker::purge(&system.servers.amqp_url, &system.name).await;
                held.release(system).await;
                staff(system);
            }
            Self::BrokerRestarted | Self::PostgresRestarted => {
                held.release(system).await;
                staff(system);
            }
            Self::SourceCut => {
                system.source_wire.cut_all();
                held.release(system).await;
            }
            Self::LedgerCut => {
                system.ledger_wire.cut_all();
                held.release(system).await;
            }
            Self::StoreRefuses => {
                system.s3_wire.refuse_new().await;
                system.s3_wire.cut_all();
                held.release(system).await;
                staff(system);
                tokio::time::sleep(STORE_AWAY).await;
                system.s3_wire.restore().await.unwrap();
            }
            Self::StoreCuts => {
                system.s3_wire.cut_all();
                system.s3_wire.cut_after(Direction::ToServer, 2 << 20);
                held.release(system).await;
                staff(system);
            }
            Self::StoreFails => {
                system.s3.answer(None, Answer::InternalError, Forward::No, None);
                held.release(system).await;
                staff(system);
                tokio::time::sleep(STORE_AWAY).await;
                system.s3.restore();
            }
            Self::CompleteFails | Self::CompleteFailsDone => {
                let forward = if self == Self::CompleteFails { Forward::No } else { Forward::First };
                let complete = Some(Operation::CompleteMultipartUpload);
                system.s3.answer(complete, Answer::ErrorWithin200, forward, Some(SDK_ATTEMPTS));
                held.release(system).await;
                staff(system);
            }
            Self::Deleted => {
                let asked = Instant::now();
                let id = held.id.clone();
                let releasing = async {
                    // The deletion waits behind the lock where there is one.
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    held.release(system).await;
                };
                let (status, ()) = tokio::join!(system.door.delete(&id), releasing);
                assert!(status.is_success(), "DELETE: {status}");
                staff(system);
                held.ended(system).await;
                assert!(asked.elapsed() < Duration::from_secs(10), "cancelled after {:?}", asked.elapsed());
            }
        }
    }
}

/// Waits until this is 0.
async fn no_more(system: &System, count: &'static str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let left = system.count(count).await;
        if left == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{left} for half a minute: {count}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A worker, where there is none.
fn staff(system: &mut System) {
    if system.workers.is_empty() {
        system.add_worker();
    }
}

/// Another worker than the one that was hurt, where there is none.
fn staff_beside(system: &mut System) {
    if system.workers.len() == 1 {
        system.add_worker();
    }
}
