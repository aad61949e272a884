//! The faults of the matrix: what happens once to an export that is held at a step, and what is repaired afterwards: another
//! worker in a dead one's place, the api and the servers started again.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use polyglot_devstack::proxy::Direction;
use polyglot_devstack::s3_faults::{ErrorResponse, Forward};
use polyglot_devstack::s3_operation::Operation;
use polyglot_test_kit::wait_until_within;
use rustix::process::Signal;

use crate::broker;
use crate::cleanup_checks;
use crate::steps::{File, HeldExport, Step};
use crate::system::{Link, System};

/// Length of a short disturbance of the object store: as a rule longer than the SDK's own retries.
const STORE_OUTAGE: Duration = Duration::from_secs(4);
/// Number of refusals of an operation: as many as the SDK makes attempts.
const SDK_ATTEMPTS: u32 = 4;

/// How long a server is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// 5 s.
    Short,
    /// 30 s.
    Medium,
    /// 120 s.
    Long,
}

impl Outage {
    fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Short => 5,
            Self::Medium => 30,
            Self::Long => 120,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    WorkerKilled,
    /// The request that it had sent reaches the store only when another worker has completed the export and the store has
    /// been checked for uploads of the dead one.
    WorkerKilledRequestLate,
    /// The worker that is not held at the step.
    OtherWorkerKilled,
    WorkerFrozen,
    WorkerTerminated,
    ApiKilled,
    BrokerRestarted,
    QueuePurged,
    PostgresRestarted,
    SourceDisconnected,
    LedgerDisconnected,
    StoreRefuses,
    StoreDisconnects,
    StoreFails,
    /// A server refuses connections, as during a restart.
    Away(Link, Outage),
    /// The store is restarted without its data: no bucket, no uploads.
    StoreForgets,
    CompleteFails,
    CompleteFailsButDone,
    Deleted,
}

impl Fault {
    pub(crate) const ALL: [Self; 30] = [
        Self::WorkerKilled,
        Self::WorkerKilledRequestLate,
        Self::OtherWorkerKilled,
        Self::WorkerFrozen,
        Self::WorkerTerminated,
        Self::ApiKilled,
        Self::BrokerRestarted,
        Self::QueuePurged,
        Self::PostgresRestarted,
        Self::SourceDisconnected,
        Self::LedgerDisconnected,
        Self::StoreRefuses,
        Self::StoreDisconnects,
        Self::StoreFails,
        Self::Away(Link::Store, Outage::Short),
        Self::Away(Link::Store, Outage::Medium),
        Self::Away(Link::Store, Outage::Long),
        Self::StoreForgets,
        Self::Away(Link::Source, Outage::Short),
        Self::Away(Link::Source, Outage::Medium),
        Self::Away(Link::Source, Outage::Long),
        Self::Away(Link::Ledger, Outage::Short),
        Self::Away(Link::Ledger, Outage::Medium),
        Self::Away(Link::Ledger, Outage::Long),
        Self::Away(Link::Broker, Outage::Short),
        Self::Away(Link::Broker, Outage::Medium),
        Self::Away(Link::Broker, Outage::Long),
        Self::CompleteFails,
        Self::CompleteFailsButDone,
        Self::Deleted,
    ];

    pub(crate) fn description(self) -> String {
        let words = match self {
            Self::WorkerKilled => "worker killed",
            Self::WorkerKilledRequestLate => "worker killed, its request delivered late",
            Self::OtherWorkerKilled => "the other worker killed",
            Self::WorkerFrozen => "worker frozen past its lease",
            Self::WorkerTerminated => "worker SIGTERM",
            Self::ApiKilled => "api killed",
            Self::BrokerRestarted => "broker killed",
            Self::QueuePurged => "queue purged",
            Self::PostgresRestarted => "PostgreSQL restarted",
            Self::SourceDisconnected => "source disconnected",
            Self::LedgerDisconnected => "ledger disconnected",
            Self::StoreRefuses => "S3 refuses connections",
            Self::StoreDisconnects => "S3 drops connections",
            Self::StoreFails => "S3 answers 500",
            Self::Away(link, outage) => {
                let server = match link {
                    Link::Ledger => "ledger",
                    Link::Source => "source",
                    Link::Broker => "broker",
                    Link::Store => "S3",
                };
                return format!("{server} away for {} s", outage.length().as_secs());
            }
            Self::StoreForgets => "S3 restarted empty",
            Self::CompleteFails => "CompleteMultipartUpload: 200 with an error",
            Self::CompleteFailsButDone => "CompleteMultipartUpload: 200 with an error, but done",
            Self::Deleted => "DELETE",
        };
        words.to_owned()
    }

    /// Whether it hits all systems at once.
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Self::BrokerRestarted | Self::PostgresRestarted)
    }

    /// Whether it takes minutes, so that it is left out unless `CRASH_LONG=1` asks for it.
    pub(crate) fn is_long(self) -> bool {
        matches!(self, Self::Away(_, Outage::Long))
    }

    /// `MAX_ATTEMPTS` of the system. An outage that is waited for costs no attempt, so one has to be enough; what a store forgot, or
    /// rows that a source was sending, cost one.
    pub(crate) fn max_attempts(self) -> &'static str {
        match self {
            Self::Away(Link::Store, _) => "1",
            Self::StoreForgets | Self::Away(Link::Source, _) => "2",
            _ => "10",
        }
    }

    /// Longest time from the fault to the end of the export.
    pub(crate) fn limit(self) -> Duration {
        if self.is_long() { Duration::from_mins(5) } else { Duration::from_secs(90) }
    }

    pub(crate) fn applies_to(self, step: Step) -> bool {
        match self {
            Self::Away(link, outage) => {
                return link_is_used(link, step) && (outage == Outage::Short || is_long_work(step));
            }
            Self::StoreForgets => return matches!(step, Step::PartSent | Step::ShardSent),
            _ => {}
        }
        if step.is_sharded() {
            return self.applies_to_shards(step);
        }
        match self {
            Self::OtherWorkerKilled | Self::SourceDisconnected | Self::LedgerDisconnected => false,
            Self::WorkerKilled | Self::WorkerFrozen | Self::WorkerTerminated => step.has_worker(),
            Self::WorkerKilledRequestLate => {
                matches!(step, Step::CreateSent | Step::PartSent | Step::CompleteSent | Step::PutSent)
            }
            Self::CompleteFails | Self::CompleteFailsButDone => {
                step.file() != File::Small && !matches!(step, Step::CommitPending | Step::Completed)
            }
            _ => true,
        }
    }

    /// The steps of a sharded export at which the fault is injected: those where shards make a difference, few enough that
    /// all of them take some minutes. Killing a worker is tried at each step; freezing or terminating it with a shard and with
    /// the end. A shard's request to the store fails like any part's, so one of a shard and one of the end is enough for each
    /// response. Messages matter while shards are announced, and the snapshot while rows are read. The api has no part in it.
    /// A gzip file differs in its end alone, and takes longest.
    fn applies_to_shards(self, step: Step) -> bool {
        use Step::{
            EndSent, LastShardStored, ShardCommitPending, ShardSent, ShardStored, ShardedCompleteDone,
            ShardedCompleteSent, ShardsPlanned,
        };
        match self {
            Self::WorkerKilled | Self::Deleted => true,
            Self::WorkerKilledRequestLate => matches!(step, ShardSent | EndSent | ShardedCompleteSent),
            Self::WorkerFrozen => matches!(step, ShardSent | ShardCommitPending | ShardedCompleteDone),
            Self::WorkerTerminated => matches!(step, ShardsPlanned | ShardSent | ShardedCompleteSent),
            Self::ApiKilled | Self::Away(..) | Self::StoreForgets => false,
            Self::BrokerRestarted => matches!(step, ShardsPlanned | LastShardStored),
            Self::QueuePurged => matches!(step, ShardsPlanned | ShardSent),
            Self::PostgresRestarted => {
                matches!(step, ShardsPlanned | ShardCommitPending)
            }
            Self::OtherWorkerKilled => matches!(step, ShardSent | LastShardStored),
            Self::SourceDisconnected => matches!(step, ShardsPlanned | ShardSent),
            Self::LedgerDisconnected => matches!(step, ShardCommitPending | ShardedCompleteDone),
            Self::StoreRefuses => matches!(step, ShardSent | ShardedCompleteSent),
            Self::StoreDisconnects => matches!(step, ShardSent | EndSent | ShardedCompleteDone),
            Self::StoreFails => matches!(step, ShardStored | ShardedCompleteSent),
            Self::CompleteFails | Self::CompleteFailsButDone => step == ShardedCompleteSent,
        }
    }

    /// Attempts in which a sharded export may end; one that is not sharded may need any number.
    pub(crate) fn attempts(self, step: Step) -> RangeInclusive<i32> {
        match (self, step) {
            (Self::Away(Link::Store | Link::Broker, _), _) => 1..=1,
            (Self::StoreForgets, _) => 2..=2,
            _ if !step.is_sharded() => 0..=i32::MAX,
            // The only process that held the snapshot.
            (Self::WorkerKilled | Self::SourceDisconnected | Self::PostgresRestarted, Step::ShardsPlanned) => 2..=2,
            // As that one, unless the other one joins in the moment between.
            (Self::WorkerTerminated, Step::ShardsPlanned)
            // Every snapshot holder is lost, and the other shards may or may not have been read by then.
            | (Self::SourceDisconnected, Step::ShardSent)
            // The same, and whether the commit can wait for the ledger depends on how long the server takes to start.
            | (Self::PostgresRestarted, _) => 1..=2,
            _ => 1..=1,
        }
    }

    /// Injects the fault and returns when it is over. A shared fault has been injected by the caller.
    pub(crate) async fn inject(self, system: &mut System, held: &mut HeldExport) {
        match self {
            Self::WorkerKilled => {
                let killed = held.worker(system).await;
                // Dropping it kills it.
                system.workers.remove(killed);
                held.release(system).await;
                ensure_worker(system);
            }
            Self::OtherWorkerKilled => {
                let other = 1 - held.worker(system).await;
                system.workers.remove(other);
                held.release(system).await;
            }
            Self::WorkerKilledRequestLate => {
                let killed = held.worker(system).await;
                system.workers.remove(killed);
                ensure_worker(system);
                held.wait_for_end(system).await;
                // Until the store has been checked for uploads that the dead worker began, and none was found.
                wait_until_none(system, "SELECT count(*) FROM polyglot.uploads WHERE looks = 0").await;
                held.release(system).await;
                // The next check is due ten seconds after the first one. On a busy machine the export took longer than that, and
                // the one after it is a quarter of an hour away.
                sqlx::query("UPDATE polyglot.uploads SET look_at = now() + interval '5 seconds'")
                    .execute(&system.pool)
                    .await
                    .unwrap();
            }
            Self::WorkerFrozen => {
                let frozen = held.worker(system).await;
                system.workers[frozen].signal(Signal::STOP);
                held.release(system).await;
                ensure_second_worker(system);
                held.wait_for_end(system).await;
                // Its snapshot must not last for as long as it is frozen.
                wait_until_none(system, cleanup_checks::OPEN_ON_SOURCE).await;
                system.workers[frozen].signal(Signal::CONT);
            }
            Self::WorkerTerminated => {
                let leaving = held.worker(system).await;
                system.workers[leaving].signal(Signal::TERM);
                ensure_second_worker(system);
                // The grace is a second: only after it does the worker give its work back instead of finishing it.
                tokio::time::sleep(Duration::from_millis(1500)).await;
                held.release(system).await;
                let mut terminated = system.workers.remove(leaving);
                let status = terminated.wait_for_exit().await;
                assert!(status.success(), "the worker ended with {status} after SIGTERM");
            }
            Self::ApiKilled => {
                system.api = None;
                held.release(system).await;
                ensure_worker(system);
                system.start_api();
                system.wait_until_ok("/health").await;
            }
            Self::QueuePurged => {
                broker::purge(&system.servers.amqp_url, &system.name).await;
                held.release(system).await;
                ensure_worker(system);
            }
            Self::BrokerRestarted | Self::PostgresRestarted => {
                held.release(system).await;
                ensure_worker(system);
            }
            Self::SourceDisconnected => {
                system.link(Link::Source).disconnect_all();
                held.release(system).await;
            }
            Self::LedgerDisconnected => {
                system.link(Link::Ledger).disconnect_all();
                held.release(system).await;
            }
            Self::StoreRefuses => {
                system.link(Link::Store).refuse_new().await;
                system.link(Link::Store).disconnect_all();
                held.release(system).await;
                ensure_worker(system);
                // The fault is an outage of this length.
                tokio::time::sleep(STORE_OUTAGE).await;
                system.link(Link::Store).restore().await.unwrap();
            }
            Self::Away(link, outage) => {
                system.link(link).refuse_new().await;
                system.link(link).disconnect_all();
                // What is held at the source is held by its proxy, which has to be whole again.
                if link != Link::Source {
                    held.release(system).await;
                }
                ensure_worker(system);
                // The fault is an outage of this length.
                tokio::time::sleep(outage.length()).await;
                let state = system.record(&held.id).await;
                // Rows that the source was sending are lost, which costs one attempt.
                let failures = i32::from(link == Link::Source);
                assert!(state.failures <= failures, "while it was away: {state:?}");
                assert!(link == Link::Broker || !state.has_ended(), "while it was away: {state:?}");
                system.link(link).restore().await.unwrap();
                if link == Link::Source {
                    held.release(system).await;
                }
            }
            Self::StoreForgets => {
                system.link(Link::Store).refuse_new().await;
                system.link(Link::Store).disconnect_all();
                held.release(system).await;
                system.bucket.remove().await;
                system.link(Link::Store).restore().await.unwrap();
            }
            Self::StoreDisconnects => {
                system.link(Link::Store).disconnect_all();
                system.link(Link::Store).disconnect_after(Direction::ToServer, 2 << 20);
                held.release(system).await;
                ensure_worker(system);
            }
            Self::StoreFails => {
                system.s3_faults.respond(None, ErrorResponse::InternalError, Forward::No, None);
                held.release(system).await;
                ensure_worker(system);
                // The fault is an outage of this length.
                tokio::time::sleep(STORE_OUTAGE).await;
                system.s3_faults.restore();
            }
            Self::CompleteFails | Self::CompleteFailsButDone => {
                let forward = if self == Self::CompleteFails { Forward::No } else { Forward::Yes };
                let complete = Some(Operation::CompleteMultipartUpload);
                system.s3_faults.respond(complete, ErrorResponse::ErrorWithin200, forward, Some(SDK_ATTEMPTS));
                held.release(system).await;
                ensure_worker(system);
            }
            Self::Deleted => {
                let asked = Instant::now();
                let id = held.id.clone();
                let releasing = async {
                    // Time for the deletion to arrive at the lock, where there is one. Nothing outside shows that it waits.
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    held.release(system).await;
                };
                let (status, ()) = tokio::join!(system.delete_with_retries(&id), releasing);
                assert!(status.is_success(), "DELETE: {status}");
                ensure_worker(system);
                held.wait_for_end(system).await;
                assert!(asked.elapsed() < Duration::from_secs(10), "cancelled after {:?}", asked.elapsed());
            }
        }
    }
}

/// Whether an export that is held at the step needs the server next. Without a broker it needs no message for what is claimed; an
/// export of several shards is announced to more workers by it.
fn link_is_used(link: Link, step: Step) -> bool {
    use Step::{
        CompleteSent, EndSent, LastPartStored, LastShardStored, PartSent, Planning, PutSent, Reading, ShardSent,
        ShardedCompleteSent,
    };
    match link {
        Link::Store => {
            matches!(
                step,
                Step::CreateSent
                    | PartSent
                    | LastPartStored
                    | CompleteSent
                    | PutSent
                    | ShardSent
                    | EndSent
                    | ShardedCompleteSent
            )
        }
        Link::Source => matches!(step, Planning | Reading),
        Link::Ledger => matches!(step, PartSent | CompleteSent | PutSent | ShardSent | ShardedCompleteSent),
        Link::Broker => matches!(step, PartSent | ShardSent | LastShardStored),
    }
}

/// The steps at which the longer outages are tried as well.
fn is_long_work(step: Step) -> bool {
    use Step::{CompleteSent, PartSent, Planning, PutSent, Reading, ShardSent, ShardedCompleteSent};
    matches!(step, Planning | Reading | PartSent | CompleteSent | PutSent | ShardSent | ShardedCompleteSent)
}

/// Waits until this count is 0.
async fn wait_until_none(system: &System, count: &'static str) {
    wait_until_within(Duration::from_secs(30), count, async || match system.count(count).await {
        0 => Ok(()),
        count => Err(format!("The count is {count}.")),
    })
    .await;
}

/// Starts a worker where there is none.
fn ensure_worker(system: &mut System) {
    if system.workers.is_empty() {
        system.add_worker();
    }
}

/// Starts a worker beside the one that the fault hit, where there is no other.
fn ensure_second_worker(system: &mut System) {
    if system.workers.len() == 1 {
        system.add_worker();
    }
}
