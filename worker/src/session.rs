//! This process's part in exports that are cut: for each a transaction that keeps the snapshot open, under a name of its
//! own so that other processes can import it from here, and transactions that read. A snapshot lives as long as any
//! process keeps it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polyglot_core::failure::{Failure, FailureKind, chain};
use polyglot_ledger::{Attempt, Keeper, Ledger, in_time};
use polyglot_source::session::session_name;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use crate::pipeline::Stop;
use crate::source::{Idle, JoinError, LOST, Plan, Source};
use crate::upload::Buffers;

/// How often a keeper looks whether it is still wanted.
const BEAT: Duration = Duration::from_secs(1);
/// A keeper that was not heard of for so long is not counted on.
const ALIVE: Duration = Duration::from_secs(3);
/// Processes that are to keep a snapshot, if there are as many: a worker that has no shard to read, because those that are
/// left are held by workers that died, is as good a keeper as any.
const WANTED: i64 = 4;
/// Attempts that are joined at a time.
const JOINED: i64 = 8;
/// How long the source may take to answer a keeper. It does nothing else on that connection; but a network that is silent
/// for a while has lost nothing, and what is given up costs every shard that was read.
const ANSWER: Duration = Duration::from_mins(1);

/// How long a transaction may take to come about: a connection, a lock that is waited for 5 s, an import.
const ENTER: Duration = Duration::from_secs(20);

/// An export and its attempt.
type Key = (Uuid, i32);

fn key(attempt: &Attempt) -> Key {
    (attempt.export_id, attempt.attempt)
}

/// A snapshot's name, and the run of the server that gave it: after a restart, or on another server, the same name is
/// another snapshot's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SnapshotName {
    name: String,
    server_started: String,
}

impl SnapshotName {
    async fn exported_by(keeper: &mut Source) -> Result<Self, Failure> {
        Ok(Self { name: keeper.export_snapshot().await?, server_started: keeper.backend.server_started.clone() })
    }

    /// As the ledger has it.
    fn of(text: &str) -> Option<Self> {
        let (name, server_started) = text.split_once(' ')?;
        Some(Self { name: name.to_owned(), server_started: server_started.to_owned() })
    }

    fn text(&self) -> String {
        format!("{} {}", self.name, self.server_started)
    }
}

/// One snapshot, as this process holds it.
pub(crate) struct Session {
    pub plan: Plan,
    /// Under which the keeper of this process has exported it.
    snapshot: SnapshotName,
    /// Transactions that wait for the next shard.
    idle: Mutex<Vec<Source>>,
    over: CancellationToken,
}

type Slot = Arc<OnceCell<Arc<Session>>>;

/// All of them.
pub(crate) struct Sessions {
    source_url: String,
    ledger: Ledger,
    owner: String,
    max_row_bytes: u64,
    buffers: Buffers,
    idle: Idle,
    open: Arc<Mutex<HashMap<Key, Slot>>>,
    keepers: TaskTracker,
    stopping: CancellationToken,
}

/// Why a shard cannot be read.
fn not_joined(error: JoinError, tried: usize) -> Stop {
    match error {
        JoinError::SnapshotGone => {
            let message = "Every process that kept the export's snapshot of the source was lost.";
            let detail = format!("{tried} names of the snapshot were tried");
            Stop::FailedAttempt(Failure::new(FailureKind::SnapshotLost, message, detail))
        }
        JoinError::Locked(failure) => Stop::Blocked(failure),
        JoinError::Failed(failure) => Stop::Failed(failure),
    }
}

fn unreachable(detail: &str) -> Failure {
    Failure::new(FailureKind::SourceUnavailable, LOST, detail)
}

impl Sessions {
    pub(crate) fn new(
        source_url: String,
        ledger: Ledger,
        owner: String,
        max_row_bytes: u64,
        buffers: Buffers,
        idle: Idle,
    ) -> Self {
        Self {
            source_url,
            ledger,
            owner,
            max_row_bytes,
            buffers,
            idle,
            open: Arc::default(),
            keepers: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// Snapshots that this process keeps.
    pub(crate) fn kept(&self) -> usize {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().filter(|slot| slot.initialized()).count()
    }

    /// Transactions under them that wait for a shard.
    pub(crate) fn waiting(&self) -> usize {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = open.values().filter_map(|slot| slot.get());
        sessions.map(|session| session.idle.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn slot(&self, key: Key) -> Slot {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(open.entry(key).or_default())
    }

    /// Keeps the snapshots that few others keep, until `stopping`.
    pub(crate) async fn share(&self, stopping: &CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = sleep(BEAT) => {}
            }
            let badly_kept = match in_time(self.ledger.badly_kept(&self.owner, WANTED, JOINED)).await {
                Ok(badly_kept) => badly_kept,
                Err(error) => {
                    tracing::debug!(error = chain(&error), "the ledger cannot be asked for snapshots to keep");
                    continue;
                }
            };
            for attempt in badly_kept {
                // What stands against it is the business of whoever reads.
                if let Err(stop) = self.of(&attempt).await {
                    tracing::debug!(export_id = %attempt.export_id, ?stop, "the snapshot is not kept here");
                }
            }
        }
    }

    /// The planner's own session, before anybody knows of it; with a transaction that reads, so that what waits for the
    /// table from now on cannot keep this process from it. The answer is what the ledger calls the snapshot.
    pub(crate) async fn found(&self, attempt: &Attempt, mut keeper: Source, plan: Plan) -> Result<String, Stop> {
        let snapshot = SnapshotName::exported_by(&mut keeper).await?;
        let reader = self.enter(attempt, &snapshot).await.map_err(|error| not_joined(error, 1))?;
        let text = snapshot.text();
        let session = self.session(attempt, keeper, snapshot, plan);
        session.give_back(reader);
        self.slot(key(attempt)).set(session).ok();
        Ok(text)
    }

    /// The attempt has come to nothing.
    pub(crate) fn forget(&self, export_id: Uuid, attempt: i32) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = open.get(&(export_id, attempt)).and_then(|slot| slot.get()) {
            session.over.cancel();
        }
    }

    /// The session for a claim, joined through whichever process still keeps the snapshot.
    pub(crate) async fn of(&self, attempt: &Attempt) -> Result<Arc<Session>, Stop> {
        self.slot(key(attempt)).get_or_try_init(|| self.join(attempt)).await.cloned()
    }

    async fn join(&self, attempt: &Attempt) -> Result<Arc<Session>, Stop> {
        let mut tried = HashSet::new();
        let mut keeper = loop {
            // Another process may have joined while the names of those that are gone were tried.
            let names = in_time(self.ledger.snapshots(attempt.export_id, attempt.attempt)).await?;
            let untried = names.into_iter().find(|name| !tried.contains(name));
            let Some((text, snapshot)) = untried.and_then(|text| SnapshotName::of(&text).map(|name| (text, name)))
            else {
                return Err(not_joined(JoinError::SnapshotGone, tried.len()));
            };
            match self.enter(attempt, &snapshot).await {
                Ok(joined) => break joined,
                Err(JoinError::SnapshotGone) => tried.insert(text),
                Err(error) => return Err(not_joined(error, 1)),
            };
        };
        let own = SnapshotName::exported_by(&mut keeper).await?;
        let plan = keeper.plan(&attempt.request, self.max_row_bytes).await?;
        if !in_time(self.ledger.keep(attempt.export_id, attempt.attempt, self.keeper(&own.text()))).await? {
            return Err(Stop::Lost);
        }
        Ok(self.session(attempt, keeper, own, plan))
    }

    /// A transaction under that snapshot.
    async fn enter(&self, attempt: &Attempt, snapshot: &SnapshotName) -> Result<Source, JoinError> {
        let entering = async {
            let connected =
                self.idle.connect(&self.source_url, &session_name(attempt.export_id, attempt.attempt)).await?;
            let joined = connected.join(&attempt.request, &snapshot.name).await?;
            if joined.backend.server_started == snapshot.server_started {
                Ok(joined)
            } else {
                Err(JoinError::SnapshotGone)
            }
        };
        // Silence is not looked into, as it is while rows are read: nothing here takes long.
        timeout(ENTER, Box::pin(entering)).await.unwrap_or_else(|_| Err(unreachable("no answer in time").into()))
    }

    pub(crate) fn keeper<'s>(&'s self, snapshot: &'s str) -> Keeper<'s> {
        Keeper { owner: &self.owner, snapshot, lease: ALIVE }
    }

    fn session(&self, attempt: &Attempt, keeper: Source, snapshot: SnapshotName, plan: Plan) -> Arc<Session> {
        let name = snapshot.text();
        let over = self.stopping.child_token();
        let session = Arc::new(Session { plan, snapshot, idle: Mutex::default(), over: over.clone() });
        let keeping = Keeping {
            key: key(attempt),
            keeper,
            snapshot: name,
            ledger: self.ledger.clone(),
            owner: self.owner.clone(),
            until: attempt.snapshot_until,
        };
        let (open, buffers) = (Arc::clone(&self.open), self.buffers.clone());
        let kept = Arc::clone(&session);
        // Under nothing: it outlives the work that began it.
        let span = tracing::error_span!(
            parent: None, "snapshot", export_id = %attempt.export_id, attempt = attempt.attempt,
            request_id = attempt.request_id
        );
        let keeper = async move {
            let key = keeping.key;
            tokio::select! {
                () = keeping.run() => {}
                () = over.cancelled() => {}
            }
            over.cancel();
            kept.close();
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            // Another slot may have joined before the planner's own session was there.
            open.retain(|other, slot| {
                let is_this = *other == key && slot.get().is_some_and(|session| Arc::ptr_eq(session, &kept));
                // Nobody is about to join, or has.
                let is_empty = !slot.initialized() && Arc::strong_count(slot) == 1;
                !is_this && !is_empty
            });
            if open.is_empty() {
                buffers.clear();
            }
        };
        self.keepers.spawn(keeper.instrument(span));
        session
    }

    /// A transaction that reads under the session's snapshot.
    pub(crate) async fn reader(&self, session: &Session, attempt: &Attempt) -> Result<Source, Stop> {
        if let Some(idle) = session.take() {
            return Ok(idle);
        }
        match self.enter(attempt, &session.snapshot).await {
            Ok(reader) => Ok(reader),
            // Its keeper has just been lost, and with it the session; the next try joins through another process.
            Err(JoinError::SnapshotGone) => {
                session.over.cancel();
                Err(unreachable("this worker's keeper is gone").into())
            }
            Err(error) => Err(not_joined(error, 1)),
        }
    }

    /// Lets go of every snapshot.
    pub(crate) async fn close(&self) {
        self.stopping.cancel();
        let open: Vec<Key> = self.open.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        for key in open {
            keep_no_longer(&self.ledger, key, &self.owner).await;
        }
        self.keepers.close();
        self.keepers.wait().await;
    }
}

impl Session {
    fn take(&self) -> Option<Source> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// For the next shard.
    pub(crate) fn give_back(&self, reader: Source) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.over.is_cancelled() {
            idle.push(reader);
        }
    }

    fn close(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Tells others not to look for the snapshot here. Where that fails they find out by themselves.
async fn keep_no_longer(ledger: &Ledger, (export_id, attempt): Key, owner: &str) {
    if let Err(error) = in_time(ledger.keep_no_longer(export_id, attempt, owner)).await {
        tracing::debug!(%export_id, error = chain(&error), "the ledger still names this keeper");
    }
}

/// The task that keeps one snapshot.
struct Keeping {
    key: Key,
    keeper: Source,
    snapshot: String,
    ledger: Ledger,
    owner: String,
    until: Option<chrono::DateTime<chrono::Utc>>,
}

impl Keeping {
    /// Ends when the snapshot is not wanted any more, is too old, or its connection is lost.
    async fn run(mut self) {
        let (export_id, attempt) = self.key;
        loop {
            sleep(BEAT).await;
            match timeout(ANSWER, self.keeper.ping()).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => {
                    tracing::warn!(detail = failure.detail, "the snapshot's connection was lost");
                    break;
                }
                Err(_) => {
                    tracing::warn!("the snapshot's connection is silent");
                    break;
                }
            }
            if self.until.is_some_and(|until| until < chrono::Utc::now()) {
                tracing::warn!("the snapshot is too old to be kept");
                break;
            }
            let keeper = Keeper { owner: &self.owner, snapshot: &self.snapshot, lease: ALIVE };
            match in_time(self.ledger.keep(export_id, attempt, keeper)).await {
                Ok(true) => {}
                Ok(false) => return,
                // The snapshot may still be wanted.
                Err(error) => tracing::debug!(error = chain(&error), "keeper not renewed, trying again"),
            }
        }
        keep_no_longer(&self.ledger, self.key, &self.owner).await;
    }
}
