//! Runs the steps of a schedule on a real ledger, and the model beside it.

use std::time::Duration;

use polyglot_core::expected_size::ExpectedSize;
use polyglot_core::failure::chain;
use polyglot_core::status::Status;
use polyglot_ledger::{
    Claim, Deletion, JobKind, Ledger, LedgerError, PlaceRequest, RetryPolicy, SnapshotHolder, Submission, Terms, Turn,
};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::invariants::{check_rows, check_sql, check_turn};
use super::model::{
    COORDINATOR, ClaimIndex, Export, LEASE, MAX_ATTEMPTS, Micros, Outlook, SECOND, SNAPSHOT_AGE, ShardState, TIMEOUT,
};
use super::step::{Schedule, Step};
use crate::ledger::request;

/// `Err` describes an invariant that does not hold.
pub(super) type Checked<T = ()> = Result<T, String>;

/// The time at which every schedule begins.
const BEGINNING: Micros = 1_900_000_000 * SECOND;

/// A claim whose holder is alive, whether or not the claim is still valid.
pub(super) struct HeldClaim {
    pub(super) claim: Claim,
    pub(super) index: ClaimIndex,
    /// Index of the export in [`World::exports`].
    pub(super) export: usize,
    pub(super) owner: String,
    /// Failures of the export when the claim was made.
    pub(super) failures: i32,
    pub(super) phase: Phase,
}

/// How far the holder of a claim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Started,
    Placed,
    Denied,
    Streaming,
    Reading,
    Finishing,
    /// The holder knows that the export is to be cancelled.
    Cancelled,
    /// The holder has ended its work. Calls that it makes now are repeats, whose first answer was lost.
    Spent,
}

pub(super) struct World<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) pool: &'a PgPool,
    pub(super) places: u16,
    timeout: Option<Micros>,
    pub(super) now: Micros,
    /// The latest time that the clock has shown.
    latest: Micros,
    pub(super) exports: Vec<Export>,
    pub(super) claims: Vec<HeldClaim>,
    claimed: usize,
    /// What each step did.
    pub(super) trace: Vec<String>,
}

impl<'a> World<'a> {
    /// An empty ledger at the beginning of time.
    pub(super) async fn new(ledger: &'a Ledger, pool: &'a PgPool, schedule: &Schedule) -> Self {
        let mut world = Self {
            ledger,
            pool,
            places: schedule.places,
            timeout: schedule.has_timeout.then_some(TIMEOUT),
            now: BEGINNING,
            latest: BEGINNING,
            exports: Vec::new(),
            claims: Vec::new(),
            claimed: 0,
            trace: Vec::new(),
        };
        sqlx::query("DELETE FROM exports").execute(pool).await.unwrap();
        world.set_clock(BEGINNING).await;
        world
    }

    /// Does a step and checks every invariant.
    pub(super) async fn step(&mut self, step: Step) -> Checked {
        self.trace.push(format!("{step:?}"));
        match step {
            Step::Submit { tenant, size } => self.submit(tenant, size).await?,
            Step::Claim { worker, turn } => {
                Box::pin(self.claim(&worker_name(worker), turn)).await?;
            }
            Step::ClaimTwice { turn } => Box::pin(self.claim_twice(turn)).await?,
            Step::Work { claim, choice } => {
                if let Some(at) = from_newest(claim, self.claims.len()) {
                    self.work(at, choice).await?;
                }
            }
            Step::TakePlaces { first, second } => self.take_places(first, second).await?,
            Step::Die { worker } => self.claims.retain(|held| held.owner != worker_name(worker)),
            Step::Delete { export } => self.delete(export).await?,
            Step::Hold { export, worker, before } => self.hold(export, worker, before).await?,
            Step::Release { export, worker } => {
                if let Some(at) = from_newest(export, self.exports.len()) {
                    let Export { id, attempt, .. } = self.exports[at];
                    self.ledger.release_snapshot(id, attempt, &worker_name(worker)).await.map_err(refused)?;
                }
            }
            Step::Sweep => self.sweep().await?,
            Step::CleanUp => {
                self.clean_up().await?;
            }
            Step::Clock { milliseconds } => self.set_clock(self.now + milliseconds * 1000).await,
        }
        self.check().await
    }

    pub(super) async fn check(&self) -> Checked {
        check_rows(self.pool, &self.exports).await?;
        check_sql(self.pool, self.places).await
    }

    /// Adds to the description of the step.
    pub(super) fn note(&mut self, what: &str) {
        let line = self.trace.last_mut().expect("a step has begun");
        line.push_str(" -> ");
        line.push_str(what);
    }

    /// Waits until no transaction is open. The driver rolls a refused call back after the call has returned, and its locks hide
    /// rows from the statements that skip what is locked.
    async fn settle(&self) {
        let open = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND backend_type = 'client backend' AND state LIKE 'idle in%'";
        while sqlx::query_scalar::<_, i64>(open).fetch_one(self.pool).await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn set_clock(&mut self, now: Micros) {
        self.now = now;
        self.latest = self.latest.max(now);
        let set = "UPDATE clock SET at = 'epoch'::timestamptz + $1 * interval '1 microsecond'";
        sqlx::query(set).bind(now).execute(self.pool).await.unwrap();
    }

    /// Sets the clock to the latest time that it has shown, and further.
    pub(super) async fn go_on(&mut self, further: Micros) {
        self.set_clock(self.latest + further).await;
    }

    fn terms(&self) -> Terms {
        Terms {
            lease: duration(LEASE),
            timeout: self.timeout.map(duration),
            snapshot_age: Some(duration(SNAPSHOT_AGE)),
            retry: retry(),
            max_open_snapshots: self.places,
            check_request: |_| Ok(()),
        }
    }

    async fn submit(&mut self, tenant: u8, expected_size: ExpectedSize) -> Checked {
        let (tenant, request) = (format!("tenant {tenant}"), request("id"));
        let submission = Submission { expected_size, ..Submission::new(&tenant, &request) };
        let id = self.ledger.accept(submission).await.map_err(refused)?.id;
        self.exports.push(Export::new(id, tenant, expected_size, self.now));
        self.note(&format!("export {}", self.exports.len()));
        Ok(())
    }

    pub(super) fn free_places(&self) -> usize {
        let uses = |export: &&Export| export.has_place && matches!(export.state, Status::Planning | Status::Running);
        usize::from(self.places).saturating_sub(self.exports.iter().filter(uses).count())
    }

    /// Claims the next piece of work, and returns whether there was any.
    pub(super) async fn claim(&mut self, worker: &str, turn: Turn) -> Checked<bool> {
        self.settle().await;
        let claim = self.ledger.claim_next(worker, &self.terms(), turn).await.map_err(refused)?;
        let some_ended = self.apply_ends().await?;
        // After the clock has gone back, times that were written before lie in the future, and work is found late.
        if self.now >= self.latest {
            let export = claim.as_ref().map(|claim| self.find(claim.export_id)).transpose()?;
            check_turn(&self.exports, export, turn, self.now, self.free_places() > 0, some_ended)?;
        }
        let Some(claim) = claim else {
            self.note("nothing");
            return Ok(false);
        };
        self.apply_claim(*claim, worker)?;
        Ok(true)
    }

    async fn claim_twice(&mut self, turn: Turn) -> Checked {
        let terms = self.terms();
        self.settle().await;
        let (first, second) = tokio::join!(
            self.ledger.claim_next("worker 0", &terms, turn),
            self.ledger.claim_next("worker 1", &terms, turn),
        );
        let (first, second) = (first.map_err(refused)?, second.map_err(refused)?);
        self.apply_ends().await?;
        let mut claims: Vec<_> = [(first, "worker 0"), (second, "worker 1")]
            .into_iter()
            .filter_map(|(claim, worker)| claim.map(|claim| (claim, worker)))
            .collect();
        // Of one export, shards of lost workers are claimed first, and then the lowest numbers.
        let mut order = Vec::new();
        for (claim, _) in &claims {
            let shards = &self.exports[self.find(claim.export_id)?].shards;
            let state = shards.get(&claim.shard).map(|shard| &shard.state);
            order.push((!matches!(state, Some(ShardState::Leased { .. })), claim.shard));
        }
        if order.len() == 2 && order[0] > order[1] {
            claims.reverse();
        }
        for (claim, worker) in claims {
            self.apply_claim(*claim, worker)?;
        }
        Ok(())
    }

    fn find(&self, id: Uuid) -> Checked<usize> {
        self.exports.iter().position(|export| export.id == id).ok_or_else(|| format!("export {id} is unknown"))
    }

    /// Ends those exports in the model that a claim has ended, which only happens to those that are at a limit. Returns whether
    /// there are any.
    async fn apply_ends(&mut self) -> Checked<bool> {
        let (now, mut some_ended) = (self.now, false);
        for export in &mut self.exports {
            // A place is no condition of an end.
            let Outlook::Ends(status) = export.outlook(now, true) else { continue };
            let state: String = sqlx::query_scalar("SELECT state FROM exports WHERE id = $1")
                .bind(export.id)
                .fetch_one(self.pool)
                .await
                .unwrap();
            if state == status.name() {
                export.end(status);
                some_ended = true;
            }
        }
        Ok(some_ended)
    }

    fn apply_claim(&mut self, claim: Claim, worker: &str) -> Checked {
        let (at, now, index, timeout) = (self.find(claim.export_id)?, self.now, self.claimed, self.timeout);
        let place_is_free = self.free_places() > 0;
        let export = &mut self.exports[at];
        if export.outlook(now, place_is_free) != Outlook::Claimable {
            return Err(format!("export {} is claimed, which has nothing to claim now", at + 1));
        }
        if export.next_shard(now) != Some(claim.shard) {
            return Err(format!("shard {} is claimed instead of {:?}", claim.shard, export.next_shard(now)));
        }
        export.lease(claim.shard, index, worker, now, timeout);
        let expected = (export.attempt, export.shards[&claim.shard].fence, export.failures);
        if (claim.attempt, claim.fence) != (expected.0, expected.1) {
            return Err(format!("attempt, fence and failures are not {expected:?}: {claim:?}"));
        }
        let phase = match claim.work {
            JobKind::Start { .. } if claim.has_place => Phase::Placed,
            JobKind::Start { .. } => Phase::Started,
            JobKind::Shard(_) => Phase::Reading,
            JobKind::Finish(_) => Phase::Finishing,
        };
        let is_shard = claim.shard != COORDINATOR;
        if is_shard != (phase == Phase::Reading) || claim.has_place != export.needs_place {
            return Err(format!("the work does not fit the export: {claim:?}"));
        }
        let (failures, shard, attempt) = (export.failures, claim.shard, claim.attempt);
        self.claims.push(HeldClaim { claim, index, export: at, owner: worker.to_owned(), failures, phase });
        self.claimed += 1;
        self.note(&format!("export {}, attempt {attempt}, shard {shard}, {phase:?}", at + 1));
        Ok(())
    }

    /// Two holders ask for a place at once: as many get one as there are.
    async fn take_places(&mut self, first: u8, second: u8) -> Checked {
        let at = [first, second].map(|back| from_newest(back, self.claims.len()));
        let [Some(first), Some(second)] = at else { return Ok(()) };
        let may_ask = |at: usize| self.claims[at].phase == Phase::Started && self.is_valid(at);
        if first == second || !may_ask(first) || !may_ask(second) {
            return Ok(());
        }
        for at in [first, second] {
            self.begin_upload(at, false).await?;
        }
        let free = self.free_places();
        let (one, other) = tokio::join!(
            self.ledger.take_place(&self.claims[first].claim, self.places),
            self.ledger.take_place(&self.claims[second].claim, self.places),
        );
        let mut granted = 0;
        let mut asked = 0;
        for (at, answer) in [(first, one), (second, other)] {
            let answer = answer.map_err(refused)?;
            if !self.exports[self.claims[at].export].cancel_requested {
                asked += 1;
            }
            granted += usize::from(answer == PlaceRequest::Granted);
            self.apply_place(at, answer);
        }
        if granted != free.min(asked) {
            return Err(format!("{granted} places are granted to {asked} claims, of {free} that are free"));
        }
        Ok(())
    }

    async fn delete(&mut self, export: u8) -> Checked {
        let Some(at) = from_newest(export, self.exports.len()) else { return Ok(()) };
        let export = &mut self.exports[at];
        let deletion = self.ledger.delete(export.id).await.map_err(refused)?;
        let is_active = export.is_active();
        match export.state {
            Status::Pending => {
                export.cancel_requested = true;
                export.end(Status::Cancelled);
            }
            Status::Completed => {
                export.cancel_requested = true;
                export.state = Status::Expired;
            }
            _ if is_active => export.cancel_requested = true,
            _ => {}
        }
        if is_active != (deletion == Deletion::Cancelling) {
            return Err(format!("the deletion of an export that is active ({is_active}) is {deletion:?}"));
        }
        self.note(&format!("export {}", at + 1));
        Ok(())
    }

    async fn hold(&mut self, export: u8, worker: u8, before: bool) -> Checked {
        let Some(at) = from_newest(export, self.exports.len()) else { return Ok(()) };
        let export = &self.exports[at];
        let attempt = export.attempt - i32::from(before);
        let owner = worker_name(worker);
        let holder = SnapshotHolder { owner: &owner, snapshot: "snapshot", lease: duration(LEASE) };
        let wanted = self.ledger.hold_snapshot(export.id, attempt, holder).await.map_err(refused)?;
        let expected = !before && matches!(export.state, Status::Planning | Status::Running);
        if wanted != expected {
            return Err(format!("the snapshot of export {}, attempt {attempt}, is wanted: {wanted}", at + 1));
        }
        Ok(())
    }

    pub(super) async fn sweep(&mut self) -> Checked {
        self.settle().await;
        self.ledger.sweep().await.map_err(refused)?.ok_or("another process sweeps")?;
        for export in &mut self.exports {
            match export.swept(self.now) {
                Some(Status::Expired) => export.state = Status::Expired,
                Some(status) => export.end(status),
                None => {}
            }
        }
        Ok(())
    }

    /// Does a cleanup pass, and returns whether there was anything to do.
    pub(super) async fn clean_up(&mut self) -> Checked<bool> {
        self.settle().await;
        let found = self.ledger.orphaned_uploads(100).await.map_err(refused)?;
        for upload in &found {
            let at = self.find(upload.export_id)?;
            let export = &mut self.exports[at];
            if export.is_begun() && upload.attempt == export.attempt {
                return Err(format!("the upload of export {} is removed, which is being written", at + 1));
            }
            let is_owned = export.published == Some(upload.attempt);
            if upload.object.owned != is_owned {
                return Err(format!("the object of export {} is owned: {}", at + 1, upload.object.owned));
            }
            export.removed.insert(upload.attempt);
            self.ledger.mark_checked(upload).await.map_err(refused)?;
        }
        Ok(!found.is_empty())
    }

    /// Whether nobody has taken over the claim.
    pub(super) fn is_valid(&self, at: usize) -> bool {
        let HeldClaim { claim, index, export, .. } = &self.claims[at];
        let export = &self.exports[*export];
        export.is_begun() && export.attempt == claim.attempt && export.holds(claim.shard, *index)
    }
}

pub(super) fn worker_name(number: u8) -> String {
    format!("worker {number}")
}

/// The index that counts back from the newest of `length` things.
fn from_newest(back: u8, length: usize) -> Option<usize> {
    (length > 0).then(|| length - 1 - usize::from(back) % length)
}

pub(super) fn duration(micros: Micros) -> Duration {
    Duration::from_micros(u64::try_from(micros).expect("no duration is negative"))
}

pub(super) fn retry() -> RetryPolicy {
    RetryPolicy::new(MAX_ATTEMPTS)
}

#[expect(clippy::needless_pass_by_value, reason = "takes what a call gives")]
pub(super) fn refused(error: LedgerError) -> String {
    format!("a call that must succeed failed: {}", chain(&error))
}
