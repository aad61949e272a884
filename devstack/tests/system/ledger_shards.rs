//! The ledger of a sharded export: claims of shards, their commits, and when the export starts over.

use std::time::Duration;

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::status::Status;
use polyglot_ledger::{
    Claim, Claimed, Committed, JobKind, Ledger, LedgerError, Planned, Renewal, RetryPolicy, SnapshotHolder,
    StoredShard, Terms,
};
use polyglot_test_kit::wait_until;
use polyglot_test_servers::needs_servers;
use serde_json::json;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use crate::ledger::{ledger_with_pool, ready};

const LONG: Duration = Duration::from_mins(1);
const NONE: Duration = Duration::ZERO;
const RETRY: RetryPolicy =
    RetryPolicy { max_attempts: 3, first_pause: Duration::from_millis(200), longest_pause: Duration::from_millis(200) };

async fn claim(ledger: &Ledger, id: Uuid, lease: Duration) -> Option<Claim> {
    let terms = Terms {
        lease,
        timeout: None,
        snapshot_age: None,
        retry: RETRY,
        max_open_snapshots: 4,
        check_request: |_| Ok(()),
    };
    match ledger.claim(id, "worker", &terms).await.unwrap() {
        Claimed::Work(claim) => Some(*claim),
        Claimed::Nothing => None,
    }
}

fn keeper(snapshot: &str) -> SnapshotHolder<'_> {
    SnapshotHolder { owner: "planner", snapshot, lease: LONG }
}

/// Plans as a worker does.
async fn plan(ledger: &Ledger, id: Uuid, shards: i32, parallelism: u16) {
    let start = claim(ledger, id, LONG).await.unwrap();
    assert!(matches!(start.work, JobKind::Start { .. }), "{start:?}");
    ledger.begin_upload(&start, "key").await.unwrap();
    ledger.record_upload(&start, "key", "upload").await.unwrap();
    let bounds = (1..=shards).map(|number| json!({"from": [number.to_string()]})).collect();
    let planned = Planned { plan: json!({"a": "plan"}), bounds, rows_estimate: Some(9), parallelism };
    assert_eq!(ledger.planned(&start, &planned, keeper("1-1")).await.unwrap(), Renewal::Held);
    // The result of a call that is repeated because its answer was lost.
    assert!(matches!(ledger.planned(&start, &planned, keeper("1-1")).await, Err(LedgerError::LeaseLost)));
}

/// A ledger with an export of so many shards, of which so many may be claimed at once.
async fn sharded(shards: i32, parallelism: u16) -> (Ledger, PgPool, Uuid) {
    let (ledger, pool, id) = ledger_with_pool().await;
    plan(&ledger, id, shards, parallelism).await;
    (ledger, pool, id)
}

fn stored(number: i32) -> StoredShard {
    StoredShard {
        number,
        rows: 10,
        bytes: 100,
        crc32: u32::MAX,
        etag: Some("etag".to_owned()),
        ..StoredShard::default()
    }
}

async fn commit(ledger: &Ledger, claim: &Claim) -> Result<Committed, LedgerError> {
    ledger.commit(claim, &stored(claim.shard), None).await
}

async fn messages(ledger: &Ledger) -> usize {
    ledger.relay::<LedgerError, _>(100, async |_| Ok(())).await.unwrap()
}

fn passing() -> Failure {
    Failure::new(FailureKind::StorageUnavailable, "message", "detail")
}

#[tokio::test]
async fn every_shard_is_done_once_and_the_export_is_finished_after_the_last() {
    needs_servers!();
    let (ledger, pool, id) = sharded(3, 2).await;
    // One from the submission, and one from the plan, for one shard. Claiming it enqueues the message for the next one.
    assert_eq!(messages(&ledger).await, 2);
    let first = claim(&ledger, id, LONG).await.unwrap();
    assert_eq!(messages(&ledger).await, 1);
    let second = claim(&ledger, id, LONG).await.unwrap();
    assert_eq!(messages(&ledger).await, 0, "more at a time than may be");
    assert_eq!((first.shard, second.shard, first.attempt), (1, 2, 1));
    let JobKind::Shard(work) = &second.work else { panic!("{second:?}") };
    assert_eq!((&work.bounds, work.attempt.shards), (&json!({"from": ["2"]}), 3));
    assert_eq!((&*work.attempt.object_key, work.attempt.upload_id.as_deref()), ("key", Some("upload")));
    assert!(claim(&ledger, id, LONG).await.is_none(), "more at a time than may be");
    assert!(ready(&pool).await.is_empty());

    assert_eq!(commit(&ledger, &second).await.unwrap(), Committed::More);
    assert!(matches!(commit(&ledger, &second).await, Err(LedgerError::LeaseLost)), "committed twice");
    assert_eq!(messages(&ledger).await, 1);
    let third = claim(&ledger, id, LONG).await.unwrap();
    assert_eq!(messages(&ledger).await, 0);
    assert_eq!(commit(&ledger, &third).await.unwrap(), Committed::More);
    assert_eq!(messages(&ledger).await, 1);
    assert!(claim(&ledger, id, LONG).await.is_none(), "finished without every shard");
    assert_eq!(commit(&ledger, &first).await.unwrap(), Committed::All);
    assert_eq!(messages(&ledger).await, 1);
    let export = ledger.find(id).await.unwrap().unwrap();
    assert_eq!((export.status, export.rows, export.shards, export.shards_done), (Status::Finishing, 30, 3, 3));
    assert!(!ledger.hold_snapshot(id, 1, keeper("1-1")).await.unwrap(), "a snapshot is kept that nobody reads");

    let finish = claim(&ledger, id, NONE).await.unwrap();
    let JobKind::Finish(cut) = &finish.work else { panic!("{finish:?}") };
    assert_eq!(cut.plan, json!({"a": "plan"}));
    let shards = ledger.stored_shards(id, 0, 2).await.unwrap();
    assert_eq!(shards, [stored(1), stored(2)]);
    assert_eq!(ledger.stored_shards(id, 2, 2).await.unwrap(), [stored(3)]);
    // The finisher is lost: another one goes on, and nothing else is done again.
    let again = claim(&ledger, id, LONG).await.unwrap();
    assert!(matches!(again.work, JobKind::Finish(_)) && again.attempt == 1);
    assert!(matches!(ledger.finishing(&finish).await, Err(LedgerError::LeaseLost)));
    assert_eq!(ledger.finishing(&again).await.unwrap(), Renewal::Held);
}

#[tokio::test]
async fn the_shard_of_a_lost_worker_is_claimed_by_another() {
    needs_servers!();
    let (ledger, _, id) = sharded(3, 3).await;
    let lost = claim(&ledger, id, NONE).await.unwrap();
    let taken = claim(&ledger, id, LONG).await.unwrap();
    assert_eq!((lost.shard, taken.shard), (1, 1));
    assert!(taken.fence > lost.fence);
    assert!(matches!(ledger.renew(&lost, LONG, 0, 0).await, Err(LedgerError::LeaseLost)));
    assert!(matches!(commit(&ledger, &lost).await, Err(LedgerError::LeaseLost)));
    assert!(matches!(ledger.give_back(&lost).await, Err(LedgerError::LeaseLost)));
    assert_eq!(ledger.renew(&taken, LONG, 0, 0).await.unwrap(), Renewal::Held);
    assert_eq!(commit(&ledger, &taken).await.unwrap(), Committed::More);
    // A shard that is given back is claimed next.
    let second = claim(&ledger, id, LONG).await.unwrap();
    ledger.give_back(&second).await.unwrap();
    assert_eq!(claim(&ledger, id, LONG).await.unwrap().shard, second.shard);
}

#[tokio::test]
async fn one_outage_is_one_failure_however_many_shards_meet_it() {
    needs_servers!();
    let (ledger, pool, id) = sharded(8, 8).await;
    let failures =
        async || -> i32 { sqlx::query_scalar("SELECT failures FROM exports").fetch_one(&pool).await.unwrap() };
    for round in 1..3 {
        let mut claims = Vec::new();
        for _ in 0..4 {
            claims.push(claim(&ledger, id, LONG).await.unwrap());
        }
        let late = claims.pop().unwrap();
        for claim in &claims {
            assert!(ledger.fail(claim, &passing(), RETRY).await.unwrap());
        }
        assert_eq!(failures().await, round);
        assert!(claim(&ledger, id, LONG).await.is_none(), "claimed during the pause");
        wait_until("the pause is over", async || ready(&pool).await == [id]).await;
        // A failure that is noticed after the pause adds neither a failure nor another pause.
        assert!(ledger.fail(&late, &passing(), RETRY).await.unwrap());
        assert_eq!(failures().await, round);
        assert_eq!(ready(&pool).await, [id]);
    }
    // A committed shard resets the failures.
    let done = claim(&ledger, id, LONG).await.unwrap();
    commit(&ledger, &done).await.unwrap();
    assert_eq!(failures().await, 0);
    let export = ledger.find(id).await.unwrap().unwrap();
    assert_eq!((export.status, export.attempt, export.shards_done), (Status::Running, 1, 1));
    // A lasting failure of one shard is the export's.
    let failing = claim(&ledger, id, LONG).await.unwrap();
    let held = claim(&ledger, id, LONG).await.unwrap();
    let lasting = Failure::new(FailureKind::Unrepresentable, "message", "detail");
    assert!(!ledger.fail(&failing, &lasting, RETRY).await.unwrap());
    assert!(matches!(ledger.renew(&held, LONG, 0, 0).await, Err(LedgerError::LeaseLost)));
    assert_eq!(ledger.find(id).await.unwrap().unwrap().status, Status::Failed);
}

/// Where ledger and source share a database, the export's own snapshot preserves every version of a row. If each of thousands
/// of shards updated the export's row, each update would read all versions before it.
#[tokio::test]
async fn progress_is_counted_from_the_shards_and_commits_leave_the_export_s_row_alone() {
    needs_servers!();
    let (ledger, pool, id) = sharded(8, 8).await;
    let version =
        async || -> String { sqlx::query_scalar("SELECT ctid::text FROM exports").fetch_one(&pool).await.unwrap() };
    let mut claims = Vec::new();
    for _ in 0..4 {
        claims.push(claim(&ledger, id, LONG).await.unwrap());
    }
    let before = version().await;
    // Not in the order of the rows.
    for (done, claim) in claims.iter().rev().enumerate() {
        commit(&ledger, claim).await.unwrap();
        let export = ledger.find(id).await.unwrap().unwrap();
        let done = i64::try_from(done).unwrap() + 1;
        assert_eq!((i64::from(export.shards_done), export.rows, export.bytes), (done, done * 10, done * 100));
    }
    assert_eq!(version().await, before);
    let failing = claim(&ledger, id, LONG).await.unwrap();
    assert_eq!(failing.shard, 5);
    let lasting = Failure::new(FailureKind::Unrepresentable, "message", "detail");
    ledger.fail(&failing, &lasting, RETRY).await.unwrap();
    let export = ledger.find(id).await.unwrap().unwrap();
    assert_eq!(
        (export.status, export.shards_done, export.rows),
        (Status::Failed, 4, 40),
        "how far it came is forgotten"
    );
}

#[tokio::test]
async fn without_its_snapshot_an_export_starts_over_and_mixes_nothing() {
    needs_servers!();
    let (ledger, pool, id) = sharded(3, 3).await;
    let first = claim(&ledger, id, LONG).await.unwrap();
    let second = claim(&ledger, id, LONG).await.unwrap();
    commit(&ledger, &first).await.unwrap();
    assert!(ledger.hold_snapshot(id, 1, SnapshotHolder { owner: "other", ..keeper("2-2") }).await.unwrap());
    assert_eq!(ledger.snapshots(id, 1).await.unwrap(), ["2-2", "1-1"]);
    let lost = Failure::new(FailureKind::SnapshotLost, "message", "detail");
    assert!(ledger.fail_attempt(&second, &lost, RETRY).await.unwrap());
    assert!(!ledger.hold_snapshot(id, 1, keeper("1-1")).await.unwrap(), "the old snapshot is kept");
    wait_until("the pause is over", async || ready(&pool).await == [id]).await;
    plan(&ledger, id, 2, 2).await;
    assert!(ledger.stored_shards(id, 0, 9).await.unwrap().is_empty(), "shards of two snapshots");
    assert!(ledger.snapshots(id, 1).await.unwrap().is_empty());
    assert_eq!(claim(&ledger, id, LONG).await.unwrap().attempt, 2);
    assert!(matches!(commit(&ledger, &second).await, Err(LedgerError::LeaseLost)));
}

#[tokio::test]
async fn a_shard_that_is_too_small_makes_the_next_plan_coarser_and_is_no_failure() {
    needs_servers!();
    let (ledger, pool, id) = sharded(3, 3).await;
    let small = claim(&ledger, id, LONG).await.unwrap();
    ledger.too_small(&small).await.unwrap();
    let start = claim(&ledger, id, LONG).await.unwrap();
    assert!(matches!(start.work, JobKind::Start { shard_size_step: 1 }), "{start:?}");
    let failures: i32 = sqlx::query_scalar("SELECT failures FROM exports").fetch_one(&pool).await.unwrap();
    assert_eq!((failures, start.attempt), (0, 2));
}

#[tokio::test]
async fn a_cancelled_export_ends_with_whoever_notices_first() {
    needs_servers!();
    let (ledger, pool, id) = sharded(3, 3).await;
    let (first, second) = (claim(&ledger, id, LONG).await.unwrap(), claim(&ledger, id, LONG).await.unwrap());
    ledger.delete(id).await.unwrap();
    assert_eq!(ledger.renew(&first, LONG, 0, 0).await.unwrap(), Renewal::CancelRequested);
    assert_eq!(commit(&ledger, &second).await.unwrap(), Committed::CancelRequested);
    ledger.cancelled(&second).await.unwrap();
    assert!(matches!(ledger.renew(&first, LONG, 0, 0).await, Err(LedgerError::LeaseLost)));
    assert_eq!(ledger.find(id).await.unwrap().unwrap().status, Status::Cancelled);
    let left: i64 = sqlx::query_scalar("SELECT (SELECT count(*) FROM shards) + (SELECT count(*) FROM keepers)")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_snapshot_that_is_too_old_ends_its_export() {
    needs_servers!();
    let (ledger, pool, id) = sharded(2, 2).await;
    sqlx::query("UPDATE exports SET snapshot_until = now() - interval '1 second'").execute(&pool).await.unwrap();
    assert_eq!(ledger.sweep().await.unwrap().unwrap().overdue, 1);
    let export = ledger.find(id).await.unwrap().unwrap();
    assert_eq!((export.status, export.error_code.as_deref()), (Status::Failed, Some("snapshot_too_old")));
}
