//! Checks that nothing remains when every export has ended: in the store, in the ledger, on the source, at the broker, in
//! the workers' folders.

use std::path::Path;
use std::time::Duration;

use polyglot_test_kit::wait_until_within;
use rustix::process::Signal;

use crate::broker;
use crate::system::System;

/// Limit of the clean-up: a sweep a second, ten until the second check of an upload, a pause of ten after a store that
/// failed, twenty until the ledger ends the transaction of a process that is frozen.
const CLEANUP_LIMIT: Duration = Duration::from_secs(45);
/// Limit of what an ended worker leaves: the api still queries the source now and then, for a moment.
const AFTER_THE_WORKERS_LIMIT: Duration = Duration::from_secs(5);

/// The ledger's database is named as the role that reads the source.
pub(crate) const OPEN_ON_SOURCE: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = current_database()
    AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)";

/// Counts in the ledger and on the source that have to come to 0.
const COUNTS: [(&str, &str); 7] = [
    (
        "active exports",
        "SELECT count(*) FROM polyglot.exports WHERE state IN ('pending', 'planning', 'running', 'finishing')",
    ),
    // The last check, a quarter of an hour later, is for stores that take minutes.
    ("uploads in the ledger", "SELECT count(*) FROM polyglot.uploads WHERE looks < 2"),
    // Ended exports have none, in any state.
    ("shards", "SELECT count(*) FROM polyglot.shards"),
    ("snapshot holders", "SELECT count(*) FROM polyglot.keepers"),
    ("messages in the outbox", "SELECT count(*) FROM polyglot.outbox"),
    (
        "files of expired exports",
        "SELECT count(*) FROM polyglot.exports WHERE state = 'expired' AND object_key IS NOT NULL",
    ),
    ("open transactions on the source", OPEN_ON_SOURCE),
];

/// Waits until nothing remains but these objects, ends the workers, and checks once more. Panics with what remains.
pub(crate) async fn assert_nothing_remains_but(system: &mut System, objects: &[String]) {
    wait_until_clean(system, objects, CLEANUP_LIMIT).await;
    // A message that nobody acknowledged shows when its holder has ended.
    for worker in &system.workers {
        worker.signal(Signal::TERM);
    }
    for worker in &mut system.workers {
        let status = worker.wait_for_exit().await;
        assert!(status.success(), "{}: {status}", worker.name);
    }
    wait_until_clean(system, objects, AFTER_THE_WORKERS_LIMIT).await;
}

async fn wait_until_clean(system: &System, objects: &[String], limit: Duration) {
    wait_until_within(limit, "everything is cleaned up", async || {
        // First what is cheap to ask, so that waiting for it costs the broker and the store nothing.
        let mut remaining = remaining_in_databases(system).await;
        if remaining.is_empty() {
            remaining = remaining_elsewhere(system, objects).await;
        }
        if remaining.is_empty() { Ok(()) } else { Err(remaining.join("; ")) }
    })
    .await;
}

async fn remaining_in_databases(system: &System) -> Vec<String> {
    let mut remaining = Vec::new();
    for (what, sql) in COUNTS {
        let count = system.count(sql).await;
        if count != 0 {
            remaining.push(format!("{count} {what}"));
        }
    }
    remaining
}

async fn remaining_elsewhere(system: &System, objects: &[String]) -> Vec<String> {
    let mut remaining = Vec::new();
    let [messages, dead_letters] =
        broker::ready_messages(&system.servers.amqp_url, [&system.name, &format!("{}.dead", system.name)]).await;
    let files = files_below(&system.temporary_files());
    for (count, what) in [
        (messages as usize, "messages in the queue"),
        (dead_letters as usize, "dead letters"),
        (files, "temporary files"),
    ] {
        if count != 0 {
            remaining.push(format!("{count} {what}"));
        }
    }
    let mut wanted = objects.to_vec();
    wanted.sort_unstable();
    let stored = system.bucket.objects().await;
    if stored != wanted {
        remaining.push(format!("objects {stored:?} instead of {wanted:?}"));
    }
    let uploads = system.bucket.uploads().await;
    remaining.extend(uploads.iter().map(|(key, id)| format!("the upload {id} of {key}")));
    remaining
}

fn files_below(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

/// Removes the system's bucket, queue and ledger: there are many systems in one run.
pub(crate) async fn remove(system: System) {
    system.bucket.remove().await;
    broker::delete(&system.servers.amqp_url, &system.name).await;
    system.pool.close().await;
    let (servers, name) = (system.servers.clone(), system.name.clone());
    drop(system);
    servers.drop_ledger(&name).await;
}
