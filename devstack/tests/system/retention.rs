//! What the ledger keeps of exports, for how long, and what is read of it: exports that ended long ago are forgotten, a deleted
//! export has no filter values, and lists and events do not read requests.

use std::time::Duration;

use polyglot_core::manifest::Manifest;
use polyglot_core::relation::RelationName;
use polyglot_core::request::{ColumnMapping, ExportRequest, Layout};
use polyglot_core::selection::{Filter, FilterOp};
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_core::status::Status;
use polyglot_core::tenant::DEFAULT_TENANT;
use polyglot_ledger::{
    Claim, Claimed, Deletion, Finished, Ledger, LedgerError, ListFilter, Renewal, Reservation, RetryPolicy, Submission,
    Terms,
};
use polyglot_test_kit::{Setup, System, sample_request, scratch_database, wait_until};
use polyglot_test_servers::needs_servers;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPool};
use uuid::Uuid;

use crate::ledger::ledger_with_pool;

const DAY: Duration = Duration::from_hours(24);
const MONTH: Duration = Duration::from_hours(30 * 24);

/// A value that is nowhere in the ledger but where a request has put it.
const SECRET: &str = "jane.doe@example.org";

async fn run(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await.unwrap();
}

async fn number(pool: &PgPool, sql: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await.unwrap()
}

fn filter(op: FilterOp, values: &[&str]) -> Filter {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Filter { column: "name".to_owned(), path: Vec::new(), op, values }
}

fn request() -> ExportRequest {
    let columns = vec![ColumnMapping { source: "id".to_owned(), target: "id".to_owned() }];
    let filters = vec![
        filter(FilterOp::Equal, &[SECRET]),
        filter(FilterOp::In, &["somebody", SECRET]),
        filter(FilterOp::IsNotNull, &[]),
        Filter { path: vec!["customer".to_owned()], ..filter(FilterOp::Equal, &[&format!("\"{SECRET}\"")]) },
    ];
    ExportRequest { filters, ..ExportRequest::new("records", RelationName::records(), "csv", columns) }
}

async fn claim(ledger: &Ledger, id: Uuid, lease: Duration) -> Option<Claim> {
    let retry = RetryPolicy::new(3);
    let terms =
        Terms { lease, timeout: None, snapshot_age: None, retry, max_open_snapshots: 4, check_request: |_| Ok(()) };
    match ledger.claim(id, "worker", &terms).await.unwrap() {
        Claimed::Work(claim) => Some(*claim),
        Claimed::Nothing => None,
    }
}

/// An export that has come to `status`, by the calls that bring it there.
async fn export(ledger: &Ledger, status: Status) -> Uuid {
    let id = ledger.submit("default", &request()).await.unwrap();
    if status == Status::Cancelled {
        assert_eq!(ledger.delete(id).await.unwrap(), Deletion::Cancelling);
        return id;
    }
    let claim = claim(ledger, id, MONTH).await.unwrap();
    ledger.begin_upload(&claim, "key").await.unwrap();
    match status {
        Status::Failed => {
            let failure = polyglot_core::failure::Failure::new(
                polyglot_core::failure::FailureKind::Internal,
                "message",
                format!("invalid input: {SECRET}"),
            );
            assert!(!ledger.fail(&claim, &failure, RetryPolicy::new(1)).await.unwrap());
        }
        Status::Completed | Status::Expired => {
            let finished = Finished {
                object_key: "key".to_owned(),
                etag: None,
                peak_memory_bytes: None,
                manifest: Manifest::default(),
            };
            assert_eq!(ledger.complete(&claim, &finished, None).await.unwrap(), Renewal::Held);
        }
        _ => {}
    }
    if status == Status::Expired {
        let object_key = Some("key".to_owned());
        assert_eq!(ledger.delete(id).await.unwrap(), Deletion::Ended { object_key });
    }
    assert!(status == Status::Planning || ledger.find(id).await.unwrap().unwrap().status == status);
    id
}

/// Moves every time of all exports into the past.
async fn make_older(pool: &PgPool, days: u32) {
    let older = format!(
        "UPDATE exports SET created_at = created_at - interval '{days} days', finished_at = finished_at - interval '{days} days',
             expires_at = expires_at - interval '{days} days'"
    );
    run(pool, &older).await;
}

#[tokio::test]
async fn exports_that_ended_long_ago_are_forgotten_with_all_that_belongs_to_them() {
    needs_servers!();
    let (ledger, pool, _) = ledger_with_pool().await;
    run(&pool, "DELETE FROM exports").await;
    let active = export(&ledger, Status::Planning).await;
    let completed = export(&ledger, Status::Completed).await;
    let expired = export(&ledger, Status::Expired).await;
    let failed = export(&ledger, Status::Failed).await;
    let cancelled = export(&ledger, Status::Cancelled).await;
    let Reservation::Ours(key) = ledger.reserve_key("default", "key", b"body").await.unwrap() else { panic!("taken") };
    let wanted = request();
    let submission = Submission { key: Some(&key), ..Submission::new("default", &wanted) };
    let keyed = ledger.accept(submission).await.unwrap().id;
    ledger.delete(keyed).await.unwrap();
    make_older(&pool, 29).await;
    assert_eq!(ledger.forget(MONTH, 100).await.unwrap(), 0, "forgotten too early");

    make_older(&pool, 2).await;
    let newly_ended = export(&ledger, Status::Cancelled).await;
    // A batch at a time; one that somebody holds is for a later one.
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM exports WHERE id = $1 FOR UPDATE").bind(keyed).execute(&mut *holder).await.unwrap();
    assert_eq!(ledger.forget(MONTH, 1).await.unwrap(), 1);
    assert_eq!(
        ledger.forget(MONTH, 100).await.unwrap(),
        0,
        "one is locked, and the others may have something in the store"
    );
    holder.rollback().await.unwrap();
    assert_eq!(ledger.forget(MONTH, 100).await.unwrap(), 1);
    for gone in [cancelled, keyed] {
        assert!(ledger.find(gone).await.unwrap().is_none());
        assert_eq!(ledger.delete(gone).await.unwrap(), Deletion::Unknown);
        assert!(claim(&ledger, gone, DAY).await.is_none(), "a message for a forgotten export");
    }

    // What may still be in the object store is found by these rows.
    for kept in [active, completed, expired, failed, newly_ended] {
        assert!(ledger.find(kept).await.unwrap().is_some());
    }
    run(&pool, "DELETE FROM uploads").await;
    assert_eq!(ledger.forget(MONTH, 100).await.unwrap(), 1, "the failed one has nothing in the store now");
    assert!(ledger.find(failed).await.unwrap().is_none());
    ledger.object_deleted(expired).await.unwrap();
    assert_eq!(ledger.forget(MONTH, 100).await.unwrap(), 1);
    assert!(ledger.find(expired).await.unwrap().is_none());
    assert_eq!(ledger.forget(Duration::ZERO, 100).await.unwrap(), 1, "the one that has just ended");

    // Two are left, and nothing of the others.
    for (table, of) in [
        ("state_changes", "export_id"),
        ("outbox", "export_id"),
        ("shards", "export_id"),
        ("idempotency_keys", "export_id"),
        ("exports", "id"),
    ] {
        let others = format!("SELECT count(*) FROM {table} WHERE {of} NOT IN ('{active}', '{completed}')");
        assert_eq!(number(&pool, &others).await, 0, "{table}");
    }
    assert_eq!(number(&pool, "SELECT count(*) FROM exports").await, 2);
    assert_eq!(number(&pool, "SELECT count(*) FROM idempotency_keys").await, 0);
}

/// A file that was kept for long ends when it is removed, and so does its export.
#[tokio::test]
async fn an_export_is_remembered_from_the_end_of_its_file() {
    needs_servers!();
    let (ledger, pool, _) = ledger_with_pool().await;
    let id = export(&ledger, Status::Completed).await;
    run(&pool, "DELETE FROM uploads").await;
    make_older(&pool, 90).await;
    ledger.delete(id).await.unwrap();
    ledger.object_deleted(id).await.unwrap();
    assert_eq!(ledger.forget(MONTH, 100).await.unwrap(), 0);
    make_older(&pool, 31).await;
    assert_eq!(ledger.forget(MONTH, 100).await.unwrap(), 1);
}

#[tokio::test]
async fn the_processes_forget_what_their_configuration_says() {
    needs_servers!();
    let system = System::start(Setup::new(10, &[("LEDGER_TTL_DAYS", "7")])).await;
    let (old, new) = (system.submit("csv", None).await, system.submit("csv", None).await);
    for id in [&old, &new] {
        system.wait_until_completed(id).await;
        assert_eq!(system.delete(id).await.status(), StatusCode::NO_CONTENT);
    }
    let older = "UPDATE polyglot.exports SET finished_at = finished_at - interval '8 days',
                 expires_at = expires_at - interval '8 days' WHERE id = $1::uuid";
    sqlx::query(older).bind(&old).execute(&system.pool).await.unwrap();
    wait_until("the old export is unknown", async || {
        system.get(&format!("/exports/{old}")).await.status() == StatusCode::NOT_FOUND
    })
    .await;
    for path in ["manifest", "download", "events"] {
        assert_eq!(system.get(&format!("/exports/{old}/{path}")).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(system.delete(&old).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(system.state(&new).await["status"], "expired");
}

/// The number of rows in each table of the ledger that hold the text.
async fn rows_with(pool: &PgPool, text: &str) -> Vec<(String, i64)> {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'polyglot' ORDER BY 1")
            .fetch_all(pool)
            .await
            .unwrap();
    assert!(tables.len() > 6, "{tables:?}");
    let mut found = Vec::new();
    for table in tables {
        let sql = format!("SELECT count(*) FROM polyglot.\"{table}\" AS it WHERE it::text LIKE '%{text}%'");
        let rows = number(pool, &sql).await;
        if rows > 0 {
            found.push((table, rows));
        }
    }
    found
}

#[tokio::test]
async fn a_deleted_export_has_filters_and_none_of_their_values() {
    needs_servers!();
    let (ledger, pool, _) = ledger_with_pool().await;
    // Where in a document a filter looks stays, as the column does.
    let at_path = Filter { path: vec!["customer".to_owned()], ..filter(FilterOp::Equal, &[]) };
    let stripped =
        vec![filter(FilterOp::Equal, &[]), filter(FilterOp::In, &[]), filter(FilterOp::IsNotNull, &[]), at_path];
    let rest = ExportRequest { filters: stripped, ..request() };
    for status in [Status::Cancelled, Status::Expired, Status::Failed] {
        let id = export(&ledger, status).await;
        if status == Status::Failed {
            assert_eq!(rows_with(&pool, SECRET).await, [("exports".to_owned(), 1)], "the test is wrong");
            assert_eq!(ledger.delete(id).await.unwrap(), Deletion::Ended { object_key: None });
        }
        assert_eq!(rows_with(&pool, SECRET).await, [], "{status}");
        assert_eq!(ledger.request(id).await.unwrap().unwrap(), rest);
        let repeated = ledger.delete(id).await.unwrap();
        assert!(matches!(repeated, Deletion::Ended { .. }), "{repeated:?}");
        assert_eq!(ledger.request(id).await.unwrap().unwrap(), rest);
        assert_eq!(ledger.find(id).await.unwrap().unwrap().status, status);
    }
    // One without filters stays as it is.
    let plain = ExportRequest { filters: Vec::new(), ..request() };
    let id = ledger.submit("default", &plain).await.unwrap();
    ledger.delete(id).await.unwrap();
    assert_eq!(ledger.request(id).await.unwrap().unwrap(), plain);
}

#[tokio::test]
async fn a_worker_that_is_at_work_on_a_deleted_export_ends_it_in_order() {
    needs_servers!();
    let (ledger, pool, _) = ledger_with_pool().await;
    // By its worker, which has the values in memory.
    let id = ledger.submit("default", &request()).await.unwrap();
    let held = claim(&ledger, id, DAY).await.unwrap();
    ledger.streaming(&held, None, SingleStreamReason::Small).await.unwrap();
    assert_eq!(ledger.delete(id).await.unwrap(), Deletion::Cancelling);
    assert_eq!(rows_with(&pool, SECRET).await, []);
    assert_eq!(held.request, request());
    assert_eq!(ledger.renew(&held, DAY, 1, 1).await.unwrap(), Renewal::CancelRequested);
    assert!(ledger.attempts_to_hold("another", 9, 9).await.unwrap().is_empty());
    ledger.cancelled(&held).await.unwrap();
    assert_eq!(ledger.find(id).await.unwrap().unwrap().status, Status::Cancelled);
    assert_eq!(rows_with(&pool, SECRET).await, []);

    // By the claim of another one, after the worker was lost; and by a failure.
    let id = ledger.submit("default", &request()).await.unwrap();
    claim(&ledger, id, Duration::ZERO).await.unwrap();
    ledger.delete(id).await.unwrap();
    assert!(claim(&ledger, id, DAY).await.is_none());
    assert_eq!(ledger.find(id).await.unwrap().unwrap().status, Status::Cancelled);
    let id = ledger.submit("default", &request()).await.unwrap();
    let held = claim(&ledger, id, DAY).await.unwrap();
    ledger.delete(id).await.unwrap();
    let failure = polyglot_core::failure::Failure::new(
        polyglot_core::failure::FailureKind::StorageUnavailable,
        "message",
        format!("refused: {SECRET}"),
    );
    assert!(!ledger.fail(&held, &failure, RetryPolicy::new(3)).await.unwrap());
    assert_eq!(ledger.find(id).await.unwrap().unwrap().status, Status::Cancelled);
    assert_eq!(rows_with(&pool, SECRET).await, []);
}

#[tokio::test]
async fn a_key_of_a_deleted_export_still_tells_bodies_apart() {
    needs_servers!();
    let (ledger, _, _) = ledger_with_pool().await;
    let reserve = async |body: &str| ledger.reserve_key("default", "key", body.as_bytes()).await.unwrap();
    let Reservation::Ours(key) = reserve(SECRET).await else { panic!("taken") };
    let wanted = request();
    let submission = Submission { key: Some(&key), ..Submission::new("default", &wanted) };
    let accepted = ledger.accept(submission).await.unwrap();
    ledger.delete(accepted.id).await.unwrap();
    let Reservation::Answered(again) = reserve(SECRET).await else { panic!("no answer") };
    assert_eq!(again, accepted);
    assert!(matches!(reserve("another").await, Reservation::OtherBody));
}

#[tokio::test]
async fn the_values_of_a_running_export_are_gone_when_it_is_deleted() {
    needs_servers!();
    let system = System::with_rows(60_000).await;
    for statement in [
        "ALTER TABLE public.records RENAME TO fast_records",
        "CREATE VIEW public.records AS SELECT id, created_at, name, value, metadata FROM public.fast_records
         WHERE id % 100 <> 0 OR pg_sleep(0.01) IS NOT NULL",
    ] {
        run(&system.pool, statement).await;
    }
    let mut body = sample_request("csv", None);
    body["filters"] = json!([{"column": "name", "op": "!=", "value": SECRET}]);
    let answer = system.request(reqwest::Method::POST, "/exports").header("Idempotency-Key", "key").json(&body);
    let answer: Value = answer.send().await.unwrap().json().await.unwrap();
    let id = answer["exportId"].as_str().unwrap().to_owned();
    system.wait_for_state(&id, "running", |state| state["status"] == "running").await;
    assert_eq!(system.delete(&id).await.status(), StatusCode::ACCEPTED);
    assert_eq!(rows_with(&system.pool, SECRET).await, []);
    let state = system.wait_until_ended(&id).await;
    assert_eq!((&state["status"], &state["attempt"]), (&json!("cancelled"), &json!(1)), "{state:#}");
    system.wait_until_cleaned_up().await;
    let again = system.request(reqwest::Method::POST, "/exports").header("Idempotency-Key", "key").json(&body);
    let again: Value = again.send().await.unwrap().json().await.unwrap();
    assert_eq!(again, answer);

    // The manifest of one that has completed outlives its file, without the values.
    run(&system.pool, "DROP VIEW public.records; ALTER TABLE public.fast_records RENAME TO records").await;
    let id = system.submit_request(&body).await;
    system.wait_until_completed(&id).await;
    assert_eq!(system.manifest(&id).await["filters"], json!([{"column": "name", "op": "!=", "value": SECRET}]));
    assert_eq!(system.delete(&id).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(system.manifest(&id).await["filters"], json!([{"column": "name", "op": "!="}]));
    assert_eq!(rows_with(&system.pool, SECRET).await, []);
    let logs = [system.api.as_ref().unwrap().log(), system.workers[0].log()];
    assert!(logs.iter().all(|log| !log.is_empty() && !log.contains(SECRET)), "a log has a filter's value");
}

/// The calls are made by a role that may read every column but the request.
#[tokio::test]
async fn lists_and_events_do_not_read_requests() {
    needs_servers!();
    let database = scratch_database().await;
    let owner = Ledger::new(database.url(), 2, "retention-test").unwrap();
    owner.migrate().await.unwrap();
    let wanted = ExportRequest { layout: Layout::Files, parallelism: Some(7), ..request() };
    let id = owner.submit("default", &wanted).await.unwrap();
    owner.submit("default", &request()).await.unwrap();

    let options: PgConnectOptions = database.url().parse().unwrap();
    let pool = PgPool::connect_with(options.options([("search_path", "polyglot")])).await.unwrap();
    let role = format!("reader_{}", Uuid::new_v4().simple());
    let columns: String = sqlx::query_scalar(
        "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
         WHERE attrelid = 'exports'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'request'",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    run(
        &pool,
        &format!(
            "CREATE ROLE {role}; GRANT USAGE ON SCHEMA polyglot TO {role};
             GRANT SELECT ({columns}) ON exports TO {role}; GRANT SELECT ON shards, state_changes, running_limits TO {role}"
        ),
    )
    .await;
    let separator = if database.url().contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}options[role]={role}", database.url());
    let reader = Ledger::new(&url, 2, "retention-test").unwrap();

    let refused = reader.request(id).await;
    assert!(matches!(refused, Err(LedgerError::Refused(_))), "the role may read requests: {refused:?}");
    let tenants = [DEFAULT_TENANT.to_owned()];
    let of_default = reader.of_tenants(&tenants, "anybody");
    for filter in [
        ListFilter { limit: 9, ..ListFilter::default() },
        ListFilter { limit: 9, status: Some(Status::Pending), before: Some(Uuid::max()) },
    ] {
        assert_eq!(of_default.list(filter).await.unwrap().len(), 2);
    }
    assert_eq!(reader.find_all(&reader.active(9).await.unwrap()).await.unwrap().len(), 2);
    assert!(reader.ended(&[id]).await.unwrap().is_empty());
    assert_eq!(reader.changes_after(0, 9).await.unwrap().len(), 2);
    assert_eq!(reader.changes_of_all(&[id]).await.unwrap().len(), 1);
    assert_eq!(reader.changes_of(id, 0).await.unwrap().len(), 1);
    assert!(reader.last_change().await.unwrap() > of_default.newest_changes(1).await.unwrap());
    // What documents show of the request is there all the same.
    let export = reader.find(id).await.unwrap().unwrap();
    assert_eq!((export.layout, export.requested_parallelism), (Layout::Files, Some(7)));
    assert_eq!((export.dataset.as_str(), export.format.as_str(), export.compression), ("records", "csv", None));
    run(&pool, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
