//! Secrets in files that are replaced while exports run.

use std::path::{Path, PathBuf};

use polyglot_devstack::seed;
use polyglot_test_kit::{System, wait_until};
use polyglot_test_servers::needs_servers;
use rustix::process::Signal;
use sqlx::AssertSqlSafe;

use super::authority::Authority;
use super::postgres::SecuredPostgres;

const DONE: &str = "the secrets in files were read again";
const REFUSED: &str = "the secrets in files cannot be used";

/// Replaces a file in one step.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// Sends SIGHUP to every process, and waits until each has said so once more.
async fn hang_up(system: &System, line: &str) {
    let processes = || system.api.iter().chain(&system.workers);
    let before: Vec<usize> = processes().map(|process| process.log().matches(line).count()).collect();
    processes().for_each(|process| process.signal(Signal::HUP));
    wait_until("every process has read the files", async || {
        processes().zip(&before).all(|(process, before)| process.log().matches(line).count() > *before)
    })
    .await;
}

#[tokio::test]
async fn a_password_is_replaced_while_exports_run_and_nothing_fails() {
    needs_servers!();
    let postgres = SecuredPostgres::start(&Authority::new(), "localhost").await;
    for statement in ["CREATE DATABASE rotated", "CREATE ROLE rotating LOGIN SUPERUSER PASSWORD 'first'"] {
        postgres.sql(statement.to_owned()).await;
    }
    seed::fill(&postgres.url("rotated"), 200_000).await.unwrap();
    let name = format!("test_{}", uuid::Uuid::new_v4().simple());
    let mut system = System::prepare(&name, &postgres.url("rotated"), Vec::new()).await;
    let file: PathBuf = system.file("database-url");
    let url = |password: &str| format!("postgres://rotating:{password}@127.0.0.1:{}/rotated", postgres.port);
    replace(&file, &url("first"));
    system.set("DATABASE_URL", "");
    system.set("DATABASE_URL_FILE", file.to_str().unwrap());
    system.start_api();
    system.wait_until_ready().await;
    system.add_worker();
    system.add_worker();

    let mut ids = Vec::new();
    for round in 0..4 {
        for format in ["csv", "parquet", "json"] {
            ids.push(system.submit(format, None).await);
        }
        let password = format!("password-{round}");
        replace(&file, &url(&password));
        postgres.sql(format!("ALTER ROLE rotating PASSWORD '{password}'")).await;
        hang_up(&system, DONE).await;
        // So that every process needs a connection with the new password.
        let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE usename = 'rotating' AND state = 'idle' AND application_name NOT LIKE 'polyglot export%'";
        sqlx::query(AssertSqlSafe(ended)).execute(&system.pool).await.unwrap();
    }
    for id in &ids {
        system.wait_until_completed(id).await;
    }
    system.wait_until_ready().await;

    // A file that is gone, and one that leads elsewhere: what was read before stays in use.
    std::fs::remove_file(&file).unwrap();
    hang_up(&system, REFUSED).await;
    replace(&file, &url("password-3").replace("/rotated", "/postgres"));
    hang_up(&system, REFUSED).await;
    let id = system.submit("csv", None).await;
    system.wait_until_completed(&id).await;
    let metrics = system.get("/metrics").await.text().await.unwrap();
    for line in
        ["polyglot_secret_reloads_total{outcome=\"done\"} 4", "polyglot_secret_reloads_total{outcome=\"refused\"} 2"]
    {
        assert!(metrics.contains(line), "{metrics}");
    }
    for process in system.api.iter().chain(&system.workers) {
        let log = process.log();
        assert!(!log.contains("password-") && !log.contains("rotating:first"), "{log}");
    }
}
