//! Places for snapshots, and whose turn it is, on a ledger alone with several tenants.

use std::time::{Duration, Instant};

use polyglot_core::expected_size::ExpectedSize;
use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_core::status::Status;
use polyglot_ledger::{
    Claim, Committed, JobKind, Ledger, PlaceRequest, Planned, Renewal, RetryPolicy, SnapshotHolder, StoredShard,
    Submission, Terms, Turn, WaitReason, Waiting,
};
use polyglot_test_kit::wait_until;
use polyglot_test_servers::needs_servers;
use serde_json::json;
use sqlx::postgres::PgPool;
use sqlx::types::chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::ledger::{finished, ledger_with_pool, request, terms};

const LONG: Duration = Duration::from_mins(1);
/// Places, unless a test says otherwise.
const PLACES: u16 = 2;

/// An empty ledger, and connections to its database.
async fn empty_ledger() -> (Ledger, PgPool) {
    let (ledger, pool, id) = ledger_with_pool().await;
    sqlx::query("DELETE FROM exports WHERE id = $1").bind(id).execute(&pool).await.unwrap();
    (ledger, pool)
}

async fn submit(ledger: &Ledger, tenant: &str) -> Uuid {
    ledger.submit(tenant, &request("id")).await.unwrap()
}

fn two_places() -> Terms {
    Terms { max_open_snapshots: PLACES, ..terms(LONG) }
}

async fn next(ledger: &Ledger, first: Turn) -> Option<Claim> {
    ledger.claim_next("worker", &two_places(), first).await.unwrap().map(|claim| *claim)
}

/// Claims the next export that waits.
async fn next_waiting(ledger: &Ledger) -> Claim {
    let claim = next(ledger, Turn::Waiting).await.expect("an export waits");
    assert!(matches!(claim.work, JobKind::Start { .. }), "{:?}", claim.work);
    claim
}

/// Stores a plan of so many shards under the claim.
async fn plan(ledger: &Ledger, claim: &Claim, shards: usize) {
    ledger.begin_upload(claim, "key").await.unwrap();
    ledger.record_upload(claim, "key", "upload").await.unwrap();
    let planned = Planned { plan: json!({}), bounds: vec![json!({}); shards], rows_estimate: None, parallelism: 8 };
    let holder = SnapshotHolder { owner: "worker", snapshot: "snapshot", lease: LONG };
    assert_eq!(ledger.planned(claim, &planned, holder).await.unwrap(), Renewal::Held);
}

/// Takes a place and plans, like a worker that finds the export to be large. Returns whether there was a place; if not, the
/// export waits for one.
async fn begin_large(ledger: &Ledger, claim: &Claim) -> bool {
    match ledger.take_place(claim, PLACES).await.unwrap() {
        PlaceRequest::Granted => {
            plan(ledger, claim, 2).await;
            true
        }
        PlaceRequest::Denied => {
            ledger.wait_for_place(claim).await.unwrap();
            false
        }
        PlaceRequest::CancelRequested => panic!("nobody has cancelled it"),
    }
}

/// Does the claimed piece of a sharded export.
async fn work(ledger: &Ledger, claim: &Claim) {
    if let JobKind::Finish(_) = claim.work {
        assert_eq!(ledger.complete(claim, &finished(), None).await.unwrap(), Renewal::Held);
    } else {
        let stored = StoredShard { number: claim.shard, ..StoredShard::default() };
        assert_ne!(ledger.commit(claim, &stored, None).await.unwrap(), Committed::CancelRequested);
    }
}

async fn waiting(ledger: &Ledger, id: Uuid) -> Option<Waiting> {
    ledger.find(id).await.unwrap().unwrap().waiting
}

#[tokio::test]
async fn a_large_export_without_a_place_waits_and_small_ones_pass_it() {
    needs_servers!();
    let (ledger, pool) = empty_ledger().await;
    let mut large = Vec::new();
    for _ in 0..4 {
        large.push(submit(&ledger, "a").await);
    }
    for (n, id) in large.iter().enumerate() {
        let claim = next_waiting(&ledger).await;
        assert_eq!(claim.export_id, *id);
        assert_eq!(begin_large(&ledger, &claim).await, n < 2, "{n}");
    }
    assert_eq!(waiting(&ledger, large[0]).await, None);
    assert_eq!(waiting(&ledger, large[2]).await, Some(Waiting { reason: WaitReason::Places, before: 0 }));
    assert_eq!(waiting(&ledger, large[3]).await, Some(Waiting { reason: WaitReason::Places, before: 1 }));
    let waited = ledger.find(large[2]).await.unwrap().unwrap();
    assert_eq!((waited.status, waited.error_code), (Status::Pending, None));
    let (failures, deadline): (i32, Option<DateTime<Utc>>) =
        sqlx::query_as("SELECT failures, deadline_at FROM exports WHERE id = $1")
            .bind(large[2])
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!((failures, deadline), (0, None));

    // A later one that needs no place.
    let small = submit(&ledger, "a").await;
    assert_eq!(waiting(&ledger, small).await, Some(Waiting { reason: WaitReason::Workers, before: 0 }));
    let claim = next_waiting(&ledger).await;
    assert_eq!(claim.export_id, small);
    assert_eq!(ledger.streaming(&claim, None, SingleStreamReason::Small).await.unwrap(), Renewal::Held);
    assert_eq!(ledger.complete(&claim, &finished(), None).await.unwrap(), Renewal::Held);
    // Nothing waits that may begin: the other kind of work is next.
    assert_eq!(next(&ledger, Turn::Waiting).await.unwrap().export_id, large[0]);
}

#[tokio::test]
async fn a_small_export_passes_those_that_have_to_be_planned_first() {
    needs_servers!();
    let (ledger, pool) = empty_ledger().await;
    for _ in 0..100 {
        submit(&ledger, "a").await;
    }
    let begun = next_waiting(&ledger).await;
    assert!(begin_large(&ledger, &begun).await);
    let wanted = request("id");
    let sized = async |expected_size| {
        ledger.accept(Submission { expected_size, ..Submission::new("a", &wanted) }).await.unwrap().id
    };
    let (small, large) = (sized(ExpectedSize::Small).await, sized(ExpectedSize::Large).await);
    assert_eq!(waiting(&ledger, small).await, Some(Waiting { reason: WaitReason::Workers, before: 0 }));
    assert_eq!(waiting(&ledger, large).await, Some(Waiting { reason: WaitReason::Places, before: 0 }));
    // A worker's turns: begun work, small ones, all that wait.
    let mut claimed = Vec::new();
    for turn in 0..6 {
        let claim = next(&ledger, Turn::nth(turn)).await.expect("there is work");
        claimed.push(claim.export_id);
        if claim.export_id == small {
            ledger.streaming(&claim, None, SingleStreamReason::Small).await.unwrap();
            ledger.complete(&claim, &finished(), None).await.unwrap();
        }
    }
    assert_eq!(claimed[..2], [begun.export_id, small]);
    let of_begun = claimed.iter().filter(|id| **id == begun.export_id).count();
    assert!(of_begun >= 2, "begun work goes on: {claimed:?}");
    // One that was taken for small and is not waits with the large ones.
    let wrong = sized(ExpectedSize::Small).await;
    let claim = next(&ledger, Turn::Small).await.unwrap();
    assert_eq!(claim.export_id, wrong);
    ledger.wait_for_place(&claim).await.unwrap();
    let is_small: bool =
        sqlx::query_scalar("SELECT is_small FROM exports WHERE id = $1").bind(wrong).fetch_one(&pool).await.unwrap();
    assert!(!is_small);
}

#[tokio::test]
async fn an_export_that_is_expected_to_be_large_begins_with_its_place() {
    needs_servers!();
    let (ledger, _) = empty_ledger().await;
    let wanted = request("id");
    let large = Submission { expected_size: ExpectedSize::Large, ..Submission::new("a", &wanted) };
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(ledger.accept(large).await.unwrap().id);
    }
    for id in &ids[..2] {
        let claim = next_waiting(&ledger).await;
        assert_eq!((claim.export_id, claim.has_place), (*id, true));
    }
    // Nothing is planned for the third before there is a place.
    assert_eq!(waiting(&ledger, ids[2]).await, Some(Waiting { reason: WaitReason::Places, before: 0 }));
    assert!(next(&ledger, Turn::Waiting).await.is_none());
    let claim = ledger.claim(ids[2], "worker", &two_places()).await.unwrap();
    assert!(matches!(claim, polyglot_ledger::Claimed::Nothing), "{claim:?}");
}

#[tokio::test]
async fn a_place_is_given_back_when_every_shard_is_committed() {
    needs_servers!();
    let (ledger, pool) = empty_ledger().await;
    for _ in 0..3 {
        submit(&ledger, "a").await;
    }
    let mut waits = None;
    for _ in 0..3 {
        let claim = next_waiting(&ledger).await;
        if !begin_large(&ledger, &claim).await {
            waits = Some(claim.export_id);
        }
    }
    let waits = waits.expect("there are two places");
    sqlx::query("DELETE FROM outbox").execute(&pool).await.unwrap();
    let mut announced = false;
    while !announced {
        let claim = next(&ledger, Turn::Begun).await.expect("a shard is left");
        assert_ne!(claim.export_id, waits, "it began without a place");
        work(&ledger, &claim).await;
        announced = sqlx::query_scalar("SELECT EXISTS (SELECT FROM outbox WHERE export_id = $1)")
            .bind(waits)
            .fetch_one(&pool)
            .await
            .unwrap();
    }
    let claim = next_waiting(&ledger).await;
    assert_eq!((claim.export_id, claim.has_place), (waits, true));
    assert!(begin_large(&ledger, &claim).await, "it has a place already");
}

#[tokio::test]
async fn a_place_is_given_back_however_the_attempt_ends() {
    needs_servers!();
    let failure = Failure::new(FailureKind::SnapshotLost, "message", "detail");
    for end in ["fail", "fail for good", "stream", "give back", "cancel", "lost", "too small"] {
        let (ledger, pool) = empty_ledger().await;
        let one = Terms { max_open_snapshots: 1, ..terms(LONG) };
        let (first, second) = (submit(&ledger, "a").await, submit(&ledger, "a").await);
        let claim = ledger.claim_next("worker", &one, Turn::Waiting).await.unwrap().unwrap();
        assert_eq!(claim.export_id, first);
        assert_eq!(ledger.take_place(&claim, 1).await.unwrap(), PlaceRequest::Granted);
        let other = ledger.claim_next("worker", &one, Turn::Waiting).await.unwrap().unwrap();
        assert_eq!((other.export_id, ledger.take_place(&other, 1).await.unwrap()), (second, PlaceRequest::Denied));
        ledger.wait_for_place(&other).await.unwrap();
        match end {
            "fail" => assert!(ledger.fail(&claim, &failure, RetryPolicy::new(3)).await.unwrap()),
            "fail for good" => assert!(!ledger.fail(&claim, &failure, RetryPolicy::new(1)).await.unwrap()),
            "stream" => {
                ledger.streaming(&claim, None, SingleStreamReason::Small).await.unwrap();
            }
            "give back" => ledger.give_back(&claim).await.unwrap(),
            "too small" => ledger.too_small(&claim).await.unwrap(),
            "cancel" => {
                ledger.delete(first).await.unwrap();
                ledger.cancelled(&claim).await.unwrap();
            }
            // Its lease ends, another worker begins it again and keeps its place.
            _ => {
                sqlx::query("UPDATE shards SET leased_until = now() - interval '1 second'")
                    .execute(&pool)
                    .await
                    .unwrap();
                sqlx::query("UPDATE exports SET ready_at = now() WHERE id = $1")
                    .bind(first)
                    .execute(&pool)
                    .await
                    .unwrap();
                let again = ledger.claim_next("other", &one, Turn::Begun).await.unwrap().unwrap();
                assert_eq!((again.export_id, again.has_place), (first, true), "{end}");
                continue;
            }
        }
        let next = ledger.claim(second, "worker", &one).await.unwrap();
        assert!(matches!(next, polyglot_ledger::Claimed::Work(_)), "{end}: the place is not free");
        let taken: i64 =
            sqlx::query_scalar("SELECT count(*) FROM exports WHERE has_place AND state IN ('planning', 'running')")
                .fetch_one(&pool)
                .await
                .unwrap();
        assert_eq!(taken, 1, "{end}");
    }
}

#[tokio::test]
async fn the_deadline_stands_still_while_an_export_waits_for_a_place() {
    needs_servers!();
    let (ledger, pool) = empty_ledger().await;
    let terms = Terms { timeout: Some(Duration::from_mins(10)), max_open_snapshots: 1, ..terms(LONG) };
    let (first, second) = (submit(&ledger, "a").await, submit(&ledger, "a").await);
    let claim = ledger.claim_next("worker", &terms, Turn::Waiting).await.unwrap().unwrap();
    ledger.take_place(&claim, 1).await.unwrap();
    let other = ledger.claim_next("worker", &terms, Turn::Waiting).await.unwrap().unwrap();
    assert_eq!(ledger.take_place(&other, 1).await.unwrap(), PlaceRequest::Denied);
    // Seven of the ten minutes are used.
    sqlx::query("UPDATE exports SET deadline_at = now() + interval '3 minutes' WHERE id = $1")
        .bind(second)
        .execute(&pool)
        .await
        .unwrap();
    ledger.wait_for_place(&other).await.unwrap();
    // However long the wait is, no sweep ends the export.
    assert_eq!(ledger.sweep().await.unwrap().unwrap().overdue, 0);
    ledger.delete(first).await.unwrap();
    ledger.cancelled(&claim).await.unwrap();
    let begun = ledger.claim_next("worker", &terms, Turn::Waiting).await.unwrap().unwrap();
    assert_eq!(begun.export_id, second);
    let left = begun.deadline.unwrap() - Utc::now();
    assert!((170..=180).contains(&left.num_seconds()), "{left}");
}

#[tokio::test]
async fn tenants_take_turns_however_much_one_has_queued() {
    needs_servers!();
    let (ledger, pool) = empty_ledger().await;
    // One tenant queues 10,000; as one statement, because the test is not about submitting them.
    let model = submit(&ledger, "greedy").await;
    sqlx::query(
        "INSERT INTO exports (id, tenant, request, dataset, format)
         SELECT gen_random_uuid(), tenant, request, dataset, format FROM exports, generate_series(1, 9999) WHERE id = $1",
    )
    .bind(model)
    .execute(&pool)
    .await
    .unwrap();
    sqlx::query("ANALYZE exports").execute(&pool).await.unwrap();
    // Two large ones of the first have begun, and a third waits.
    for n in 0..3 {
        let claim = next_waiting(&ledger).await;
        assert_eq!(begin_large(&ledger, &claim).await, n < 2);
    }
    let (small, large) = (submit(&ledger, "modest").await, submit(&ledger, "modest").await);
    let began = Instant::now();
    let claim = next_waiting(&ledger).await;
    println!("a claim among 10,000 took {:?}", began.elapsed());
    assert_eq!(claim.export_id, small);
    ledger.streaming(&claim, None, SingleStreamReason::Small).await.unwrap();
    ledger.complete(&claim, &finished(), None).await.unwrap();
    let claim = next_waiting(&ledger).await;
    assert_eq!(claim.export_id, large);
    assert!(!begin_large(&ledger, &claim).await);
    // The first place that is given back is the second tenant's, although the other has waited for longer.
    let mut ended = 0;
    loop {
        let claim = next(&ledger, Turn::Begun).await.expect("a shard is left");
        work(&ledger, &claim).await;
        let claim = next_waiting(&ledger).await;
        if claim.export_id == large {
            break;
        }
        // All others of the first tenant turn out to be small.
        ended += 1;
        assert!(ended < 100, "the second tenant's large export does not begin");
        ledger.streaming(&claim, None, SingleStreamReason::Small).await.unwrap();
        ledger.complete(&claim, &finished(), None).await.unwrap();
    }
    println!("the second tenant's large export began after {ended} of the first's had ended");
}

#[tokio::test]
async fn a_claim_reads_few_rows_however_many_exports_there_are() {
    needs_servers!();
    let (ledger, pool) = empty_ledger().await;
    let model = submit(&ledger, "a").await;
    // Many that wait, and many that have ended.
    sqlx::query(
        "INSERT INTO exports (id, tenant, request, dataset, format, state, needs_place)
         SELECT gen_random_uuid(), 'tenant ' || n % 3, request, dataset, format,
             CASE WHEN n % 2 = 0 THEN 'pending' ELSE 'completed' END, n % 4 = 0
         FROM exports, generate_series(1, 20000) AS n WHERE id = $1",
    )
    .bind(model)
    .execute(&pool)
    .await
    .unwrap();
    sqlx::query("ANALYZE exports").execute(&pool).await.unwrap();
    // Sessions report what they have read and written some seconds later, together. The statement above has read a row for each
    // one that it wrote.
    let counters = async |written: i64| {
        let sql = "SELECT n_tup_ins + n_tup_upd, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
                   FROM pg_stat_user_tables WHERE relid = 'exports'::regclass";
        wait_until("the statistics are there", async || {
            let (reported, read): (i64, i64) = sqlx::query_as(sql).fetch_one(&pool).await.unwrap();
            if reported >= written { Ok((reported, read)) } else { Err(format!("{reported} changes are reported")) }
        })
        .await
    };
    let (written, before) = counters(20_000).await;
    const CLAIMS: i64 = 40;
    for n in 0..CLAIMS {
        next(&ledger, if n % 2 == 0 { Turn::Waiting } else { Turn::Begun }).await.expect("thousands wait");
    }
    let read = counters(written + CLAIMS).await.1 - before;
    println!("{CLAIMS} claims read {read} rows");
    // A scan of those that wait would be 10,000 for each claim.
    assert!(read < CLAIMS * 200, "{read} rows");
}
