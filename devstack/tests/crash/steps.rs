//! The steps of an export, and how each is reached from outside and kept there: by a gate before the object store, a
//! connection that is held, a lock on the export's row, or by leaving somebody out.

use std::time::{Duration, Instant};

use polyglot_devstack::proxy::Direction;
use polyglot_devstack::s3_faults::{Gate, Side};
use polyglot_devstack::s3_operation::Operation;
use sqlx::{Postgres, Transaction};

use crate::door::request;
use crate::service::PATIENCE;
use crate::system::{Record, System};

/// Rows of a file of three parts, and of one part.
pub(crate) const LARGE_ROWS: u64 = 70_000;
pub(crate) const SMALL_ROWS: u64 = 100;

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
}

impl Step {
    pub(crate) const ALL: [Self; 16] = [
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
        }
    }

    /// Whether the file is one of several parts.
    pub(crate) fn is_multipart(self) -> bool {
        !matches!(self, Self::PutSent | Self::PutDone)
    }

    /// Whether a worker holds the export, or at least its message.
    pub(crate) fn has_worker(self) -> bool {
        !matches!(self, Self::Accepted | Self::Published)
    }

    fn gate(self, system: &System) -> Option<Gate> {
        let gate = |operation, side| Some(system.s3.gate(operation, side));
        match self {
            Self::CreateSent => gate(Operation::CreateMultipartUpload, Side::Request),
            Self::Created => gate(Operation::CreateMultipartUpload, Side::Answer),
            Self::PartSent => Some(system.s3.gate_part(1, Side::Request)),
            Self::PartStored => Some(system.s3.gate_part(1, Side::Answer)),
            Self::LastPartStored => Some(system.s3.gate_part(3, Side::Answer)),
            Self::CompleteSent => gate(Operation::CompleteMultipartUpload, Side::Request),
            Self::CompleteDone => gate(Operation::CompleteMultipartUpload, Side::Answer),
            // From here it is one statement to the commit, which then meets the lock.
            Self::CommitPending => gate(Operation::HeadObject, Side::Answer),
            Self::PutSent => gate(Operation::PutObject, Side::Request),
            Self::PutDone => gate(Operation::PutObject, Side::Answer),
            Self::Accepted | Self::Published | Self::Delivered | Self::Planning | Self::Reading | Self::Completed => {
                None
            }
        }
    }
}

/// An export that is kept at a step until [`Held::release`].
pub(crate) struct Held {
    pub step: Step,
    pub id: String,
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
        let rows = (!step.is_multipart()).then_some(SMALL_ROWS);
        let id = system.door.submit(&request("csv", None, rows)).await;
        let gate = step.gate(system);
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
        if let Some(gate) = &gate {
            let reached = tokio::time::timeout(PATIENCE, gate.reached()).await;
            assert!(reached.is_ok(), "{step:?} is never reached: {:?}", system.record(&id).await);
        }
        Self { step, id, gate, lock: None }
    }

    /// The last of the way, for the steps that a lock on the export's row keeps: it must not last for long, for the
    /// statements that wait for it have a limit.
    pub(crate) async fn lock(&mut self, system: &mut System) {
        let waiters = match self.step {
            Step::Delivered => 1,
            // The commit and the renewal of the lease.
            Step::CommitPending => 2,
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
        until("waiting for the row", async || {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND wait_event_type = 'Lock' AND application_name LIKE 'polyglot-worker%'";
            system.count(waiting).await >= waiters
        })
        .await;
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
            Step::Planning | Step::Reading => system.source_wire.restore().await.unwrap(),
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
