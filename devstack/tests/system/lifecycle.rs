//! Workers that share, stop, are stopped and are killed: what happens to the exports they hold.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::json;

use crate::harness::{PATIENCE, Setup, System, export_request};

fn setup(rows: u64, env: &[(&str, &str)]) -> Setup {
    Setup { rows, env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect() }
}

/// Makes the export of `records` slow enough to be caught in the middle: a view in its place that sleeps a little
/// for every hundredth row.
async fn slow_records(system: &System) {
    for statement in [
        "ALTER TABLE public.records RENAME TO fast_records",
        "CREATE VIEW public.records AS SELECT id, created_at, name, value, metadata FROM public.fast_records
         WHERE id % 100 <> 0 OR pg_sleep(0.01) IS NOT NULL",
    ] {
        sqlx::query(statement).execute(&system.pool).await.unwrap();
    }
}

async fn fast_records(system: &System) {
    for statement in ["DROP VIEW public.records", "ALTER TABLE public.fast_records RENAME TO records"] {
        sqlx::query(statement).execute(&system.pool).await.unwrap();
    }
}

async fn running(system: &System, id: &str) {
    system.wait_until(id, "running", |state| state["status"] == "running").await;
}

/// A system whose one worker is in the middle of an export, and that export's id.
async fn caught_running(rows: u64, env: &[(&str, &str)]) -> (System, String) {
    let mut system = System::without_worker(setup(rows, env)).await;
    slow_records(&system).await;
    system.wait_until_ready().await;
    system.add_worker();
    let id = system.submit("csv", None).await;
    running(&system, &id).await;
    (system, id)
}

#[tokio::test]
async fn two_exports_run_at_once_on_two_workers() {
    let mut system = System::without_worker(setup(20_000, &[("WORKER_SLOTS", "1")])).await;
    slow_records(&system).await;
    system.wait_until_ready().await;
    system.add_worker();
    system.add_worker();
    let (first, second) = (system.submit("csv", None).await, system.submit("json", None).await);
    running(&system, &first).await;
    running(&system, &second).await;
    let owners = "SELECT count(DISTINCT lease_owner) FROM polyglot.shards WHERE state = 'leased'";
    assert_eq!(system.count(owners).await, 2);
    for id in [&first, &second] {
        let state = system.completed(id).await;
        assert_eq!(state["progress"]["rows"], 20_000);
    }
}

#[tokio::test]
async fn a_killed_workers_export_is_done_by_another() {
    let (mut system, id) = caught_running(30_000, &[("LEASE_SECONDS", "5")]).await;
    system.workers[0].child.kill().unwrap();
    fast_records(&system).await;
    system.add_worker();
    let state = system.completed(&id).await;
    assert_eq!(state["attempt"], 2, "{state:#}");
    assert_eq!(state["progress"]["rows"], 30_000);
    let file = system.download(&id).await;
    assert_eq!(file.split(|byte| *byte == b'\n').next(), Some(&b"id,created_at,name,value,metadata"[..]));
    // Only the file: what the dead worker had begun is gone.
    let deadline = Instant::now() + Duration::from_secs(30);
    while system.stored().await.0.len() != 1
        || system.count("SELECT count(*) FROM polyglot.uploads WHERE looks < 2").await != 0
    {
        assert!(Instant::now() < deadline, "{:?}", system.stored().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(system.stored().await.1, Vec::<String>::new());
}

#[tokio::test]
async fn a_worker_that_sleeps_through_its_lease_changes_nothing() {
    let (mut system, id) = caught_running(30_000, &[("LEASE_SECONDS", "5")]).await;
    // Its transaction is open for now, so the view cannot be exchanged under it: the second one is as slow.
    system.workers[0].signal(Signal::STOP);
    system.add_worker();
    let state = system.completed(&id).await;
    assert_eq!(state["attempt"], 2, "{state:#}");
    let file = system.download(&id).await;
    // Its session is ended for it, and with it the snapshot that would hold back vacuum until it wakes up.
    let deadline = Instant::now() + PATIENCE;
    while system.count("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'polyglot export %' AND datname = current_database()").await > 0 {
        assert!(Instant::now() < deadline, "the sleeper's session is still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    system.workers[0].signal(Signal::CONT);
    let deadline = Instant::now() + Duration::from_mins(1);
    while !system.workers[0].log().contains("the lease was lost") {
        assert!(Instant::now() < deadline, "the sleeper never noticed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(system.state(&id).await["attempt"], 2);
    assert!(system.download(&id).await == file);
    assert_eq!(system.stored().await.0.len(), 1);
}

#[tokio::test]
async fn sigterm_lets_an_export_finish_within_the_grace() {
    let (mut system, id) = caught_running(10_000, &[]).await;
    system.workers[0].signal(Signal::TERM);
    let status = system.workers[0].ended().await;
    assert!(status.success(), "{status}");
    assert_eq!(system.state(&id).await["status"], "completed");
}

#[tokio::test]
async fn sigterm_gives_back_what_does_not_finish_within_the_grace() {
    let (mut system, id) = caught_running(60_000, &[("SHUTDOWN_GRACE_SECONDS", "1")]).await;
    system.workers[0].signal(Signal::TERM);
    let status = system.workers[0].ended().await;
    assert!(status.success(), "{status}");
    assert_eq!(system.state(&id).await["status"], "pending");
    system.nothing_is_left().await;
    fast_records(&system).await;
    // At once, not when the lease would have run out (30 s).
    system.add_worker();
    system.completed(&id).await;
    assert_eq!(system.count("SELECT failures::bigint FROM polyglot.exports").await, 0);
}

#[tokio::test]
async fn deleting_a_running_export_stops_it_within_two_seconds() {
    let (system, id) = caught_running(200_000, &[]).await;
    let answer = system.request(Method::DELETE, &format!("/exports/{id}")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let asked = Instant::now();
    let state = system.ended(&id).await;
    assert_eq!(state["status"], "cancelled", "{state:#}");
    // Two seconds, and what this busy machine needs on top.
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    system.nothing_is_left().await;
    let download = system.get(&format!("/exports/{id}/download")).await;
    assert_eq!(download.status(), StatusCode::GONE);
    // The server side of the read has ended as well.
    let deadline = Instant::now() + Duration::from_secs(20);
    while system
        .count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'")
        .await
        > 0
    {
        assert!(Instant::now() < deadline, "the COPY goes on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn small_exports_end_while_a_large_one_runs() {
    let (system, large) = caught_running(200_000, &[]).await;
    let mut small = Vec::new();
    for _ in 0..10 {
        let mut request = export_request("csv", None);
        request["filters"] = json!([{"column": "id", "op": "<=", "value": 10}]);
        let answer: serde_json::Value = system.post(&request).await.json().await.unwrap();
        small.push(answer["exportId"].as_str().unwrap().to_owned());
    }
    for id in &small {
        assert_eq!(system.completed(id).await["progress"]["rows"], 10);
    }
    // One worker, and nobody had to wait for the large one.
    assert_eq!(system.state(&large).await["status"], "running");
}

#[tokio::test]
async fn an_export_that_takes_too_long_fails_and_leaves_nothing() {
    let mut system = System::without_worker(setup(200_000, &[("EXPORT_TIMEOUT_MS", "1500")])).await;
    slow_records(&system).await;
    system.wait_until_ready().await;
    system.add_worker();
    let id = system.submit("csv", None).await;
    let state = system.ended(&id).await;
    assert_eq!(state["status"], "failed", "{state:#}");
    assert!(state["error"].as_str().unwrap().contains("EXPORT_TIMEOUT_MS"), "{state:#}");
    system.nothing_is_left().await;
}

#[tokio::test]
async fn files_expire() {
    let system = System::start(setup(10, &[("EXPORT_TTL_SECONDS", "1")])).await;
    let id = system.submit("csv", None).await;
    system.wait_until(&id, "expired", |state| state["status"] == "expired").await;
    system.nothing_is_left().await;
    assert_eq!(system.get(&format!("/exports/{id}/download")).await.status(), StatusCode::GONE);
}

#[tokio::test]
async fn a_table_that_changes_under_the_export_does_not_show() {
    let (system, id) = caught_running(20_000, &[]).await;
    let count = json!(20_000);
    sqlx::query("DELETE FROM public.fast_records WHERE id > 5000").execute(&system.pool).await.unwrap();
    sqlx::query("UPDATE public.fast_records SET name = 'changed'").execute(&system.pool).await.unwrap();
    let state = system.completed(&id).await;
    assert_eq!(state["progress"]["rows"], count, "{state:#}");
    let file = String::from_utf8(system.download(&id).await).unwrap();
    assert!(!file.contains("changed"));
}

/// An older snapshot finds a table empty that was rewritten since: the file would be complete and hold nothing.
#[tokio::test]
async fn a_table_that_is_being_rewritten_is_waited_for_and_exported_whole() {
    for change in [
        "ALTER TABLE public.records ALTER COLUMN name TYPE text USING name || '!'",
        "CREATE TEMP TABLE kept AS TABLE public.records; TRUNCATE public.records; INSERT INTO public.records TABLE kept",
    ] {
        let mut system = System::without_worker(Setup { rows: 1000, ..Setup::default() }).await;
        system.wait_until_ready().await;
        let id = system.submit("csv", None).await;
        let mut rewriting = system.pool.begin().await.unwrap();
        sqlx::raw_sql(change).execute(&mut *rewriting).await.unwrap();
        system.add_worker();
        // The attempt has begun and waits, which nothing outside of the server shows.
        let deadline = Instant::now() + PATIENCE;
        while system.count("SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").await == 0 {
            assert!(Instant::now() < deadline, "nobody waits for the rewritten table");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        rewriting.commit().await.unwrap();
        let state = system.completed(&id).await;
        assert_eq!(state["progress"]["rows"], 1000, "{change}: {state:#}");
        let file = String::from_utf8(system.download(&id).await).unwrap();
        assert_eq!(file.contains("!,"), change.starts_with("ALTER"), "{change}");
    }
}
