//! A model of the ledger: what every export must look like after the calls so far. It knows nothing of SQL, messages or
//! concurrency, and is as simple as the rules are.

use std::collections::{BTreeMap, BTreeSet};

use polyglot_core::expected_size::ExpectedSize;
use polyglot_core::status::Status;
use uuid::Uuid;

use super::step::{LEASE_SECONDS, TIMEOUT_SECONDS};

/// Microseconds, as PostgreSQL counts them.
pub(super) type Micros = i64;
pub(super) const SECOND: Micros = 1_000_000;
pub(super) const LEASE: Micros = LEASE_SECONDS * SECOND;
pub(super) const TIMEOUT: Micros = TIMEOUT_SECONDS * SECOND;
/// Less than the timeout, so that either can be the first to end an export.
pub(super) const SNAPSHOT_AGE: Micros = 2400 * SECOND;
pub(super) const RETENTION: Micros = 7200 * SECOND;
pub(super) const MAX_ATTEMPTS: i32 = 4;

/// Index of a claim in the order in which they were made.
pub(super) type ClaimIndex = usize;
/// Shard number of the coordinator's claim.
pub(super) const COORDINATOR: i32 = 0;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ShardState {
    Free,
    Leased {
        claim: ClaimIndex,
        owner: String,
        until: Micros,
        /// The loss of its worker is counted as a failure.
        counted: bool,
    },
    Committed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) state: ShardState,
    pub(super) fence: i64,
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts")]
pub(super) struct Export {
    pub(super) id: Uuid,
    pub(super) tenant: String,
    pub(super) created_at: Micros,
    pub(super) state: Status,
    pub(super) cancel_requested: bool,
    pub(super) attempt: i32,
    pub(super) failures: i32,
    pub(super) is_small: bool,
    pub(super) needs_place: bool,
    pub(super) has_place: bool,
    pub(super) deadline: Option<Micros>,
    pub(super) deadline_left: Option<Micros>,
    pub(super) snapshot_until: Option<Micros>,
    /// A pending export may be claimed from then on.
    pub(super) ready_at: Micros,
    /// A begun one is not claimed before.
    pub(super) paused_until: Option<Micros>,
    /// Work may be found late until then, because a session could not lock the table.
    pub(super) late_until: Micros,
    /// Of a sharded attempt.
    pub(super) parallelism: Option<usize>,
    /// Those of the attempt, and the coordinator's.
    pub(super) shards: BTreeMap<i32, Shard>,
    pub(super) expires_at: Option<Micros>,
    pub(super) published: Option<i32>,
    /// Attempts that have begun something in the store, and those of them that a cleanup pass has removed.
    pub(super) uploads: BTreeSet<i32>,
    pub(super) removed: BTreeSet<i32>,
}

/// What a claim of an export would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    Nothing,
    /// The export would end instead.
    Ends(Status),
    Claimable,
}

impl Export {
    pub(super) fn new(id: Uuid, tenant: String, size: ExpectedSize, now: Micros) -> Self {
        Self {
            id,
            tenant,
            created_at: now,
            state: Status::Pending,
            cancel_requested: false,
            attempt: 0,
            failures: 0,
            is_small: size == ExpectedSize::Small,
            needs_place: size == ExpectedSize::Large,
            has_place: false,
            deadline: None,
            deadline_left: None,
            snapshot_until: None,
            ready_at: now,
            paused_until: None,
            late_until: now,
            parallelism: None,
            shards: BTreeMap::new(),
            expires_at: None,
            published: None,
            uploads: BTreeSet::new(),
            removed: BTreeSet::new(),
        }
    }

    pub(super) fn is_begun(&self) -> bool {
        matches!(self.state, Status::Planning | Status::Running | Status::Finishing)
    }

    pub(super) fn is_active(&self) -> bool {
        self.state == Status::Pending || self.is_begun()
    }

    /// Its shards are to be read.
    pub(super) fn is_read_in_shards(&self) -> bool {
        self.state == Status::Running && self.parallelism.is_some()
    }

    pub(super) fn leased(&self) -> usize {
        self.shards.values().filter(|shard| matches!(shard.state, ShardState::Leased { .. })).count()
    }

    pub(super) fn live_leases(&self, now: Micros) -> usize {
        let is_live = |shard: &&Shard| matches!(shard.state, ShardState::Leased { until, .. } if until >= now);
        self.shards.values().filter(is_live).count()
    }

    /// Whether the shard, or the coordinator's claim, can be claimed.
    pub(super) fn is_free(&self, number: i32, now: Micros) -> bool {
        match self.shards.get(&number).map(|shard| &shard.state) {
            None => number == COORDINATOR,
            Some(ShardState::Free) => true,
            Some(ShardState::Leased { until, .. }) => *until < now,
            Some(ShardState::Committed) => false,
        }
    }

    /// Whether a claim of the shard counts the loss of its worker.
    pub(super) fn counts_loss(&self, number: i32, now: Micros) -> bool {
        match self.shards.get(&number).map(|shard| &shard.state) {
            Some(ShardState::Leased { until, counted, .. }) => *until < now && !counted,
            _ => false,
        }
    }

    /// The shard that the next claim is for.
    pub(super) fn next_shard(&self, now: Micros) -> Option<i32> {
        if !self.is_read_in_shards() || self.state == Status::Pending {
            return self.is_free(COORDINATOR, now).then_some(COORDINATOR);
        }
        if self.live_leases(now) >= self.parallelism.unwrap_or(1) {
            return None;
        }
        let free = || self.shards.keys().copied().filter(|number| *number != COORDINATOR && self.is_free(*number, now));
        let lost = free().find(|number| matches!(self.shards[number].state, ShardState::Leased { .. }));
        lost.or_else(|| free().next())
    }

    pub(super) fn outlook(&self, now: Micros, place_is_free: bool) -> Outlook {
        let waits = if self.state == Status::Pending { Some(self.ready_at) } else { self.paused_until };
        if !self.is_active() || waits.is_some_and(|until| until > now) {
            return Outlook::Nothing;
        }
        let Some(number) = self.next_shard(now) else { return Outlook::Nothing };
        let past = |time: Option<Micros>| time.is_some_and(|time| time < now);
        let uses_snapshot = matches!(self.state, Status::Planning | Status::Running);
        if self.cancel_requested {
            Outlook::Ends(Status::Cancelled)
        } else if past(self.deadline)
            || uses_snapshot && past(self.snapshot_until)
            || self.failures + i32::from(self.counts_loss(number, now)) >= MAX_ATTEMPTS
        {
            Outlook::Ends(Status::Failed)
        } else if number == COORDINATOR
            && self.state != Status::Finishing
            && self.needs_place
            && !self.has_place
            && !place_is_free
        {
            Outlook::Nothing
        } else {
            Outlook::Claimable
        }
    }

    /// Whether a sweep ends the export, and how.
    pub(super) fn swept(&self, now: Micros) -> Option<Status> {
        let past = |time: Option<Micros>| time.is_some_and(|time| time < now);
        let uses_snapshot = matches!(self.state, Status::Planning | Status::Running);
        if self.state == Status::Completed && past(self.expires_at) {
            Some(Status::Expired)
        } else if !self.is_active() || self.live_leases(now) > 0 {
            None
        } else if self.cancel_requested {
            Some(Status::Cancelled)
        } else {
            (past(self.deadline) || uses_snapshot && past(self.snapshot_until)).then_some(Status::Failed)
        }
    }

    pub(super) fn end(&mut self, status: Status) {
        self.state = status;
        self.shards.clear();
        self.has_place = false;
    }

    /// Leases the shard to a claim. A claim of the coordinator begins an attempt, unless it is to finish the export.
    pub(super) fn lease(&mut self, number: i32, claim: ClaimIndex, owner: &str, now: Micros, timeout: Option<Micros>) {
        if self.counts_loss(number, now) {
            self.failures += 1;
            self.count_losses(number);
        }
        let finishes = self.state == Status::Finishing && self.parallelism.is_some();
        if number == COORDINATOR && !finishes {
            self.shards.retain(|number, _| *number == COORDINATOR);
            self.state = Status::Planning;
            self.attempt += 1;
            self.parallelism = None;
            self.paused_until = None;
            self.has_place = self.needs_place;
            let limit = self.deadline_left.take().or(timeout);
            self.deadline = self.deadline.or(limit.map(|left| now + left));
            self.snapshot_until = Some(now + SNAPSHOT_AGE);
        }
        let shard = self.shards.entry(number).or_insert(Shard { state: ShardState::Free, fence: 0 });
        shard.fence += 1;
        shard.state = ShardState::Leased { claim, owner: owner.to_owned(), until: now + LEASE, counted: false };
    }

    /// The loss of a worker is one failure, with however many shards it is lost.
    fn count_losses(&mut self, number: i32) {
        let ShardState::Leased { owner: lost, .. } = self.shards[&number].state.clone() else { return };
        if number == COORDINATOR {
            return;
        }
        for shard in self.shards.values_mut() {
            if let ShardState::Leased { owner, counted, .. } = &mut shard.state {
                *counted |= *owner == lost;
            }
        }
    }

    pub(super) fn holds(&self, number: i32, index: ClaimIndex) -> bool {
        matches!(self.shards.get(&number), Some(Shard { state: ShardState::Leased { claim, .. }, .. }) if *claim == index)
    }

    pub(super) fn set_shard(&mut self, number: i32, state: ShardState) {
        if let Some(shard) = self.shards.get_mut(&number) {
            shard.state = state;
        }
    }

    pub(super) fn renew(&mut self, number: i32, now: Micros) {
        if let Some(ShardState::Leased { until, .. }) = self.shards.get_mut(&number).map(|shard| &mut shard.state) {
            // After the clock has gone back the lease ends earlier than others were told to look for work.
            if *until > now + LEASE {
                self.late_until = self.late_until.max(*until);
            }
            *until = now + LEASE;
        }
    }

    pub(super) fn start_over(&mut self, now: Micros, ready_at: Micros) {
        self.state = Status::Pending;
        self.has_place = false;
        self.ready_at = ready_at;
        for shard in self.shards.values_mut() {
            if let ShardState::Leased { .. } = shard.state {
                shard.state = ShardState::Free;
            }
        }
        // A deadline stands still while an export waits for a place.
        if !self.needs_place {
            self.deadline_left = None;
        } else if let Some(deadline) = self.deadline.take() {
            self.deadline_left = Some((deadline - now).max(0));
        }
    }

    /// Counts a failure, with `seen` failures when the claim was made. Returns whether there will be another try.
    pub(super) fn fail(&mut self, number: i32, seen: i32, failure: ModelFailure, now: Micros) -> bool {
        if self.cancel_requested {
            self.end(Status::Cancelled);
            return false;
        }
        let is_known = !failure.ends_attempt && self.failures > seen;
        self.failures += i32::from(!is_known);
        if failure.is_lasting || (self.failures >= MAX_ATTEMPTS && !is_known) {
            self.end(Status::Failed);
            return false;
        }
        // The longest that the pause can be.
        let pause = if is_known { 0 } else { (SECOND << (self.failures - 1)) * 3 / 2 };
        let until = self.paused_until.unwrap_or(Micros::MIN).max(now + pause);
        self.paused_until = Some(until);
        if failure.ends_attempt {
            self.start_over(now, until);
        } else {
            self.set_shard(number, ShardState::Free);
        }
        true
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct ModelFailure {
    pub(super) is_lasting: bool,
    pub(super) ends_attempt: bool,
}
