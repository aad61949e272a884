//! The steps of an export, and how each is reached from outside and kept there: by a gate before the object store, a
//! connection that is held, a lock on the export's row, or by leaving somebody out.
//!
//! An export that is cut has two workers of one slot each, so that one is left when the other is hurt.

use std::time::{Duration, Instant};

use polyglot_devstack::proxy::Direction;
use polyglot_devstack::s3_faults::{Gate, Side};
use polyglot_devstack::s3_operation::Operation;
use serde_json::Value;
use sqlx::{Postgres, Transaction};

use crate::door::request;
use crate::service::PATIENCE;
use crate::system::{Record, System};

/// Rows of the table. Compressed, they are two shards and a half.
pub(crate) const ROWS: u64 = 600_000;
/// Of [`File::Cut`].
const SHARDS: u32 = 3;

/// The files of the matrix. How many shards there are is the whole part of the estimated size over 16 MiB, so the sizes of
/// those that are cut are half a shard away from the next number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    /// One part.
    Small,
    /// Three parts of one stream.
    Large,
    /// Three shards.
    Cut,
    /// Two shards, and a part that ends the file.
    CutGzip,
}

impl File {
    pub(crate) const ALL: [Self; 4] = [Self::Small, Self::Large, Self::Cut, Self::CutGzip];

    pub(crate) fn rows(self) -> u64 {
        match self {
            Self::Small => 100,
            Self::Large => 70_000,
            Self::Cut => 188_000,
            Self::CutGzip => ROWS,
        }
    }

    pub(crate) fn request(self) -> Value {
        let compression = (self == Self::CutGzip).then_some("gzip");
        request("csv", compression, Some(self.rows()))
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
    CutCompleteSent,
    CutCompleteDone,
    CutCommitPending,
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
        Self::CutCompleteSent,
        Self::CutCompleteDone,
        Self::CutCommitPending,
    ];

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Accepted => "accepted, not published",
            Self::Published => "published, not delivered",
            Self::Delivered => "delivered, not claimed",
            Self::Planning => "claimed, source not reached",
            Self::Reading => "rows being read",
            Self::CreateSent => "CreateMultipartUpload on its way",
            Self::Created => "upload created, answer on its way",
            Self::PartSent => "part 1 on its way",
            Self::PartStored => "part 1 stored, answer on its way",
            Self::LastPartStored => "last part stored, answer on its way",
            Self::CompleteSent => "Complete on its way",
            Self::CompleteDone => "completed in S3, answer on its way",
            Self::CommitPending => "completed in S3, ledger commit waiting",
            Self::Completed => "completed",
            Self::PutSent => "one part: PutObject on its way",
            Self::PutDone => "one part: stored, answer on its way",
            Self::ShardsPlanned => "shards: handed out, none read",
            Self::ShardSent => "shards: the first on its way",
            Self::ShardStored => "shards: the first stored, answer on its way",
            Self::ShardCommitPending => "shards: the last one stored, ledger commit waiting",
            Self::LastShardStored => "shards: the last one stored, answer on its way",
            Self::EndSent => "shards, gzip: the file's end on its way",
            Self::CutCompleteSent => "shards: Complete on its way",
            Self::CutCompleteDone => "shards: completed in S3, answer on its way",
            Self::CutCommitPending => "shards: completed in S3, ledger commit waiting",
        }
    }

    pub(crate) fn file(self) -> File {
        match self {
            Self::PutSent | Self::PutDone => File::Small,
            Self::EndSent => File::CutGzip,
            _ if self.is_cut() => File::Cut,
            _ => File::Large,
        }
    }

    /// Whether the export is cut into shards.
    pub(crate) fn is_cut(self) -> bool {
        self.shard().is_some() || self == Self::ShardsPlanned
    }

    /// The shard whose holder is kept here; 0 is the end of the export.
    pub(crate) fn shard(self) -> Option<i32> {
        match self {
            Self::ShardSent | Self::ShardStored | Self::ShardCommitPending => Some(1),
            Self::LastShardStored => Some(3),
            Self::EndSent | Self::CutCompleteSent | Self::CutCompleteDone | Self::CutCommitPending => Some(0),
            _ => None,
        }
    }

    /// Whether a worker holds the export, or at least its message.
    pub(crate) fn has_worker(self) -> bool {
        !matches!(self, Self::Accepted | Self::Published)
    }

    fn gate(self, system: &System) -> Option<Gate> {
        let gate = |operation, side| Some(system.s3.gate(operation, side));
        match self {
            Self::CreateSent => gate(Operation::CreateMultipartUpload, Side::Request),
            Self::Created | Self::ShardsPlanned => gate(Operation::CreateMultipartUpload, Side::Answer),
            Self::PartSent | Self::ShardSent => Some(system.s3.gate_part(1, Side::Request)),
            Self::PartStored | Self::ShardStored | Self::ShardCommitPending => {
                Some(system.s3.gate_part(1, Side::Answer))
            }
            Self::LastPartStored => Some(system.s3.gate_part(3, Side::Answer)),
            Self::LastShardStored => Some(system.s3.gate_part(SHARDS, Side::Answer)),
            Self::CompleteSent | Self::CutCompleteSent => gate(Operation::CompleteMultipartUpload, Side::Request),
            Self::CompleteDone | Self::CutCompleteDone => gate(Operation::CompleteMultipartUpload, Side::Answer),
            // From here it is one statement to the commit, which then meets the lock.
            Self::CommitPending | Self::CutCommitPending => gate(Operation::HeadObject, Side::Answer),
            Self::PutSent => gate(Operation::PutObject, Side::Request),
            Self::PutDone => gate(Operation::PutObject, Side::Answer),
            // Which part the file's end is, the plan says.
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
/// What a claim is checked with. Who keeps the snapshot waits for the row as well, and so does who looks for work.
const COMMIT_WAITS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND query LIKE '%SELECT cancel_requested FROM exports%'";
const COMMIT_AND_RENEWAL_WAIT: &str = "SELECT count(*) / 2 FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND query LIKE '%SELECT cancel_requested FROM exports%'";

/// An export that is kept at a step until [`Held::release`].
pub(crate) struct Held {
    pub step: Step,
    pub id: String,
    /// Of an export that is cut: shards that were committed before the fault, and need not be read again.
    pub committed: Vec<i32>,
    gate: Option<Gate>,
    lock: Option<Transaction<'static, Postgres>>,
}

impl Held {
    /// Submits an export and brings it to `step`, or near it where a lock is what keeps it there ([`Held::lock`]).
    pub(crate) async fn near(step: Step, system: &mut System) -> Self {
        if step == Step::Accepted {
            system.amqp.refuse_new().await;
            system.amqp.cut_all();
        }
        let id = system.door.submit(&step.file().request()).await;
        let mut gate = step.gate(system);
        match step {
            Step::Accepted => {}
            Step::Published | Step::Delivered => {
                until("published", async || system.count("SELECT count(*) FROM polyglot.outbox").await == 0).await;
            }
            Step::Planning => {
                system.source_wire.hold();
                system.add_worker();
                until("planning", async || system.record(&id).await.state == "planning").await;
            }
            Step::Reading => {
                let so_far = system.source_wire.forwarded(Direction::ToClient);
                system.source_wire.hold_after(Direction::ToClient, 3 << 20);
                system.add_worker();
                let read = || system.source_wire.forwarded(Direction::ToClient) - so_far;
                until("read", async || read() >= 3 << 20).await;
            }
            Step::Completed => {
                system.add_worker();
                let record = system.ended(&id, PATIENCE).await;
                assert_eq!(record.state, "completed", "{record:?}");
            }
            _ => system.add_worker(),
        }
        if step.shard().is_some() {
            system.add_worker();
        }
        if step == Step::EndSent {
            let shards = "SELECT shards::bigint FROM polyglot.exports";
            until("cut", async || system.count(shards).await > 1).await;
            let end = u32::try_from(system.count(shards).await).unwrap() + 1;
            gate = Some(system.s3.gate_part(end, Side::Request));
        }
        if let Some(gate) = &gate {
            let reached = tokio::time::timeout(PATIENCE, gate.reached()).await;
            assert!(reached.is_ok(), "{step:?} is never reached: {:?}", system.record(&id).await);
        }
        match step {
            Step::ShardsPlanned => {
                // The keeper and one reader have their connections; nobody gets another one, for reading or to keep the snapshot
                // as well.
                gate = None;
                until("planned", async || system.count("SELECT count(*) FROM polyglot.keepers").await == 1).await;
                system.source_wire.hold();
                let held = "SELECT count(*) FROM polyglot.shards WHERE number > 0 AND state = 'leased'";
                until("handed out", async || system.count(held).await == 1).await;
                system.add_worker();
                until("wanted by both", async || system.count(held).await == 2).await;
            }
            // The other worker does the others.
            Step::ShardCommitPending | Step::LastShardStored => {
                let left = "SELECT count(*) FROM polyglot.shards WHERE number > 0 AND state <> 'committed'";
                until("the last one", async || system.count(left).await == 1).await;
            }
            _ => {}
        }
        Self { step, id, committed: Vec::new(), gate, lock: None }
    }

    /// The last of the way, for the steps that a lock on the export's row keeps: it must not last for long, for the
    /// statements that wait for it have a limit.
    pub(crate) async fn lock(&mut self, system: &mut System) {
        let waiting = match self.step {
            Step::Delivered => ANY_WAITS,
            Step::ShardCommitPending => COMMIT_WAITS,
            Step::CommitPending | Step::CutCommitPending => COMMIT_AND_RENEWAL_WAIT,
            _ => return,
        };
        let mut lock = system.ledger.begin().await.unwrap();
        sqlx::query("SELECT FROM polyglot.exports WHERE id = $1::uuid FOR UPDATE")
            .bind(&self.id)
            .execute(&mut *lock)
            .await
            .unwrap();
        self.lock = Some(lock);
        self.gate = None;
        if self.step == Step::Delivered {
            system.add_worker();
        }
        until("waiting for the row", async || system.count(waiting).await >= 1).await;
    }

    /// The worker that is kept here, by its place among the workers.
    pub(crate) async fn worker(&self, system: &System) -> usize {
        let holder = match self.step.shard() {
            None if self.step != Step::ShardsPlanned => return 0,
            // The planner: nobody else has the snapshot.
            None => "SELECT owner FROM polyglot.keepers",
            Some(0) => "SELECT lease_owner FROM polyglot.shards WHERE number = 0",
            Some(1) => "SELECT lease_owner FROM polyglot.shards WHERE number = 1",
            Some(_) => "SELECT lease_owner FROM polyglot.shards WHERE number = 3",
        };
        system.worker_named_by(holder).await
    }

    /// Remembers what has been committed so far.
    pub(crate) async fn look_at_shards(&mut self, system: &System) {
        let committed =
            sqlx::query_scalar("SELECT number FROM polyglot.shards WHERE state = 'committed' ORDER BY number");
        self.committed = committed.fetch_all(&system.ledger).await.unwrap();
    }

    /// Lets everything go its way again.
    pub(crate) async fn release(&mut self, system: &System) {
        self.gate = None;
        if let Some(lock) = self.lock.take() {
            // The server may have been restarted meanwhile.
            lock.rollback().await.ok();
        }
        match self.step {
            Step::Accepted => system.amqp.restore().await.unwrap(),
            Step::Planning | Step::Reading | Step::ShardsPlanned => system.source_wire.restore().await.unwrap(),
            _ => {}
        }
    }

    pub(crate) async fn ended(&self, system: &System) -> Record {
        system.ended(&self.id, Duration::from_secs(90)).await
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < deadline, "it is never {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
