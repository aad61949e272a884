//! What the holder of a claim does next. A call with a claim that is not valid any more has to fail with `LeaseLost`; one with
//! a valid claim has to do what the model does.

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::manifest::Manifest;
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_core::status::Status;
use polyglot_ledger::{
    Committed, Finished, JobKind, LedgerError, PlaceRequest, Planned, Renewal, SnapshotHolder, StoredShard,
};
use serde_json::json;

use super::model::{COORDINATOR, Export, LEASE, ModelFailure, RETENTION, SECOND, Shard, ShardState};
use super::world::{Checked, HeldClaim, Phase, World, duration, refused, retry};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    TakePlace,
    WaitForPlace,
    Plan,
    Stream,
    Renew,
    Commit,
    Fail,
    FailForGood,
    FailAttempt,
    TooSmall,
    Blocked,
    GiveBack,
    Finishing,
    Complete,
    Cancelled,
}

/// The action of a holder in that phase, by a number below 16.
fn action(phase: Phase, work: &JobKind, choice: u8) -> Action {
    use Action::{
        Blocked, Cancelled, Commit, Complete, Fail, FailAttempt, FailForGood, Finishing, GiveBack, Plan, Renew, Stream,
        TakePlace, TooSmall, WaitForPlace,
    };
    let actions: &[Action] = match phase {
        Phase::Started => &[
            TakePlace,
            TakePlace,
            TakePlace,
            TakePlace,
            TakePlace,
            TakePlace,
            TakePlace,
            TakePlace,
            TakePlace,
            Stream,
            Stream,
            Stream,
            Renew,
            Fail,
            GiveBack,
            FailForGood,
        ],
        Phase::Placed => {
            &[Plan, Plan, Plan, Plan, Plan, Plan, Plan, Plan, Plan, Plan, Plan, Stream, Stream, Renew, Fail, GiveBack]
        }
        Phase::Denied => {
            &[WaitForPlace, WaitForPlace, WaitForPlace, WaitForPlace, WaitForPlace, WaitForPlace, Renew, Fail]
        }
        Phase::Streaming => &[Finishing, Finishing, Finishing, Complete, Renew, Renew, Fail, GiveBack, Stream],
        Phase::Reading => &[
            Commit,
            Commit,
            Commit,
            Commit,
            Commit,
            Commit,
            Renew,
            Fail,
            FailAttempt,
            FailAttempt,
            TooSmall,
            TooSmall,
            Blocked,
            GiveBack,
            Renew,
            FailForGood,
        ],
        Phase::Finishing => &[Finishing, Complete, Complete, Complete, Renew, Fail, FailAttempt, GiveBack],
        Phase::Cancelled => &[Cancelled, Cancelled, Cancelled, Renew],
        Phase::Spent => match work {
            JobKind::Start { .. } => &[
                TakePlace,
                Plan,
                Stream,
                WaitForPlace,
                Renew,
                Fail,
                GiveBack,
                Finishing,
                Complete,
                Cancelled,
                FailAttempt,
            ],
            JobKind::Shard(_) => {
                &[Commit, Renew, Fail, FailAttempt, TooSmall, Blocked, GiveBack, Cancelled, Commit, Renew]
            }
            JobKind::Finish(_) => &[Finishing, Complete, Renew, Fail, FailAttempt, GiveBack, Cancelled],
        },
    };
    actions[usize::from(choice) % actions.len()]
}

impl World<'_> {
    pub(super) async fn work(&mut self, at: usize, choice: u8) -> Checked {
        let HeldClaim { claim, phase, export, .. } = &self.claims[at];
        let action = action(*phase, &claim.work, choice);
        let what = format!(
            "{action:?} by the holder of export {}, attempt {}, shard {}, fence {}",
            export + 1,
            claim.attempt,
            claim.shard,
            claim.fence
        );
        self.note(&what);
        self.act(at, action, choice).await
    }

    /// Does the next piece of a claim's work without any failure.
    pub(super) async fn work_honestly(&mut self, at: usize) -> Checked {
        let is_large = self.claims[at].export.is_multiple_of(2);
        let action = match self.claims[at].phase {
            Phase::Started if is_large => Action::TakePlace,
            Phase::Started => Action::Stream,
            Phase::Placed => Action::Plan,
            Phase::Denied => Action::WaitForPlace,
            Phase::Streaming | Phase::Finishing => Action::Complete,
            Phase::Reading => Action::Commit,
            Phase::Cancelled => Action::Cancelled,
            Phase::Spent => return Ok(()),
        };
        self.note(&format!("{action:?}"));
        self.act(at, action, 0).await
    }

    /// The answer of a call with the claim; `None` if the claim was taken over.
    fn answer<T>(&self, at: usize, answer: Result<T, LedgerError>) -> Checked<Option<T>> {
        match (answer, self.is_valid(at)) {
            (Ok(answer), true) => Ok(Some(answer)),
            (Err(LedgerError::LeaseLost), false) => Ok(None),
            (Ok(_), false) => Err("a call succeeded whose claim was taken over or has ended".to_owned()),
            (Err(LedgerError::LeaseLost), true) => Err("a call failed whose claim is valid".to_owned()),
            (Err(error), _) => Err(refused(error)),
        }
    }

    pub(super) async fn begin_upload(&mut self, at: usize, multipart: bool) -> Checked {
        let HeldClaim { claim, export, .. } = &self.claims[at];
        let (attempt, export) = (claim.attempt, *export);
        let key = object_key(export, attempt);
        let begun = self.ledger.begin_upload(claim, &key).await;
        if self.answer(at, begun)?.is_some() {
            self.exports[export].uploads.insert(attempt);
        }
        if multipart {
            let recorded = self.ledger.record_upload(&self.claims[at].claim, &key, "upload").await;
            self.answer(at, recorded)?;
        }
        Ok(())
    }

    pub(super) fn apply_place(&mut self, at: usize, answer: PlaceRequest) {
        let export = &mut self.exports[self.claims[at].export];
        self.claims[at].phase = match answer {
            PlaceRequest::Granted => {
                (export.needs_place, export.has_place, export.is_small) = (true, true, false);
                Phase::Placed
            }
            PlaceRequest::Denied => Phase::Denied,
            PlaceRequest::CancelRequested => Phase::Cancelled,
        };
    }

    async fn act(&mut self, at: usize, action: Action, choice: u8) -> Checked {
        match action {
            Action::TakePlace => self.take_place(at).await,
            Action::WaitForPlace => self.wait_for_place(at).await,
            Action::Plan => self.plan(at, choice).await,
            Action::Stream => self.stream(at, choice).await,
            Action::Renew => self.renew(at).await,
            Action::Commit => self.commit(at).await,
            Action::Fail | Action::FailForGood | Action::FailAttempt => self.fail(at, action).await,
            Action::TooSmall => self.too_small(at).await,
            Action::Blocked => self.blocked(at).await,
            Action::GiveBack => self.give_back(at).await,
            Action::Finishing => self.finishing(at).await,
            Action::Complete => self.complete(at).await,
            Action::Cancelled => self.cancelled(at).await,
        }
    }

    fn parts(&mut self, at: usize) -> (&mut Export, &mut HeldClaim) {
        let held = &mut self.claims[at];
        (&mut self.exports[held.export], held)
    }

    async fn take_place(&mut self, at: usize) -> Checked {
        self.begin_upload(at, false).await?;
        let answer = self.ledger.take_place(&self.claims[at].claim, self.places).await;
        let Some(answer) = self.answer(at, answer)? else { return Ok(()) };
        let is_free = self.free_places() > 0;
        let export = &self.exports[self.claims[at].export];
        let expected = if export.cancel_requested {
            PlaceRequest::CancelRequested
        } else if export.has_place || is_free {
            PlaceRequest::Granted
        } else {
            PlaceRequest::Denied
        };
        equal("the answer to the request for a place", answer, expected)?;
        self.apply_place(at, answer);
        Ok(())
    }

    async fn wait_for_place(&mut self, at: usize) -> Checked {
        let answer = self.ledger.wait_for_place(&self.claims[at].claim).await;
        let (answer, now) = (self.answer(at, answer)?, self.now);
        let (export, held) = self.parts(at);
        held.phase = Phase::Spent;
        if answer.is_some() {
            if export.cancel_requested {
                export.end(Status::Cancelled);
            } else {
                (export.needs_place, export.is_small) = (true, false);
                export.start_over(now, now);
            }
        }
        Ok(())
    }

    async fn plan(&mut self, at: usize, choice: u8) -> Checked {
        self.begin_upload(at, true).await?;
        let shards = usize::from(choice % 3) + 1;
        let parallelism = u16::from(choice % 2) + 1;
        let planned = Planned { plan: json!({}), bounds: vec![json!({}); shards], rows_estimate: None, parallelism };
        let HeldClaim { claim, owner, .. } = &self.claims[at];
        let holder = SnapshotHolder { owner, snapshot: "snapshot", lease: duration(LEASE) };
        let answer = self.ledger.planned(claim, &planned, holder).await;
        let Some(answer) = self.answer(at, answer)? else { return Ok(()) };
        self.renewed(at, answer)?;
        let (export, held) = self.parts(at);
        if answer == Renewal::CancelRequested {
            held.phase = Phase::Cancelled;
            return Ok(());
        }
        held.phase = Phase::Spent;
        export.state = Status::Running;
        export.parallelism = Some(usize::from(parallelism));
        export.set_shard(COORDINATOR, ShardState::Free);
        for number in 1..=i32::try_from(shards).expect("there are three at most") {
            export.shards.insert(number, Shard { state: ShardState::Free, fence: 0 });
        }
        Ok(())
    }

    async fn stream(&mut self, at: usize, choice: u8) -> Checked {
        self.begin_upload(at, choice.is_multiple_of(2)).await?;
        let answer = self.ledger.streaming(&self.claims[at].claim, None, SingleStreamReason::Small).await;
        let Some(answer) = self.answer(at, answer)? else { return Ok(()) };
        self.renewed(at, answer)?;
        let (export, held) = self.parts(at);
        held.phase = if answer == Renewal::CancelRequested { Phase::Cancelled } else { Phase::Streaming };
        export.state = Status::Running;
        (export.needs_place, export.has_place) = (false, false);
        Ok(())
    }

    async fn renew(&mut self, at: usize) -> Checked {
        let answer = self.ledger.renew(&self.claims[at].claim, duration(LEASE), 1, 1).await;
        let Some(answer) = self.answer(at, answer)? else { return Ok(()) };
        self.renewed(at, answer)?;
        let now = self.now;
        let (export, held) = self.parts(at);
        export.renew(held.claim.shard, now);
        if answer == Renewal::CancelRequested {
            held.phase = Phase::Cancelled;
        }
        Ok(())
    }

    async fn commit(&mut self, at: usize) -> Checked {
        let claim = &self.claims[at].claim;
        let etag = Some(etag(claim.attempt, claim.fence));
        let stored = StoredShard { number: claim.shard, rows: 1, bytes: 1, etag, ..StoredShard::default() };
        let answer = self.ledger.commit(claim, &stored, Some(1)).await;
        let Some(answer) = self.answer(at, answer)? else { return Ok(()) };
        let (export, held) = self.parts(at);
        held.phase = Phase::Spent;
        if export.cancel_requested {
            held.phase = Phase::Cancelled;
            return equal("the answer to a commit", answer, Committed::CancelRequested);
        }
        export.set_shard(held.claim.shard, ShardState::Committed);
        export.failures = 0;
        let is_done = |(number, shard): (&i32, &Shard)| *number == COORDINATOR || shard.state == ShardState::Committed;
        let all = export.shards.iter().all(is_done);
        if all {
            export.state = Status::Finishing;
            export.has_place = false;
        }
        equal("the answer to a commit", answer, if all { Committed::All } else { Committed::More })
    }

    async fn fail(&mut self, at: usize, action: Action) -> Checked {
        let is_lasting = action == Action::FailForGood;
        let kind = if is_lasting { FailureKind::Unrepresentable } else { FailureKind::StorageUnavailable };
        let failure = Failure::new(kind, "message", "detail");
        let claim = &self.claims[at].claim;
        let answer = if action == Action::FailAttempt {
            self.ledger.fail_attempt(claim, &failure, retry()).await
        } else {
            self.ledger.fail(claim, &failure, retry()).await
        };
        let ends_attempt = action == Action::FailAttempt || matches!(claim.work, JobKind::Start { .. });
        let answer = self.answer(at, answer)?;
        self.apply_failure(at, answer, ModelFailure { is_lasting, ends_attempt })
    }

    fn apply_failure(&mut self, at: usize, answer: Option<bool>, failure: ModelFailure) -> Checked {
        let now = self.now;
        let (export, held) = self.parts(at);
        held.phase = Phase::Spent;
        let Some(answer) = answer else { return Ok(()) };
        let again = export.fail(held.claim.shard, held.failures, failure, now);
        equal("whether there is another try", answer, again)
    }

    async fn too_small(&mut self, at: usize) -> Checked {
        let answer = self.ledger.too_small(&self.claims[at].claim).await;
        let (answer, now) = (self.answer(at, answer)?, self.now);
        let (export, held) = self.parts(at);
        held.phase = Phase::Spent;
        if answer.is_some() {
            export.start_over(now, now);
        }
        Ok(())
    }

    async fn blocked(&mut self, at: usize) -> Checked {
        let failure = Failure::new(FailureKind::SourceUnavailable, "message", "detail");
        let answer = self.ledger.blocked(&self.claims[at].claim, &failure, retry()).await;
        let (answer, now) = (self.answer(at, answer)?, self.now);
        let (export, held) = self.parts(at);
        let own = export
            .shards
            .get(&held.claim.shard)
            .is_some_and(|shard| matches!(shard.state, ShardState::Leased { until, .. } if until >= now));
        let has_others = export.live_leases(now) > usize::from(own);
        if answer.is_none() || !has_others || export.cancel_requested {
            return self.apply_failure(at, answer, ModelFailure { is_lasting: false, ends_attempt: true });
        }
        held.phase = Phase::Spent;
        export.set_shard(held.claim.shard, ShardState::Free);
        export.late_until = now + LEASE + 5 * SECOND;
        equal("whether there is another try", answer, Some(true))
    }

    async fn give_back(&mut self, at: usize) -> Checked {
        let answer = self.ledger.give_back(&self.claims[at].claim).await;
        let (answer, now) = (self.answer(at, answer)?, self.now);
        let (export, held) = self.parts(at);
        held.phase = Phase::Spent;
        match held.claim.work {
            _ if answer.is_none() => {}
            JobKind::Start { .. } => export.start_over(now, now),
            JobKind::Shard(_) | JobKind::Finish(_) => export.set_shard(held.claim.shard, ShardState::Free),
        }
        Ok(())
    }

    async fn finishing(&mut self, at: usize) -> Checked {
        let answer = self.ledger.finishing(&self.claims[at].claim).await;
        let Some(answer) = self.answer(at, answer)? else { return Ok(()) };
        self.renewed(at, answer)?;
        let (export, held) = self.parts(at);
        held.phase = if answer == Renewal::CancelRequested { Phase::Cancelled } else { Phase::Finishing };
        export.state = Status::Finishing;
        Ok(())
    }

    async fn complete(&mut self, at: usize) -> Checked {
        let HeldClaim { claim, export, .. } = &self.claims[at];
        let (attempt, export) = (claim.attempt, *export);
        if let JobKind::Finish(sharded) = &claim.work
            && self.is_valid(at)
        {
            self.check_stored(claim.export_id, attempt, sharded.shards, export).await?;
        }
        let finished = Finished {
            object_key: object_key(export, attempt),
            etag: None,
            peak_memory_bytes: None,
            manifest: Manifest { rows: 1, bytes: 1, ..Manifest::default() },
        };
        let answer = self.ledger.complete(claim, &finished, Some(duration(RETENTION))).await;
        let Some(answer) = self.answer(at, answer)? else { return Ok(()) };
        self.renewed(at, answer)?;
        let now = self.now;
        let (export, held) = self.parts(at);
        if answer == Renewal::CancelRequested {
            held.phase = Phase::Cancelled;
            return Ok(());
        }
        held.phase = Phase::Spent;
        export.end(Status::Completed);
        export.published = Some(attempt);
        export.expires_at = Some(now + RETENTION);
        Ok(())
    }

    /// The shards that are put together are all of this attempt, each as its committed claim has stored it.
    async fn check_stored(&self, id: uuid::Uuid, attempt: i32, shards: i32, export: usize) -> Checked {
        let stored = self.ledger.stored_shards(id, 0, 100).await.map_err(refused)?;
        let found: Vec<_> = stored.into_iter().map(|shard| (shard.number, shard.etag)).collect();
        let model = &self.exports[export].shards;
        let expected: Vec<_> =
            (1..=shards).map(|number| (number, model.get(&number).map(|shard| etag(attempt, shard.fence)))).collect();
        equal("the shards of the file", found, expected)
    }

    async fn cancelled(&mut self, at: usize) -> Checked {
        let answer = self.ledger.cancelled(&self.claims[at].claim).await;
        let answer = self.answer(at, answer)?;
        let (export, held) = self.parts(at);
        held.phase = Phase::Spent;
        if answer.is_some() {
            export.end(Status::Cancelled);
        }
        Ok(())
    }

    fn renewed(&self, at: usize, answer: Renewal) -> Checked {
        let cancel_requested = self.exports[self.claims[at].export].cancel_requested;
        equal("whether cancelling was requested", answer == Renewal::CancelRequested, cancel_requested)
    }
}

fn object_key(export: usize, attempt: i32) -> String {
    format!("export {export}, attempt {attempt}")
}

fn etag(attempt: i32, fence: i64) -> String {
    format!("attempt {attempt}, fence {fence}")
}

#[expect(clippy::needless_pass_by_value, reason = "takes what a call gives")]
fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Checked {
    if found == expected { Ok(()) } else { Err(format!("{what} is {found:?}, not {expected:?}")) }
}
