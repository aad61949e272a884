//! Workers that share the work, are stopped, frozen and killed: what happens to the exports that they hold.

use std::time::{Duration, Instant};

use polyglot_test_kit::{Setup, System, first_rows, sample_request, wait_until, wait_until_within};
use polyglot_test_servers::needs_servers;
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::json;

/// Makes the export of `records` slow enough for a test to act in the middle of it: a view in its place sleeps 10 ms for
/// every hundredth row.
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

async fn wait_until_running(system: &System, id: &str) {
    system.wait_for_state(id, "running", |state| state["status"] == "running").await;
}

/// A system whose one worker is in the middle of an export, and the id of that export.
async fn running_export(rows: u64, env: &[(&str, &str)]) -> (System, String) {
    let mut system = System::without_worker(Setup::new(rows, env)).await;
    slow_records(&system).await;
    system.wait_until_ready().await;
    system.add_worker();
    let id = system.submit("csv", None).await;
    wait_until_running(&system, &id).await;
    (system, id)
}

#[tokio::test]
async fn two_exports_run_at_once_on_two_workers() {
    needs_servers!();
    let mut system = System::without_worker(Setup::new(20_000, &[("WORKER_SLOTS", "1")])).await;
    slow_records(&system).await;
    system.wait_until_ready().await;
    system.add_worker();
    system.add_worker();
    let (first, second) = (system.submit("csv", None).await, system.submit("json", None).await);
    wait_until_running(&system, &first).await;
    wait_until_running(&system, &second).await;
    let owners = "SELECT count(DISTINCT lease_owner) FROM polyglot.shards WHERE state = 'leased'";
    assert_eq!(system.count(owners).await, 2);
    for id in [&first, &second] {
        let state = system.wait_until_completed(id).await;
        assert_eq!(state["progress"]["rows"], 20_000);
    }
}

#[tokio::test]
async fn a_killed_workers_export_is_done_by_another() {
    needs_servers!();
    let (mut system, id) = running_export(30_000, &[("LEASE_SECONDS", "5")]).await;
    system.workers[0].child.kill().unwrap();
    fast_records(&system).await;
    system.add_worker();
    let state = system.wait_until_completed(&id).await;
    assert_eq!(state["attempt"], 2, "{state:#}");
    assert_eq!(state["progress"]["rows"], 30_000);
    let file = system.download(&id).await;
    assert_eq!(file.split(|byte| *byte == b'\n').next(), Some(&b"id,created_at,name,value,metadata"[..]));
    // The upload that the dead worker had begun is removed.
    system.wait_until_cleaned_up_except(1).await;
}

#[tokio::test]
async fn a_worker_that_is_frozen_past_its_lease_changes_nothing() {
    needs_servers!();
    let (mut system, id) = running_export(30_000, &[("LEASE_SECONDS", "5")]).await;
    // Its transaction is still open, so the view cannot be replaced: the second worker is as slow.
    system.workers[0].signal(Signal::STOP);
    system.add_worker();
    let state = system.wait_until_completed(&id).await;
    assert_eq!(state["attempt"], 2, "{state:#}");
    let file = system.download(&id).await;
    // The ledger ends its session, and with it the snapshot that would hold back vacuum until the worker is resumed.
    let sessions = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name LIKE 'polyglot export %' AND datname = current_database()";
    system.wait_until_none("the session of the frozen worker has ended", sessions).await;
    system.workers[0].signal(Signal::CONT);
    wait_until_within(Duration::from_mins(1), "the resumed worker notices that its lease was lost", async || {
        system.workers[0].log().contains("the lease was lost")
    })
    .await;
    assert_eq!(system.state(&id).await["attempt"], 2);
    assert!(system.download(&id).await == file);
    assert_eq!(system.bucket.objects().await.len(), 1);
}

#[tokio::test]
async fn sigterm_lets_an_export_finish_within_the_grace() {
    needs_servers!();
    let (mut system, id) = running_export(10_000, &[]).await;
    system.workers[0].signal(Signal::TERM);
    let status = system.workers[0].wait_for_exit().await;
    assert!(status.success(), "{status}");
    assert_eq!(system.state(&id).await["status"], "completed");
}

#[tokio::test]
async fn sigterm_gives_back_what_does_not_finish_within_the_grace() {
    needs_servers!();
    let (mut system, id) = running_export(60_000, &[("SHUTDOWN_GRACE_SECONDS", "1")]).await;
    system.workers[0].signal(Signal::TERM);
    let status = system.workers[0].wait_for_exit().await;
    assert!(status.success(), "{status}");
    assert_eq!(system.state(&id).await["status"], "pending");
    system.wait_until_cleaned_up().await;
    fast_records(&system).await;
    // At once, not when the lease would have expired (30 s).
    system.add_worker();
    system.wait_until_completed(&id).await;
    assert_eq!(system.count("SELECT failures::bigint FROM polyglot.exports").await, 0);
}

#[tokio::test]
async fn deleting_a_running_export_stops_it_within_two_seconds() {
    needs_servers!();
    let (system, id) = running_export(200_000, &[]).await;
    let answer = system.delete(&id).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let asked = Instant::now();
    let state = system.wait_until_ended(&id).await;
    assert_eq!(state["status"], "cancelled", "{state:#}");
    // Two seconds, and what this busy machine needs on top.
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    system.wait_until_cleaned_up().await;
    // It is no loss of a lease, for which there is an alert.
    assert!(!system.workers[0].log().contains("the lease was lost"), "{}", system.workers[0].log());
    let download = system.get(&format!("/exports/{id}/download")).await;
    assert_eq!(download.status(), StatusCode::GONE);
    let asked_for = format!("export_id={id}");
    let log = system.api.as_ref().unwrap().log();
    assert!(log.lines().any(|line| line.contains("/download") && line.contains(&asked_for)), "{log}");
    // The server side of the read has ended as well.
    let copies = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'";
    wait_until_within(Duration::from_secs(20), "the COPY has ended", async || system.count(copies).await == 0).await;
}

#[tokio::test]
async fn small_exports_end_while_a_large_one_runs() {
    needs_servers!();
    let (system, large) = running_export(200_000, &[]).await;
    let mut small = Vec::new();
    for _ in 0..10 {
        small.push(system.submit_request(&first_rows(sample_request("csv", None), 10)).await);
    }
    for id in &small {
        assert_eq!(system.wait_until_completed(id).await["progress"]["rows"], 10);
    }
    // There is one worker, and the small exports did not wait for the large one.
    assert_eq!(system.state(&large).await["status"], "running");
}

#[tokio::test]
async fn an_export_that_takes_too_long_fails_and_leaves_nothing() {
    needs_servers!();
    let mut system = System::without_worker(Setup::new(200_000, &[("EXPORT_TIMEOUT_MS", "1500")])).await;
    slow_records(&system).await;
    system.wait_until_ready().await;
    system.add_worker();
    let id = system.submit("csv", None).await;
    let state = system.wait_until_ended(&id).await;
    assert_eq!(state["status"], "failed", "{state:#}");
    assert!(state["error"].as_str().unwrap().contains("EXPORT_TIMEOUT_MS"), "{state:#}");
    system.wait_until_cleaned_up().await;
}

#[tokio::test]
async fn files_expire() {
    needs_servers!();
    let system = System::start(Setup::new(10, &[("EXPORT_TTL_SECONDS", "1")])).await;
    let id = system.submit("csv", None).await;
    system.wait_for_state(&id, "expired", |state| state["status"] == "expired").await;
    system.wait_until_cleaned_up().await;
    assert_eq!(system.get(&format!("/exports/{id}/download")).await.status(), StatusCode::GONE);
}

#[tokio::test]
async fn a_table_that_changes_under_the_export_does_not_show() {
    needs_servers!();
    let (system, id) = running_export(20_000, &[]).await;
    let count = json!(20_000);
    sqlx::query("DELETE FROM public.fast_records WHERE id > 5000").execute(&system.pool).await.unwrap();
    sqlx::query("UPDATE public.fast_records SET name = 'changed'").execute(&system.pool).await.unwrap();
    let state = system.wait_until_completed(&id).await;
    assert_eq!(state["progress"]["rows"], count, "{state:#}");
    let file = String::from_utf8(system.download(&id).await).unwrap();
    assert!(!file.contains("changed"));
}

/// An older snapshot finds a table empty that was rewritten since: the file would be complete and hold nothing.
#[tokio::test]
async fn a_table_that_is_being_rewritten_is_waited_for_and_exported_whole() {
    needs_servers!();
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
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        wait_until("the export waits for the rewritten table", async || system.count(waiting).await > 0).await;
        rewriting.commit().await.unwrap();
        let state = system.wait_until_completed(&id).await;
        assert_eq!(state["progress"]["rows"], 1000, "{change}: {state:#}");
        let file = String::from_utf8(system.download(&id).await).unwrap();
        assert_eq!(file.contains("!,"), change.starts_with("ALTER"), "{change}");
    }
}
