//! The steps of an export, and how an export is brought to a step and held there from outside: by a gate in front of the
//! object store, a stalled connection, a lock on the export's row, or without a worker.
//!
//! A sharded export has two workers of one slot each, so that one is left when the fault hits the other.

use std::time::Duration;

use polyglot_devstack::proxy::Direction;
use polyglot_devstack::s3_faults::{Gate, Side};
use polyglot_devstack::s3_operation::Operation;
use polyglot_test_kit::{DEADLINE, first_rows, sample_request, wait_until};
use serde_json::Value;
use sqlx::{Postgres, Transaction};

use crate::system::{Link, Record, System};

/// Rows of the table. Compressed, they are two shards and a half.
pub(crate) const ROWS: u64 = 600_000;
/// Number of shards of [`File::Sharded`].
const SHARDS: u32 = 3;

/// The files of the matrix. The number of shards is the whole part of the estimated size over 16 MiB, so the sizes of the
/// sharded ones are half a shard away from the next number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    /// One part.
    Small,
    /// Three parts of one stream.
    Large,
    /// Three shards.
    Sharded,
    /// Two shards, and a part that ends the file.
    ShardedGzip,
}

impl File {
    pub(crate) const ALL: [Self; 4] = [Self::Small, Self::Large, Self::Sharded, Self::ShardedGzip];

    pub(crate) fn rows(self) -> u64 {
        match self {
            Self::Small => 100,
            Self::Large => 70_000,
            Self::Sharded => 188_000,
            Self::ShardedGzip => ROWS,
        }
    }

    pub(crate) fn request(self) -> Value {
        let compression = (self == Self::ShardedGzip).then_some("gzip");
        first_rows(sample_request("csv", compression), self.rows())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Accepted,
    Published,
    Delivered,
    Planning,
    Reading,
    CreateSent,
    Created,
    PartSent,
    PartStored,
    LastPartStored,
    CompleteSent,
    CompleteDone,
    CommitPending,
    Completed,
    PutSent,
    PutDone,
    ShardsPlanned,
    ShardSent,
    ShardStored,
    ShardCommitPending,
    LastShardStored,
    EndSent,
    ShardedCompleteSent,
    ShardedCompleteDone,
    ShardedCommitPending,
}

impl Step {
    pub(crate) const ALL: [Self; 25] = [
        Self::Accepted,
        Self::Published,
        Self::Delivered,
        Self::Planning,
        Self::Reading,
        Self::CreateSent,
        Self::Created,
        Self::PartSent,
        Self::PartStored,
        Self::LastPartStored,
        Self::CompleteSent,
        Self::CompleteDone,
        Self::CommitPending,
        Self::Completed,
        Self::PutSent,
        Self::PutDone,
        Self::ShardsPlanned,
        Self::ShardSent,
        Self::ShardStored,
        Self::ShardCommitPending,
        Self::LastShardStored,
        Self::EndSent,
        Self::ShardedCompleteSent,
        Self::ShardedCompleteDone,
        Self::ShardedCommitPending,
    ];

    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Accepted => "accepted, not published",
            Self::Published => "published, not delivered",
            Self::Delivered => "delivered, not claimed",
            Self::Planning => "claimed, source not reached",
            Self::Reading => "rows being read",
            Self::CreateSent => "CreateMultipartUpload in flight",
            Self::Created => "upload created, response in flight",
            Self::PartSent => "part 1 in flight",
            Self::PartStored => "part 1 stored, response in flight",
            Self::LastPartStored => "last part stored, response in flight",
            Self::CompleteSent => "CompleteMultipartUpload in flight",
            Self::CompleteDone => "completed in S3, response in flight",
            Self::CommitPending => "completed in S3, ledger commit waiting",
            Self::Completed => "completed",
            Self::PutSent => "one part: PutObject in flight",
            Self::PutDone => "one part: stored, response in flight",
            Self::ShardsPlanned => "shards: claimed, none read",
            Self::ShardSent => "shards: first one in flight",
            Self::ShardStored => "shards: first one stored, response in flight",
            Self::ShardCommitPending => "shards: last one stored, ledger commit waiting",
            Self::LastShardStored => "shards: last one stored, response in flight",
            Self::EndSent => "shards, gzip: end of the file in flight",
            Self::ShardedCompleteSent => "shards: CompleteMultipartUpload in flight",
            Self::ShardedCompleteDone => "shards: completed in S3, response in flight",
            Self::ShardedCommitPending => "shards: completed in S3, ledger commit waiting",
        }
    }

    pub(crate) fn file(self) -> File {
        match self {
            Self::PutSent | Self::PutDone => File::Small,
            Self::EndSent => File::ShardedGzip,
            _ if self.is_sharded() => File::Sharded,
            _ => File::Large,
        }
    }

    /// Whether the export is divided into shards.
    pub(crate) fn is_sharded(self) -> bool {
        self.shard().is_some() || self == Self::ShardsPlanned
    }

    /// The shard whose worker is held at this step; 0 is the end of the export.
    pub(crate) fn shard(self) -> Option<i32> {
        match self {
            Self::ShardSent | Self::ShardStored | Self::ShardCommitPending => Some(1),
            Self::LastShardStored => Some(3),
            Self::EndSent | Self::ShardedCompleteSent | Self::ShardedCompleteDone | Self::ShardedCommitPending => {
                Some(0)
            }
            _ => None,
        }
    }

    /// Whether a worker holds the export, or at least its message.
    pub(crate) fn has_worker(self) -> bool {
        !matches!(self, Self::Accepted | Self::Published)
    }

    fn gate(self, system: &System) -> Option<Gate> {
        let gate = |operation, side| Some(system.s3_faults.gate(operation, side));
        match self {
            Self::CreateSent => gate(Operation::CreateMultipartUpload, Side::Request),
            Self::Created | Self::ShardsPlanned => gate(Operation::CreateMultipartUpload, Side::Response),
            Self::PartSent | Self::ShardSent => Some(system.s3_faults.gate_part(1, Side::Request)),
            Self::PartStored | Self::ShardStored | Self::ShardCommitPending => {
                Some(system.s3_faults.gate_part(1, Side::Response))
            }
            Self::LastPartStored => Some(system.s3_faults.gate_part(3, Side::Response)),
            Self::LastShardStored => Some(system.s3_faults.gate_part(SHARDS, Side::Response)),
            Self::CompleteSent | Self::ShardedCompleteSent => gate(Operation::CompleteMultipartUpload, Side::Request),
            Self::CompleteDone | Self::ShardedCompleteDone => gate(Operation::CompleteMultipartUpload, Side::Response),
            // From here it is one statement to the commit, which then meets the lock.
            Self::CommitPending | Self::ShardedCommitPending => gate(Operation::HeadObject, Side::Response),
            Self::PutSent => gate(Operation::PutObject, Side::Request),
            Self::PutDone => gate(Operation::PutObject, Side::Response),
            // The number of the part that ends the file is known once the export is planned.
            Self::EndSent
            | Self::Accepted
            | Self::Published
            | Self::Delivered
            | Self::Planning
            | Self::Reading
            | Self::Completed => None,
        }
    }
}

const ANY_WAITS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND application_name LIKE 'polyglot-worker%'";
/// The statement with which a claim is checked. Workers that hold the snapshot or look for work wait for the row as well.
const COMMIT_WAITS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND query LIKE '%SELECT cancel_requested FROM exports%'";
const COMMIT_AND_RENEWAL_WAIT: &str = "SELECT count(*) / 2 FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND query LIKE '%SELECT cancel_requested FROM exports%'";

/// An export that is held at a step until [`HeldExport::release`].
pub(crate) struct HeldExport {
    pub step: Step,
    pub id: String,
    /// Shards that were committed before the fault, and must not be read again.
    pub committed: Vec<i32>,
    gate: Option<Gate>,
    lock: Option<Transaction<'static, Postgres>>,
}

impl HeldExport {
    /// Submits an export and brings it to `step`, or near it where a lock is what holds it there ([`HeldExport::lock`]).
    pub(crate) async fn bring_near(step: Step, system: &mut System) -> Self {
        if step == Step::Accepted {
            system.link(Link::Broker).refuse_new().await;
            system.link(Link::Broker).disconnect_all();
        }
        let id = system.submit_with_retries(&step.file().request()).await;
        let mut gate = step.gate(system);
        match step {
            Step::Accepted => {}
            Step::Published | Step::Delivered => {
                system.wait_until_none("the export is published", "SELECT count(*) FROM polyglot.outbox").await;
            }
            Step::Planning => {
                system.link(Link::Source).stall();
                system.add_worker();
                wait_until("the export is planning", async || system.record(&id).await.state == "planning").await;
            }
            Step::Reading => {
                let so_far = system.link(Link::Source).forwarded(Direction::ToClient);
                system.link(Link::Source).stall_after(Direction::ToClient, 3 << 20);
                system.add_worker();
                let read = || system.link(Link::Source).forwarded(Direction::ToClient) - so_far;
                wait_until("3 MiB are read", async || read() >= 3 << 20).await;
            }
            Step::Completed => {
                system.add_worker();
                let record = system.wait_for_end_in_ledger(&id, DEADLINE).await;
                assert_eq!(record.state, "completed", "{record:?}");
            }
            _ => {
                system.add_worker();
            }
        }
        if step.shard().is_some() {
            system.add_worker();
        }
        if step == Step::EndSent {
            let shards = "SELECT shards::bigint FROM polyglot.exports";
            wait_until("the shards are planned", async || system.count(shards).await > 1).await;
            let end = u32::try_from(system.count(shards).await).unwrap() + 1;
            gate = Some(system.s3_faults.gate_part(end, Side::Request));
        }
        if let Some(gate) = &gate {
            let reached = tokio::time::timeout(DEADLINE, gate.reached()).await;
            assert!(reached.is_ok(), "{step:?} is never reached: {:?}", system.record(&id).await);
        }
        match step {
            Step::ShardsPlanned => {
                // The snapshot holder and one reader have their connections. Nobody gets another one, for reading or to hold the
                // snapshot as well.
                gate = None;
                wait_until("one worker holds the snapshot", async || {
                    system.count("SELECT count(*) FROM polyglot.keepers").await == 1
                })
                .await;
                system.link(Link::Source).stall();
                let claimed = "SELECT count(*) FROM polyglot.shards WHERE number > 0 AND state = 'leased'";
                wait_until("one shard is claimed", async || system.count(claimed).await == 1).await;
                system.add_worker();
                wait_until("two shards are claimed", async || system.count(claimed).await == 2).await;
            }
            // The other worker does the others.
            Step::ShardCommitPending | Step::LastShardStored => {
                let left = "SELECT count(*) FROM polyglot.shards WHERE number > 0 AND state <> 'committed'";
                wait_until("one shard is left", async || system.count(left).await == 1).await;
            }
            _ => {}
        }
        Self { step, id, committed: Vec::new(), gate, lock: None }
    }

    /// Goes the rest of the way to the steps at which a lock on the export's row holds the export. The lock must be short:
    /// the statements that wait for it have a timeout.
    pub(crate) async fn lock(&mut self, system: &mut System) {
        let waiting = match self.step {
            Step::Delivered => ANY_WAITS,
            Step::ShardCommitPending => COMMIT_WAITS,
            Step::CommitPending | Step::ShardedCommitPending => COMMIT_AND_RENEWAL_WAIT,
            _ => return,
        };
        let mut lock = system.pool.begin().await.unwrap();
        if self.step == Step::Delivered {
            // A worker passes over an export whose row is locked. Here it waits in the middle of its claim.
            sqlx::query("LOCK TABLE polyglot.shards IN EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
        } else {
            sqlx::query("SELECT FROM polyglot.exports WHERE id = $1::uuid FOR UPDATE")
                .bind(&self.id)
                .execute(&mut *lock)
                .await
                .unwrap();
        }
        self.lock = Some(lock);
        self.gate = None;
        if self.step == Step::Delivered {
            system.add_worker();
        }
        wait_until("a worker waits for the lock", async || system.count(waiting).await >= 1).await;
    }

    /// The worker that is held at the step, by its place among the workers.
    pub(crate) async fn worker(&self, system: &System) -> usize {
        let holder = match self.step.shard() {
            None if self.step != Step::ShardsPlanned => return 0,
            // The planner: no other worker has the snapshot.
            None => "SELECT owner FROM polyglot.keepers",
            Some(0) => "SELECT lease_owner FROM polyglot.shards WHERE number = 0",
            Some(1) => "SELECT lease_owner FROM polyglot.shards WHERE number = 1",
            Some(_) => "SELECT lease_owner FROM polyglot.shards WHERE number = 3",
        };
        system.worker_named_by(holder).await
    }

    /// Records the shards that are committed so far.
    pub(crate) async fn record_committed_shards(&mut self, system: &System) {
        let committed =
            sqlx::query_scalar("SELECT number FROM polyglot.shards WHERE state = 'committed' ORDER BY number");
        self.committed = committed.fetch_all(&system.pool).await.unwrap();
    }

    /// Removes whatever holds the export.
    pub(crate) async fn release(&mut self, system: &System) {
        self.gate = None;
        if let Some(lock) = self.lock.take() {
            // The server may have been restarted meanwhile.
            lock.rollback().await.ok();
        }
        match self.step {
            Step::Accepted => system.link(Link::Broker).restore().await.unwrap(),
            Step::Planning | Step::Reading | Step::ShardsPlanned => system.link(Link::Source).restore().await.unwrap(),
            _ => {}
        }
    }

    pub(crate) async fn wait_for_end(&self, system: &System) -> Record {
        system.wait_for_end_in_ledger(&self.id, Duration::from_secs(90)).await
    }
}
