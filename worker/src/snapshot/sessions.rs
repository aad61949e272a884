//! The snapshots that this process holds. For each sharded export there is a transaction that holds the snapshot open,
//! under a name of its own so that other processes can import it from here, and transactions that read. Each process
//! that imports a snapshot exports it again, so it outlives the transaction that exported it first.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use polyglot_core::failure::{Failure, FailureKind, chain};
use polyglot_ledger::{Attempt, Ledger, SnapshotHolder, with_timeout};
use polyglot_source::session::session_name;
use polyglot_source::{ConnectionLimit, DatabaseUrl, SnapshotPermit};
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::holder_task::{HEARTBEAT, HOLDER_LEASE, HolderTask, attempt_key, release};
use super::snapshot_name::SnapshotName;
use crate::part::BufferPool;
use crate::plan::{Plan, read_plan};
use crate::read::{AttemptKey, Connected, ConnectionCache, JoinError, LOST, Source};
use crate::work_error::WorkError;

/// Intended number of processes that hold a snapshot. A worker without a shard to read is as good a holder as any: the
/// shards that are left may belong to workers that died.
const WANTED_HOLDERS: i64 = 4;
/// Maximum number of attempts that are joined at a time.
const JOINED_AT_A_TIME: i64 = 8;
/// Timeout of beginning a transaction under a snapshot: a lock that is waited for 5 s, an import.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for the right to hold a further snapshot. There is one for each export that may be open at a time, and
/// a holder whose export has ended finds that out with its next heartbeat. Work that waits longer is given back, because
/// its slot may be what the exports that hold the others wait for.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// One snapshot, as this process holds it.
pub(crate) struct SnapshotSession {
    pub plan: Plan,
    key: AttemptKey,
    /// The name under which this process has exported it.
    snapshot: SnapshotName,
    /// Has the transactions that wait for the next shard.
    connection_cache: ConnectionCache,
    closed: CancellationToken,
}

type Slot = Arc<OnceCell<Arc<SnapshotSession>>>;

/// All snapshots that this process holds.
pub(crate) struct SnapshotSessions {
    source_url: DatabaseUrl,
    ledger: Ledger,
    /// This process, as the ledger knows it.
    owner: String,
    max_row_bytes: u64,
    buffers: BufferPool,
    connection_limit: ConnectionLimit,
    connection_cache: ConnectionCache,
    open: Arc<Mutex<HashMap<AttemptKey, Slot>>>,
    holders: TaskTracker,
    stopping: CancellationToken,
}

/// Locks the mutex. Its content is consistent even if another thread panicked while it held the lock.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the error of a shard that cannot be read because its snapshot could not be imported.
fn import_error(error: JoinError, tried: usize) -> WorkError {
    match error {
        JoinError::SnapshotGone => {
            let message = "Every process that kept the export's snapshot of the source was lost.";
            let detail = format!("{tried} names of the snapshot were tried");
            WorkError::FailedAttempt(Failure::new(FailureKind::SnapshotLost, message, detail))
        }
        JoinError::Locked(failure) => WorkError::Blocked(failure),
        JoinError::Failed(failure) => WorkError::Failed(failure),
    }
}

fn unreachable(detail: &str) -> Failure {
    Failure::new(FailureKind::SourceUnavailable, LOST, detail)
}

impl SnapshotSessions {
    pub(crate) fn new(
        source_url: DatabaseUrl,
        ledger: Ledger,
        owner: String,
        max_row_bytes: u64,
        buffers: BufferPool,
        connection_limit: ConnectionLimit,
        connection_cache: ConnectionCache,
    ) -> Self {
        Self {
            source_url,
            ledger,
            owner,
            max_row_bytes,
            buffers,
            connection_limit,
            connection_cache,
            open: Arc::default(),
            holders: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// Returns the number of snapshots that this process holds.
    pub(crate) fn held(&self) -> usize {
        locked(&self.open).values().filter(|slot| slot.initialized()).count()
    }

    fn slot(&self, key: AttemptKey) -> Slot {
        Arc::clone(locked(&self.open).entry(key).or_default())
    }

    /// Joins snapshots that too few other processes hold, until `stopping`. A snapshot for which this process has no
    /// connection to spare is left to others.
    pub(crate) async fn share(&self, stopping: &CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = sleep(HEARTBEAT) => {}
            }
            let attempts =
                match with_timeout(self.ledger.attempts_to_hold(&self.owner, WANTED_HOLDERS, JOINED_AT_A_TIME)).await {
                    Ok(attempts) => attempts,
                    Err(error) => {
                        tracing::debug!(error = chain(&error), "the ledger cannot be asked for snapshots to hold");
                        continue;
                    }
                };
            for attempt in attempts {
                // A worker that reads a shard of the attempt reports the error.
                let slot = self.slot(attempt_key(&attempt));
                if let Err(error) = slot.get_or_try_init(|| self.join_if_free(&attempt)).await {
                    tracing::debug!(export_id = %attempt.export_id, ?error, "the snapshot is not held here");
                }
            }
        }
    }

    /// Registers the planner's own session, before any other process knows of the snapshot. The session gets a reading
    /// transaction at once, because a lock that another session requests from now on could keep this process from the
    /// table. Returns the snapshot's name for the ledger.
    pub(crate) async fn register(
        &self,
        attempt: &Attempt,
        mut transaction: Source,
        permit: SnapshotPermit,
        plan: Plan,
    ) -> Result<String, WorkError> {
        let snapshot = SnapshotName::export(&mut transaction).await?;
        // The claim is not guarded here, so a server that is away is not waited for.
        let importing = timeout(IMPORT_TIMEOUT, Box::pin(self.import_snapshot(attempt, &snapshot, None)));
        let reader = importing.await.unwrap_or_else(|_| Err(unreachable("no answer in time").into()));
        let mut reader = reader.map_err(|error| import_error(error, 1))?;
        reader.note_relation(&plan.relation);
        let name = snapshot.to_string();
        let session = self.hold(attempt, transaction, permit, snapshot, plan);
        session.give_back(reader);
        self.slot(attempt_key(attempt)).set(session).ok();
        Ok(name)
    }

    /// Releases the snapshot of an attempt that was given up.
    pub(crate) fn forget(&self, export_id: uuid::Uuid, attempt: i32) {
        if let Some(session) = locked(&self.open).get(&(export_id, attempt)).and_then(|slot| slot.get()) {
            session.closed.cancel();
        }
    }

    /// Returns the session of an attempt, joined through whichever process still holds the snapshot.
    pub(crate) async fn get_or_join(&self, attempt: &Attempt) -> Result<Arc<SnapshotSession>, WorkError> {
        self.slot(attempt_key(attempt)).get_or_try_init(|| self.join(attempt)).await.cloned()
    }

    /// Waits for the right to hold a further snapshot.
    pub(crate) async fn permit(&self) -> Result<SnapshotPermit, WorkError> {
        timeout(PERMIT_TIMEOUT, self.connection_limit.acquire_snapshot()).await.map_err(|_| WorkError::NoConnection)
    }

    async fn join(&self, attempt: &Attempt) -> Result<Arc<SnapshotSession>, WorkError> {
        let permit = self.permit().await?;
        self.join_with(attempt, permit, None).await
    }

    /// Joins without waiting for a connection and without taking one that is idle for another export.
    async fn join_if_free(&self, attempt: &Attempt) -> Result<Arc<SnapshotSession>, WorkError> {
        let permit = self.connection_limit.try_acquire_snapshot().ok_or(WorkError::NoConnection)?;
        let name = session_name(attempt.export_id, attempt.attempt);
        let connected = self.connection_cache.connect_if_free(&self.source_url, &name).await;
        self.join_with(attempt, permit, Some(connected.ok_or(WorkError::NoConnection)??)).await
    }

    async fn join_with(
        &self,
        attempt: &Attempt,
        permit: SnapshotPermit,
        mut connected: Option<Connected>,
    ) -> Result<Arc<SnapshotSession>, WorkError> {
        let mut tried = HashSet::new();
        let mut transaction = loop {
            // Another process may have joined while the names of lost holders were tried.
            let names = with_timeout(self.ledger.snapshots(attempt.export_id, attempt.attempt)).await?;
            let untried = names.into_iter().find(|name| !tried.contains(name));
            let Some((text, snapshot)) = untried.and_then(|text| SnapshotName::parse(&text).map(|name| (text, name)))
            else {
                return Err(import_error(JoinError::SnapshotGone, tried.len()));
            };
            match self.import_snapshot(attempt, &snapshot, connected.take()).await {
                Ok(joined) => break joined,
                Err(JoinError::SnapshotGone) => tried.insert(text),
                Err(error) => return Err(import_error(error, 1)),
            };
        };
        let own = SnapshotName::export(&mut transaction).await?;
        let plan = read_plan(&mut transaction, &attempt.request, self.max_row_bytes).await?;
        let name = own.to_string();
        if !with_timeout(self.ledger.hold_snapshot(attempt.export_id, attempt.attempt, self.holder(&name))).await? {
            return Err(WorkError::Lost);
        }
        Ok(self.hold(attempt, transaction, permit, own, plan))
    }

    /// Begins a transaction under the snapshot, over `connected` if there is one. Waits for a connection while the server is
    /// away.
    async fn import_snapshot(
        &self,
        attempt: &Attempt,
        snapshot: &SnapshotName,
        connected: Option<Connected>,
    ) -> Result<Source, JoinError> {
        let connected = if let Some(connected) = connected {
            connected
        } else {
            let name = session_name(attempt.export_id, attempt.attempt);
            self.connection_cache.connect(&self.source_url, &name).await?
        };
        let importing = async {
            let joined = connected.join(&attempt.request, &snapshot.name).await?;
            if joined.backend.server_started == snapshot.server_started {
                Ok(joined)
            } else {
                Err(JoinError::SnapshotGone)
            }
        };
        // Without a liveness probe, which is only needed while rows are read: nothing here takes long.
        timeout(IMPORT_TIMEOUT, Box::pin(importing))
            .await
            .unwrap_or_else(|_| Err(unreachable("no answer in time").into()))
    }

    /// Returns this process as a holder of the snapshot, for the ledger.
    pub(crate) fn holder<'s>(&'s self, snapshot: &'s str) -> SnapshotHolder<'s> {
        SnapshotHolder { owner: &self.owner, snapshot, lease: HOLDER_LEASE }
    }

    /// Starts the task that holds the snapshot.
    fn hold(
        &self,
        attempt: &Attempt,
        transaction: Source,
        permit: SnapshotPermit,
        snapshot: SnapshotName,
        plan: Plan,
    ) -> Arc<SnapshotSession> {
        let closed = self.stopping.child_token();
        let session = Arc::new(SnapshotSession {
            plan,
            key: attempt_key(attempt),
            snapshot: snapshot.clone(),
            connection_cache: self.connection_cache.clone(),
            closed: closed.clone(),
        });
        let mut task = HolderTask {
            key: attempt_key(attempt),
            transaction,
            permit,
            snapshot,
            ledger: self.ledger.clone(),
            owner: self.owner.clone(),
            until: attempt.snapshot_until,
        };
        let (open, buffers) = (Arc::clone(&self.open), self.buffers.clone());
        let held = Arc::clone(&session);
        // Without a parent span, because the task outlives the job that began it.
        let span = tracing::error_span!(
            parent: None, "snapshot", export_id = %attempt.export_id, attempt = attempt.attempt,
            request_id = attempt.request_id
        );
        let holding = async move {
            let key = task.key;
            tokio::select! {
                () = task.run() => {}
                () = closed.cancelled() => {}
            }
            closed.cancel();
            held.close();
            // At most a ping is running in it, which ends by itself.
            let HolderTask { transaction, permit, .. } = task;
            transaction.close();
            drop(permit);
            let mut open = locked(&open);
            // Another slot may have joined before the planner's own session was registered.
            open.retain(|other, slot| {
                let is_this = *other == key && slot.get().is_some_and(|session| Arc::ptr_eq(session, &held));
                // Nobody has joined, and nobody is about to.
                let is_empty = !slot.initialized() && Arc::strong_count(slot) == 1;
                !is_this && !is_empty
            });
            if open.is_empty() {
                buffers.clear();
            }
        };
        self.holders.spawn(holding.instrument(span));
        session
    }

    /// Returns a transaction that reads under the session's snapshot.
    pub(crate) async fn reader(&self, session: &SnapshotSession, attempt: &Attempt) -> Result<Source, WorkError> {
        if let Some(idle) = session.take() {
            return Ok(idle);
        }
        match self.import_snapshot(attempt, &session.snapshot, None).await {
            Ok(mut reader) => {
                reader.note_relation(&session.plan.relation);
                Ok(reader)
            }
            // The holder of this process has just been lost, and with it the session; the next try joins through another
            // process.
            Err(JoinError::SnapshotGone) => {
                session.closed.cancel();
                Err(unreachable("the snapshot holder of this worker was lost").into())
            }
            Err(error) => Err(import_error(error, 1)),
        }
    }

    /// Releases every snapshot.
    pub(crate) async fn close(&self) {
        self.stopping.cancel();
        let open: Vec<AttemptKey> = locked(&self.open).keys().copied().collect();
        for key in open {
            release(&self.ledger, key, &self.owner).await;
        }
        self.holders.close();
        self.holders.wait().await;
    }
}

impl SnapshotSession {
    fn take(&self) -> Option<Source> {
        self.connection_cache.take_reader(self.key)
    }

    /// Puts a transaction back for the next shard, or closes its connection if the session is closed.
    pub(crate) fn give_back(&self, reader: Source) {
        self.connection_cache.keep_reader(self.key, reader, &self.closed);
    }

    fn close(&self) {
        self.connection_cache.close_readers(self.key);
    }
}
