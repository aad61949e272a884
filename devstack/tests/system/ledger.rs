//! The ledger alone: claims, the end of an export, and claims that are no longer valid, which can change nothing.

use std::time::Duration;

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::manifest::Manifest;
use polyglot_core::relation::RelationName;
use polyglot_core::request::{ColumnMapping, ExportRequest};
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_core::status::Status;
use polyglot_ledger::{
    Accepted, Claim, Claimed, Deletion, Finished, Ledger, LedgerError, OutboxMessage, Planned, Renewal, Reservation,
    RetryPolicy, SnapshotHolder, Submission, Terms,
};
use polyglot_source::session::{self, session_name};
use polyglot_source::{ConnectionLimit, SourceConnection};
use polyglot_test_kit::{scratch_database, wait_until};
use polyglot_test_servers::needs_servers;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPool};
use uuid::Uuid;

const LONG: Duration = Duration::from_mins(1);
/// A lease that expires at once: the worker counts as dead.
const NONE: Duration = Duration::ZERO;

async fn ledger_with_export() -> (Ledger, Uuid) {
    let (ledger, _, id) = ledger_with_pool().await;
    (ledger, id)
}

/// A ledger, connections to its database, with which a test changes times, and the id of an export.
pub(crate) async fn ledger_with_pool() -> (Ledger, PgPool, Uuid) {
    let database = scratch_database().await;
    let ledger = Ledger::new(database.url(), 4, "ledger-test").unwrap();
    // Several processes migrate at once when a deployment starts.
    let (first, second) = tokio::join!(ledger.migrate(), ledger.migrate());
    first.unwrap();
    second.unwrap();
    let id = ledger.submit("default", &request("id")).await.unwrap();
    let options: PgConnectOptions = database.url().parse().unwrap();
    (ledger, PgPool::connect_with(options.options([("search_path", "polyglot")])).await.unwrap(), id)
}

pub(crate) fn request(column: &str) -> ExportRequest {
    let columns = vec![ColumnMapping { source: column.to_owned(), target: column.to_owned() }];
    ExportRequest::new("records", RelationName::records(), "csv", columns)
}

/// The active exports whose `ready_at` has come.
pub(crate) async fn ready(pool: &PgPool) -> Vec<Uuid> {
    let query = sqlx::query_scalar(
        "SELECT id FROM exports WHERE state IN ('pending', 'planning', 'running', 'finishing') AND ready_at <= now() ORDER BY id",
    );
    query.fetch_all(pool).await.unwrap()
}

async fn run(pool: &PgPool, sql: &'static str) {
    sqlx::query(sql).execute(pool).await.unwrap();
}

pub(crate) fn terms(lease: Duration) -> Terms {
    let (retry, check_request) = (RetryPolicy::new(3), |_: &ExportRequest| Ok(()));
    Terms { lease, timeout: None, snapshot_age: None, retry, max_open_snapshots: 4, check_request }
}

async fn claim(ledger: &Ledger, id: Uuid, owner: &str, lease: Duration) -> Option<Claim> {
    match ledger.claim(id, owner, &terms(lease)).await.unwrap() {
        Claimed::Work(claim) => Some(*claim),
        Claimed::Nothing => None,
    }
}

pub(crate) fn finished() -> Finished {
    let object_key = "key".to_owned();
    let manifest = Manifest { rows: 1, bytes: 2, uncompressed_bytes: 2, ..Manifest::default() };
    Finished { object_key, etag: None, peak_memory_bytes: None, manifest }
}

#[expect(clippy::needless_pass_by_value, reason = "takes what a call gives")]
fn is_lost<T>(result: Result<T, LedgerError>) -> bool {
    matches!(result, Err(LedgerError::LeaseLost))
}

#[tokio::test]
async fn a_claim_that_was_taken_over_changes_nothing() {
    needs_servers!();
    let (ledger, id) = ledger_with_export().await;
    let old = claim(&ledger, id, "first", NONE).await.unwrap();
    let new = claim(&ledger, id, "second", LONG).await.unwrap();
    assert!(new.fence > old.fence && new.attempt > old.attempt);
    assert!(claim(&ledger, id, "third", LONG).await.is_none(), "two hold the same work");

    let failure = Failure::new(FailureKind::Internal, "message", "detail");
    assert!(is_lost(ledger.renew(&old, LONG, 9, 9).await));
    assert!(is_lost(ledger.streaming(&old, None, SingleStreamReason::Small).await));
    assert!(is_lost(ledger.begin_upload(&old, "old").await));
    assert!(is_lost(ledger.finishing(&old).await));
    assert!(is_lost(ledger.complete(&old, &finished(), None).await));
    assert!(is_lost(ledger.fail(&old, &failure, RetryPolicy::new(3)).await));
    assert!(is_lost(ledger.cancelled(&old).await));
    assert!(is_lost(ledger.give_back(&old).await));
    let export = ledger.find(id).await.unwrap().unwrap();
    assert_eq!((export.status, export.attempt, export.rows), (Status::Planning, new.attempt, 0));

    assert_eq!(ledger.complete(&new, &finished(), None).await.unwrap(), Renewal::Held);
    assert!(is_lost(ledger.complete(&new, &finished(), None).await), "completed twice");
    let export = ledger.find(id).await.unwrap().unwrap();
    assert_eq!((export.status, export.object_key.as_deref()), (Status::Completed, Some("key")));
    assert!(claim(&ledger, id, "late", LONG).await.is_none(), "a completed export is claimed");
}

#[tokio::test]
async fn of_many_claims_at_once_one_wins() {
    needs_servers!();
    let (ledger, id) = ledger_with_export().await;
    let claims = (0..12).map(|n| {
        let ledger = ledger.clone();
        tokio::spawn(async move { claim(&ledger, id, &format!("worker {n}"), LONG).await })
    });
    let mut winners = 0;
    for claim in claims.collect::<Vec<_>>() {
        winners += i32::from(claim.await.unwrap().is_some());
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn an_export_whose_workers_are_lost_again_and_again_fails() {
    needs_servers!();
    let (ledger, id) = ledger_with_export().await;
    for _ in 0..3 {
        claim(&ledger, id, "doomed", NONE).await.unwrap();
    }
    assert!(claim(&ledger, id, "last", LONG).await.is_none());
    let export = ledger.find(id).await.unwrap().unwrap();
    assert_eq!((export.status, export.error_code.as_deref()), (Status::Failed, Some("worker_lost")));
}

/// Divides the export into eight shards.
async fn plan_eight_shards(ledger: &Ledger, id: Uuid) {
    let planner = claim(ledger, id, "planner", LONG).await.unwrap();
    ledger.begin_upload(&planner, "key").await.unwrap();
    let bounds = vec![serde_json::json!({}); 8];
    let planned = Planned { plan: serde_json::json!({}), bounds, rows_estimate: None, parallelism: 8 };
    let keeper = SnapshotHolder { owner: "planner", snapshot: "snapshot", lease: LONG };
    assert_eq!(ledger.planned(&planner, &planned, keeper).await.unwrap(), Renewal::Held);
}

#[tokio::test]
async fn a_worker_that_is_lost_with_many_shards_is_one_failure() {
    needs_servers!();
    let (ledger, pool, id) = ledger_with_pool().await;
    plan_eight_shards(&ledger, id).await;
    for attempts_left in [2, 1] {
        for _ in 0..4 {
            claim(&ledger, id, &format!("lost with {attempts_left} left"), LONG).await.unwrap();
        }
        run(&pool, "UPDATE shards SET leased_until = now() - interval '1 second' WHERE state = 'leased'").await;
    }
    for _ in 0..8 {
        claim(&ledger, id, "lost at last", LONG).await.unwrap();
    }
    let failures: i32 = sqlx::query_scalar("SELECT failures FROM exports").fetch_one(&pool).await.unwrap();
    assert_eq!(failures, 2);
    run(&pool, "UPDATE shards SET leased_until = now() - interval '1 second' WHERE state = 'leased'").await;
    assert!(claim(&ledger, id, "too late", LONG).await.is_none());
    let export = ledger.find(id).await.unwrap().unwrap();
    assert_eq!((export.status, export.error_code.as_deref()), (Status::Failed, Some("worker_lost")));
}

#[tokio::test]
async fn an_export_that_is_deleted_between_two_attempts_leaves_no_shard() {
    needs_servers!();
    let (ledger, pool, id) = ledger_with_pool().await;
    plan_eight_shards(&ledger, id).await;
    let shard = claim(&ledger, id, "worker", LONG).await.unwrap();
    let failure = Failure::new(FailureKind::SnapshotLost, "message", "detail");
    assert!(ledger.fail_attempt(&shard, &failure, RetryPolicy::new(3)).await.unwrap());
    assert_eq!(ledger.delete(id).await.unwrap(), Deletion::Cancelling);
    for table in ["SELECT count(*) FROM shards", "SELECT count(*) FROM keepers"] {
        let left: i64 = sqlx::query_scalar(table).fetch_one(&pool).await.unwrap();
        assert_eq!(left, 0, "{table}");
    }
}

#[tokio::test]
async fn a_transient_failure_is_retried_and_a_permanent_one_is_not() {
    needs_servers!();
    let (ledger, pool, id) = ledger_with_pool().await;
    let policy = RetryPolicy { first_pause: Duration::from_millis(300), ..RetryPolicy::new(2) };
    let passing = Failure::new(FailureKind::StorageUnavailable, "message", "detail");
    let first = claim(&ledger, id, "w", LONG).await.unwrap();
    assert!(ledger.fail(&first, &passing, policy).await.unwrap());
    assert_eq!(ledger.find(id).await.unwrap().unwrap().status, Status::Pending);
    assert!(claim(&ledger, id, "hasty", LONG).await.is_none(), "claimed during the pause");
    assert!(ready(&pool).await.is_empty());
    wait_until("the pause is over", async || ready(&pool).await == [id]).await;
    let second = claim(&ledger, id, "w", LONG).await.unwrap();
    assert!(!ledger.fail(&second, &passing, policy).await.unwrap(), "more attempts than allowed");
    assert_eq!(ledger.find(id).await.unwrap().unwrap().status, Status::Failed);
}

#[tokio::test]
async fn the_sweep_announces_abandoned_work_once() {
    needs_servers!();
    let (ledger, id) = ledger_with_export().await;
    let drained = ledger.relay::<LedgerError, _>(10, async |_| Ok(())).await.unwrap();
    assert_eq!(drained, 1);
    claim(&ledger, id, "doomed", NONE).await.unwrap();
    assert_eq!(ledger.sweep().await.unwrap().unwrap().reissued, 1);
    assert_eq!(ledger.sweep().await.unwrap().unwrap().reissued, 0, "announced twice");
    let mut announced: Vec<Uuid> = Vec::new();
    ledger
        .relay::<LedgerError, _>(10, async |messages| {
            announced = messages.iter().map(|message| message.export_id).collect();
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(announced, [id]);
    // A publisher that fails keeps its messages.
    ledger.give_back(&claim(&ledger, id, "w", LONG).await.unwrap()).await.unwrap();
    assert!(ledger.relay(10, async |_| Err(LedgerError::LeaseLost)).await.is_err());
    assert_eq!(ledger.relay::<LedgerError, _>(10, async |_| Ok(())).await.unwrap(), 1);
}

#[tokio::test]
async fn work_is_found_without_a_message() {
    needs_servers!();
    let (ledger, pool, id) = ledger_with_pool().await;
    assert_eq!(ready(&pool).await, [id]);
    let held = claim(&ledger, id, "w", LONG).await.unwrap();
    assert!(ready(&pool).await.is_empty());
    ledger.give_back(&held).await.unwrap();
    assert_eq!(ready(&pool).await, [id]);
    // Lost, with its lease at its end.
    claim(&ledger, id, "doomed", NONE).await.unwrap();
    assert_eq!(ready(&pool).await, [id]);
    // A heartbeat moves it on.
    let held = claim(&ledger, id, "w", Duration::from_millis(100)).await.unwrap();
    ledger.renew(&held, LONG, 0, 0).await.unwrap();
    // Past the end of the first lease.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(ready(&pool).await.is_empty());
    assert_eq!(ledger.complete(&held, &finished(), None).await.unwrap(), Renewal::Held);
    assert!(ready(&pool).await.is_empty());
}

#[tokio::test]
async fn several_relays_publish_messages_in_order() {
    needs_servers!();
    let (ledger, first) = ledger_with_export().await;
    let mut expected = vec![first];
    for _ in 0..40 {
        expected.push(ledger.submit("default", &request("id")).await.unwrap());
    }
    let sent = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let relays = (0..4).map(|_| {
        let (ledger, sent) = (ledger.clone(), std::sync::Arc::clone(&sent));
        tokio::spawn(async move {
            let publish = async |messages: Vec<OutboxMessage>| {
                // The time that a broker takes, so that the relays run at the same time.
                tokio::time::sleep(Duration::from_millis(2)).await;
                sent.lock().unwrap().extend(messages.iter().map(|message| message.export_id));
                Ok(())
            };
            while ledger.relay::<LedgerError, _>(3, publish).await.unwrap() > 0 {}
        })
    });
    for relay in relays.collect::<Vec<_>>() {
        relay.await.unwrap();
    }
    assert_eq!(*sent.lock().unwrap(), expected);
}

/// A request of a process that died may arrive at the store after the first check.
#[tokio::test]
async fn the_uploads_of_lost_attempts_are_checked_three_times() {
    needs_servers!();
    let (ledger, pool, id) = ledger_with_pool().await;
    let doomed = claim(&ledger, id, "doomed", NONE).await.unwrap();
    ledger.begin_upload(&doomed, "key").await.unwrap();
    ledger.begin_upload(&doomed, "key").await.expect("a repeat is no mistake");
    let mut given_up = None;
    assert!(ledger.orphaned_uploads(9).await.unwrap().is_empty(), "it may still be at work");
    claim(&ledger, id, "next", LONG).await.unwrap();
    for check in 0..3 {
        let found = ledger.orphaned_uploads(9).await.unwrap();
        assert_eq!((found.len(), found[0].attempt, &*found[0].object.object_key), (1, 1, "key"));
        assert_eq!((found[0].cleanup_passes, found[0].object.owned), (check, false));
        assert!(ledger.orphaned_uploads(9).await.unwrap().is_empty(), "another sweeper checks the same one");
        // A check that was not finished because the store was unavailable is repeated.
        make_due(&pool).await;
        assert_eq!(ledger.orphaned_uploads(9).await.unwrap(), found);
        given_up = found.first().cloned();
        ledger.mark_checked(&found[0]).await.unwrap();
        ledger.mark_checked(&found[0]).await.expect("a check that another sweeper has recorded");
        assert!(ledger.orphaned_uploads(9).await.unwrap().is_empty(), "not yet again");
        make_due(&pool).await;
    }
    assert!(ledger.orphaned_uploads(9).await.unwrap().is_empty());
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM uploads").fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
    // The worker was only frozen for all that time: the upload that it abandons now is checked for again.
    let mut given_up = given_up.unwrap();
    given_up.object.upload_id = Some("upload".to_owned());
    ledger.abandon_upload(&given_up).await.unwrap();
    make_due(&pool).await;
    let found = ledger.orphaned_uploads(9).await.unwrap();
    assert_eq!((found[0].cleanup_passes, found[0].object.upload_id.as_deref()), (1, Some("upload")));
}

async fn make_due(pool: &PgPool) {
    run(pool, "UPDATE uploads SET look_at = now()").await;
}

/// The SDK may have created a second upload of the key, whose id is not known.
#[tokio::test]
async fn the_key_of_a_completed_upload_is_checked_and_its_file_stays() {
    needs_servers!();
    let (ledger, pool, id) = ledger_with_pool().await;
    let claim = claim(&ledger, id, "w", LONG).await.unwrap();
    ledger.begin_upload(&claim, "key").await.unwrap();
    ledger.record_upload(&claim, "key", "upload").await.unwrap();
    assert_eq!(ledger.complete(&claim, &finished(), None).await.unwrap(), Renewal::Held);
    make_due(&pool).await;
    let found = ledger.orphaned_uploads(9).await.unwrap();
    assert_eq!((found[0].cleanup_passes, found[0].object.owned, found[0].object.upload_id.as_deref()), (1, true, None));
}

/// A frozen worker may hold the snapshot of an export that others have completed. By the row its session is found.
#[tokio::test]
async fn the_uploads_of_a_completed_attempt_of_several_objects_are_checked() {
    needs_servers!();
    let (ledger, pool, id) = ledger_with_pool().await;
    let claim = claim(&ledger, id, "w", LONG).await.unwrap();
    ledger.begin_upload(&claim, "folder/").await.unwrap();
    let finished = Finished { object_key: "folder/".to_owned(), ..finished() };
    assert_eq!(ledger.complete(&claim, &finished, None).await.unwrap(), Renewal::Held);
    make_due(&pool).await;
    let found = ledger.orphaned_uploads(9).await.unwrap();
    assert_eq!((found[0].cleanup_passes, found[0].object.owned), (1, true));
}

#[tokio::test]
async fn the_sessions_of_lost_attempts_end_and_no_others() {
    needs_servers!();
    let database = scratch_database().await;
    let names: Vec<String> = (0..20).map(|attempt| session_name(Uuid::nil(), attempt)).collect();
    let limit = ConnectionLimit::new(6, 5);
    let connect = async |name: &str| SourceConnection::open(limit.acquire().await, database.url(), name).await.unwrap();
    let mut lost = Vec::new();
    for name in &names[..3] {
        lost.push(connect(name).await);
    }
    let mut others = vec![connect("somebody else's").await];
    others.push(connect(&session_name(Uuid::nil(), 99)).await);
    // PostgreSQL plans a short list of names unlike a long one.
    for names in [&names[..], &names[..3], &names[..1]] {
        let ended = session::end_sessions(limit.acquire_control().await, database.url(), names).await.unwrap();
        assert!(ended <= 3, "{ended}");
    }
    for mut session in lost {
        assert!(sqlx::query("SELECT 1").execute(&mut *session).await.is_err(), "a lost session goes on");
    }
    for mut session in others {
        sqlx::query("SELECT 1").execute(&mut *session).await.expect("somebody else's session was ended");
    }
}

#[tokio::test]
async fn a_request_that_no_worker_can_read_waits_for_one_that_can_and_fails_after_an_hour() {
    needs_servers!();
    let (ledger, pool, id) = ledger_with_pool().await;
    let state = async || -> (String, Option<String>, i32) {
        sqlx::query_as("SELECT state, error_code, failures FROM exports").fetch_one(&pool).await.unwrap()
    };
    run(&pool, "UPDATE exports SET request = request - 'columns'").await;
    for _ in 0..5 {
        let claimed = ledger.claim(id, "old", &terms(LONG)).await;
        assert!(matches!(claimed, Err(LedgerError::Unreadable { .. })), "{claimed:?}");
        assert!(ready(&pool).await.is_empty(), "no pause");
        assert_eq!(state().await, ("pending".to_owned(), None, 0));
        run(&pool, "UPDATE exports SET ready_at = now()").await;
    }
    run(&pool, "UPDATE exports SET created_at = now() - interval '61 minutes'").await;
    assert!(ledger.claim(id, "old", &terms(LONG)).await.is_err());
    assert_eq!(state().await, ("failed".to_owned(), Some("request_unreadable".to_owned()), 0));
}

#[tokio::test]
async fn an_export_whose_time_is_up_ends_without_a_worker() {
    needs_servers!();
    let (ledger, id) = ledger_with_export().await;
    ledger.claim(id, "doomed", &Terms { timeout: Some(NONE), ..terms(NONE) }).await.unwrap();
    assert_eq!(ledger.sweep().await.unwrap().unwrap().overdue, 1);
    let export = ledger.find(id).await.unwrap().unwrap();
    assert_eq!((export.status, export.error_code.as_deref()), (Status::Failed, Some("deadline_exceeded")));
}

async fn reserve(ledger: &Ledger, key: &str, body: &str) -> Reservation {
    ledger.reserve_key("default", key, body.as_bytes()).await.unwrap()
}

#[tokio::test]
async fn a_key_stands_for_its_first_answer() {
    needs_servers!();
    let (ledger, pool, _) = ledger_with_pool().await;
    let Reservation::Ours(key) = reserve(&ledger, "k", "body").await else { panic!("not ours") };
    assert!(matches!(reserve(&ledger, "k", "body").await, Reservation::InProgress));
    assert!(matches!(reserve(&ledger, "k", "other").await, Reservation::OtherBody));
    let other_tenant = ledger.reserve_key("somebody", "k", b"other").await.unwrap();
    assert!(matches!(other_tenant, Reservation::Ours(_)), "{other_tenant:?}");
    // Refused: free again.
    ledger.release_key(&key).await.unwrap();
    let Reservation::Ours(key) = reserve(&ledger, "k", "other").await else { panic!("not ours") };
    let wanted = request("id");
    let submission = Submission { key: Some(&key), ..Submission::new("default", &wanted) };
    let accepted = ledger.accept(submission).await.unwrap();
    // A release that comes too late changes nothing.
    ledger.release_key(&key).await.unwrap();
    let Reservation::Answered(again) = reserve(&ledger, "k", "other").await else { panic!("no answer") };
    assert_eq!(again, accepted);
    assert_eq!(accepted, Accepted { id: accepted.id, status: Status::Pending, joined: false });
    assert!(matches!(reserve(&ledger, "k", "body").await, Reservation::OtherBody));
    // After a day it may stand for something else.
    run(&pool, "UPDATE idempotency_keys SET created_at = created_at - interval '25 hours' WHERE tenant = 'default'")
        .await;
    assert!(matches!(reserve(&ledger, "k", "body").await, Reservation::Ours(_)));
    run(&pool, "UPDATE idempotency_keys SET created_at = created_at - interval '25 hours'").await;
    ledger.sweep().await.unwrap().unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM idempotency_keys").fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn an_idempotency_key_without_an_answer_is_taken_over_after_a_minute() {
    needs_servers!();
    let (ledger, pool, _) = ledger_with_pool().await;
    let Reservation::Ours(slow) = reserve(&ledger, "k", "body").await else { panic!("not ours") };
    run(&pool, "UPDATE idempotency_keys SET created_at = created_at - interval '61 seconds'").await;
    let Reservation::Ours(_) = reserve(&ledger, "k", "body").await else { panic!("not taken over") };
    let wanted = request("id");
    let late = Submission { key: Some(&slow), ..Submission::new("default", &wanted) };
    assert!(matches!(ledger.accept(late).await, Err(LedgerError::KeyTaken)));
    let exports: i64 = sqlx::query_scalar("SELECT count(*) FROM exports").fetch_one(&pool).await.unwrap();
    assert_eq!(exports, 1, "stored although the key was another's");
}

#[tokio::test]
async fn identical_requests_share_one_export_if_they_want_to() {
    needs_servers!();
    let (ledger, _, other) = ledger_with_pool().await;
    let wanted = request("name");
    let join = |tenant: &'static str| {
        let (ledger, wanted) = (ledger.clone(), wanted.clone());
        async move { ledger.accept(Submission { join: true, ..Submission::new(tenant, &wanted) }).await.unwrap() }
    };
    let all = futures_util::future::join_all((0..8).map(|_| join("default"))).await;
    let first = all.iter().find(|accepted| !accepted.joined).unwrap();
    assert_eq!(all.iter().filter(|accepted| accepted.joined && accepted.id == first.id).count(), 7, "{all:?}");
    assert_ne!(first.id, other, "another request was joined");
    assert!(!join("somebody").await.joined, "another tenant's export was joined");
    let claim = claim(&ledger, first.id, "w", LONG).await.unwrap();
    assert_eq!(join("default").await, Accepted { id: first.id, status: Status::Planning, joined: true });
    // One that is being cancelled, or has ended, is no export to wait for.
    ledger.delete(first.id).await.unwrap();
    let second = join("default").await;
    assert!(!second.joined);
    ledger.cancelled(&claim).await.unwrap();
    assert_eq!(join("default").await.id, second.id);
    ledger.delete(second.id).await.unwrap();
    assert!(!join("default").await.joined);
}

/// A database in which exports of the version before have ended, and one is being worked on.
#[tokio::test]
async fn a_ledger_with_exports_of_the_version_before_is_brought_up_to_date() {
    needs_servers!();
    let database = scratch_database().await;
    let mut connection = PgConnectOptions::connect(&database.url().parse().unwrap()).await.unwrap();
    let mut before = sqlx::migrate!("../migrations");
    before.migrations.to_mut().retain(|migration| migration.version < 9);
    sqlx::raw_sql("CREATE SCHEMA polyglot; SET search_path TO polyglot").execute(&mut connection).await.unwrap();
    before.run(&mut connection).await.unwrap();
    sqlx::raw_sql(
        r#"INSERT INTO exports (id, request, dataset, format, state, attempt) SELECT gen_random_uuid(),
               '{"dataset": "records", "format": "csv", "columns": [{"source": "id", "target": "a"}]}', 'records', 'csv', state, 1
           FROM unnest('{completed, running}'::text[]) AS state;
           INSERT INTO shards (export_id, number, state, lease_owner, lease_until)
           SELECT id, 1, CASE state WHEN 'running' THEN 'leased' ELSE 'committed' END,
               CASE state WHEN 'running' THEN 'old' END, CASE state WHEN 'running' THEN now() + interval '1 minute' END
           FROM exports"#,
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let ledger = Ledger::new(database.url(), 2, "ledger-test").unwrap();
    ledger.migrate().await.unwrap();
    let running: Uuid =
        sqlx::query_scalar("SELECT id FROM exports WHERE state = 'running'").fetch_one(&mut connection).await.unwrap();
    // Its worker holds it until the lease ends, and then it starts over.
    assert!(claim(&ledger, running, "new", LONG).await.is_none());
    sqlx::raw_sql("UPDATE shards SET leased_until = now() - interval '1 second'")
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(claim(&ledger, running, "new", LONG).await.unwrap().attempt, 2);
}
