//! This process's part in exports that are cut: for each a transaction that keeps the snapshot open, under a name of its
//! own so that other processes can import it from here, and transactions that read. A snapshot lives as long as any
//! process keeps it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polyglot_export::failure::{Failure, FailureKind, chain};
use polyglot_export::ledger::{Claim, Keeper, Ledger, in_time};
use polyglot_export::source::session_name;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::pipeline::Stop;
use crate::source::{Connected, JoinError, Plan, Source};

/// How often a keeper looks whether it is still wanted.
const BEAT: Duration = Duration::from_secs(1);
/// How long the source may take to answer a keeper. It does nothing else on that connection.
const ANSWER: Duration = Duration::from_secs(10);

/// An export and its attempt.
type Key = (Uuid, i32);

/// One snapshot, as this process holds it.
pub(crate) struct Session {
    pub plan: Plan,
    /// Under which the keeper of this process has exported it.
    snapshot: String,
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
    lease: Duration,
    max_row_bytes: u64,
    open: Arc<Mutex<HashMap<Key, Slot>>>,
    keepers: TaskTracker,
    stopping: CancellationToken,
}

fn lost(tried: usize) -> Stop {
    let message = "Every process that kept the export's snapshot of the source was lost.";
    let detail = format!("{tried} names of the snapshot were tried");
    Stop::FailedAttempt(Failure::new(FailureKind::SnapshotLost, message, detail))
}

impl Sessions {
    pub(crate) fn new(source_url: String, ledger: Ledger, owner: String, lease: Duration, max_row_bytes: u64) -> Self {
        Self {
            source_url,
            ledger,
            owner,
            lease,
            max_row_bytes,
            open: Arc::default(),
            keepers: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }

    fn slot(&self, key: Key) -> Slot {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(open.entry(key).or_default())
    }

    /// The planner's own session; `keeper` holds the snapshot that `snapshot` names.
    pub(crate) fn found(&self, claim: &Claim, keeper: Source, snapshot: String, plan: Plan) {
        let session = self.session(claim, keeper, snapshot, plan);
        // Empty: nobody but the planner can know of the snapshot yet.
        self.slot((claim.export_id, claim.attempt)).set(session).ok();
    }

    /// The session for a claim, joined through whichever process still keeps the snapshot.
    pub(crate) async fn of(&self, claim: &Claim) -> Result<Arc<Session>, Stop> {
        let key = (claim.export_id, claim.attempt);
        let slot = self.slot(key);
        let joined = slot.get_or_try_init(|| self.join(claim)).await.cloned();
        if joined.is_err() {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.get(&key).is_some_and(|slot| !slot.initialized()) {
                open.remove(&key);
            }
        }
        joined
    }

    async fn join(&self, claim: &Claim) -> Result<Arc<Session>, Stop> {
        let mut tried = HashSet::new();
        let mut keeper = loop {
            // Another process may have joined while the names of those that are gone were tried.
            let snapshots = in_time(self.ledger.snapshots(claim.export_id, claim.attempt)).await?;
            let Some(snapshot) = snapshots.into_iter().find(|name| !tried.contains(name)) else {
                return Err(lost(tried.len()));
            };
            let name = session_name(claim.export_id, claim.attempt);
            match Connected::to(&self.source_url, &name).await?.join(&claim.request, &snapshot).await {
                Ok(joined) => break joined,
                Err(JoinError::SnapshotGone) => tried.insert(snapshot),
                Err(JoinError::Failed(failure)) => return Err(failure.into()),
            };
        };
        let own = keeper.export_snapshot().await?;
        let plan = keeper.plan(&claim.request, self.max_row_bytes).await?;
        if !in_time(self.ledger.keep(claim.export_id, claim.attempt, self.keeper(&own))).await? {
            return Err(Stop::Lost);
        }
        Ok(self.session(claim, keeper, own, plan))
    }

    pub(crate) fn keeper<'s>(&'s self, snapshot: &'s str) -> Keeper<'s> {
        Keeper { owner: &self.owner, snapshot, lease: self.lease }
    }

    fn session(&self, claim: &Claim, keeper: Source, snapshot: String, plan: Plan) -> Arc<Session> {
        let over = self.stopping.child_token();
        let session =
            Arc::new(Session { plan, snapshot: snapshot.clone(), idle: Mutex::default(), over: over.clone() });
        let keeping = Keeping {
            key: (claim.export_id, claim.attempt),
            keeper,
            snapshot,
            ledger: self.ledger.clone(),
            owner: self.owner.clone(),
            lease: self.lease,
            until: claim.snapshot_until,
        };
        let open = Arc::clone(&self.open);
        let kept = Arc::clone(&session);
        self.keepers.spawn(async move {
            let key = keeping.key;
            tokio::select! {
                () = keeping.run() => {}
                () = over.cancelled() => {}
            }
            over.cancel();
            open.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            kept.close();
        });
        session
    }

    /// A transaction that reads under the session's snapshot.
    pub(crate) async fn reader(&self, session: &Session, claim: &Claim) -> Result<Source, Stop> {
        if let Some(idle) = session.take() {
            return Ok(idle);
        }
        let name = session_name(claim.export_id, claim.attempt);
        let connected = Connected::to(&self.source_url, &name).await?;
        match connected.join(&claim.request, &session.snapshot).await {
            Ok(reader) => Ok(reader),
            // Its keeper has just been lost, and with it the session; the next try joins through another process.
            Err(JoinError::SnapshotGone) => {
                session.over.cancel();
                let message = "The source database could not be reached or dropped the connection.";
                Err(Failure::new(FailureKind::SourceUnavailable, message, "this worker's keeper is gone").into())
            }
            Err(JoinError::Failed(failure)) => Err(failure.into()),
        }
    }

    /// Lets go of every snapshot.
    pub(crate) async fn close(&self) {
        self.stopping.cancel();
        let mut open: Vec<Key> = Vec::new();
        open.extend(self.open.lock().unwrap_or_else(PoisonError::into_inner).keys());
        for (export_id, attempt) in open {
            if let Err(error) = in_time(self.ledger.keep_no_longer(export_id, attempt, &self.owner)).await {
                tracing::debug!(%export_id, error = chain(&error), "the ledger still names this keeper");
            }
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

/// The task that keeps one snapshot.
struct Keeping {
    key: Key,
    keeper: Source,
    snapshot: String,
    ledger: Ledger,
    owner: String,
    lease: Duration,
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
                    tracing::warn!(%export_id, attempt, detail = failure.detail, "the snapshot's connection was lost");
                    break;
                }
                Err(_) => {
                    tracing::warn!(%export_id, attempt, "the snapshot's connection is silent");
                    break;
                }
            }
            if self.until.is_some_and(|until| until < chrono::Utc::now()) {
                tracing::warn!(%export_id, attempt, "the snapshot is too old to be kept");
                break;
            }
            let keeper = Keeper { owner: &self.owner, snapshot: &self.snapshot, lease: self.lease };
            match in_time(self.ledger.keep(export_id, attempt, keeper)).await {
                Ok(true) => {}
                Ok(false) => return,
                // The snapshot may still be wanted.
                Err(error) => tracing::debug!(%export_id, error = chain(&error), "keeper not renewed, trying again"),
            }
        }
        if let Err(error) = in_time(self.ledger.keep_no_longer(export_id, attempt, &self.owner)).await {
            tracing::debug!(%export_id, error = chain(&error), "the ledger still names this keeper");
        }
    }
}
