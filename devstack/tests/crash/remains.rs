//! What must not be left when every export has ended: in the store, in the ledger, on the source, at the broker, in the
//! workers' folders.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use polyglot_storage::ObjectStore;
use rustix::process::Signal;

use crate::broker;
use crate::system::System;

/// How long tidying up may take: a sweep a second, ten until its second look, a pause of ten after a store that failed,
/// twenty until the ledger ends the transaction of a process that is frozen.
const PATIENCE: Duration = Duration::from_secs(45);

/// The ledger's database is named as the role that reads the source.
pub(crate) const OPEN_ON_SOURCE: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = current_database()
    AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)";

/// Waits until nothing is left but these objects, ends the workers, and looks once more. Panics with what is left.
pub(crate) async fn nothing_but(system: &mut System, objects: &[String]) {
    clean(system, objects, PATIENCE).await;
    // A message that nobody acknowledged shows when its holder has gone.
    for worker in &system.workers {
        worker.signal(Signal::TERM);
    }
    for worker in &mut system.workers {
        let status = worker.ended().await;
        assert!(status.success(), "{}: {status}", worker.name);
    }
    // The api still looks at the source now and then, for a moment.
    clean(system, objects, Duration::from_secs(5)).await;
}

async fn clean(system: &System, objects: &[String], patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let left = of(system, objects).await;
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left after {patience:?}: {}", left.join("; "));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn of(system: &System, wanted: &[String]) -> Vec<String> {
    let mut left = Vec::new();
    let mut note = |count: i64, what: &str| {
        if count != 0 {
            left.push(format!("{count} {what}"));
        }
    };
    for (what, sql) in [
        (
            "active exports",
            "SELECT count(*) FROM polyglot.exports WHERE state IN ('pending', 'planning', 'running', 'finishing')",
        ),
        // A last look, a quarter of an hour later, is for stores that take minutes.
        ("uploads in the ledger", "SELECT count(*) FROM polyglot.uploads WHERE looks < 2"),
        // Of ended exports there is none left, in any state.
        ("shards", "SELECT count(*) FROM polyglot.shards"),
        ("keepers of snapshots", "SELECT count(*) FROM polyglot.keepers"),
        ("messages in the outbox", "SELECT count(*) FROM polyglot.outbox"),
        (
            "files of expired exports",
            "SELECT count(*) FROM polyglot.exports WHERE state = 'expired' AND object_key IS NOT NULL",
        ),
        ("open transactions on the source", OPEN_ON_SOURCE),
    ] {
        note(system.count(sql).await, what);
    }
    let (url, queue) = (&system.servers.amqp_url, &system.name);
    note(broker::ready(url, queue).await.into(), "messages in the queue");
    note(broker::ready(url, &format!("{queue}.dead")).await.into(), "dead letters");
    note(i64::try_from(files_below(&system.temporary_files())).unwrap(), "temporary files");

    let mut objects = system.storage.list_keys("").try_concat().await.unwrap();
    objects.sort_unstable();
    let mut wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    if objects != wanted {
        left.push(format!("objects {objects:?} instead of {wanted:?}"));
    }
    for upload in system.storage.list_uploads("").await.unwrap().unwrap() {
        left.push(format!("the upload {} of {}", upload.id, upload.key));
    }
    left
}

fn files_below(folder: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

/// Takes the system's ledger, bucket and queue away, for there are many systems in one run.
pub(crate) async fn remove(system: System) {
    for key in system.storage.list_keys("").try_concat().await.unwrap() {
        system.storage.delete(&key).await.unwrap();
    }
    system.storage.delete_bucket().await.ok();
    broker::delete(&system.servers.amqp_url, &system.name).await;
    system.ledger.close().await;
    let (servers, name) = (system.servers.clone(), system.name.clone());
    drop(system);
    servers.drop_ledger(&name).await;
}
