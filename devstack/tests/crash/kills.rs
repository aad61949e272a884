//! One large export, and workers that are killed while it runs.
//!
//! `KILL_ROWS` (1,500,000), `KILL_SECONDS` between two kills (2), and `KILL_SEED`, which decides the order of the workers.

use std::collections::BTreeMap;
use std::time::Duration;

use polyglot_test_kit::{sample_request, wait_until, wait_until_within};
use polyglot_test_servers::needs_servers;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, timeout_at};

use crate::cleanup_checks;
use crate::reference;
use crate::servers::{ONE_TEST_AT_A_TIME, Servers};
use crate::soak::number;
use crate::system::{Record, System};

const WORKERS: usize = 3;
const SLOTS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_completes_while_a_worker_is_killed_every_two_seconds() {
    needs_servers!();
    let _alone = ONE_TEST_AT_A_TIME.lock().await;
    let (rows, pause) = (number("KILL_ROWS", 1_500_000), Duration::from_secs(number("KILL_SECONDS", 2)));
    let seed = number("KILL_SEED", rand::rng().random_range(0..1_000_000));
    println!("KILL_SEED={seed} KILL_ROWS={rows} KILL_SECONDS={}", pause.as_secs());
    let servers = Servers::start(rows).await;
    let exact = reference::length_and_crc32_by_copy(&servers, rows).await;

    let mut system = System::start(&servers, &[("WORKER_SLOTS", &SLOTS.to_string())]).await;
    for _ in 0..WORKERS {
        system.add_worker();
    }
    let began = Instant::now();
    let id = system.submit_with_retries(&sample_request("csv", None)).await;
    // Before that, the worker that is killed may be the only one that holds the snapshot: that is the other test.
    wait_for_two_snapshot_holders(&system, &id).await;
    let first = Instant::now();
    let mut random = StdRng::seed_from_u64(seed);
    let (mut kills, mut order) = (0, Vec::new());
    let record = loop {
        let next_kill = first + pause * (kills + 1);
        let left = time_limit(rows).saturating_sub(began.elapsed());
        if let Ok(record) = timeout_at(next_kill, system.wait_for_end_in_ledger(&id, left)).await {
            break record;
        }
        if order.is_empty() {
            order.extend(0..WORKERS);
            order.shuffle(&mut random);
        }
        let place = order.pop().unwrap();
        kills += 1;
        // The one that was there is dropped, and with that killed.
        system.workers[place] = system.spawn_worker(&format!("worker-{}", WORKERS + kills as usize));
    };
    let took = began.elapsed();
    let again = shards_read_again(&system);
    println!(
        "{rows} rows, {} bytes after {:.1} s: {kills} kills, {again} shards read again, {record:?}",
        exact.0,
        took.as_secs_f64()
    );
    assert_eq!((record.state.as_str(), record.attempt), ("completed", 1), "{record:?}");
    assert!(again <= kills as usize * SLOTS, "{again} shards were read again for {kills} kills");
    assert!(kills >= 2, "it ended too soon to show anything");
    assert_exact_and_clean(&mut system, record, exact).await;
    cleanup_checks::remove(system).await;
    servers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_starts_over_when_every_holder_of_its_snapshot_is_lost() {
    const ROWS: u64 = 400_000;
    needs_servers!();
    let _alone = ONE_TEST_AT_A_TIME.lock().await;
    let servers = Servers::start(ROWS).await;
    let exact = reference::length_and_crc32_by_copy(&servers, ROWS).await;
    let mut system = System::start(&servers, &[("WORKER_SLOTS", "1")]).await;
    system.add_worker();
    let id = system.submit_with_retries(&sample_request("csv", None)).await;
    wait_until("two shards are committed", async || {
        let record = system.record(&id).await;
        assert!(!record.has_ended(), "{record:?}");
        system.count("SELECT count(*) FROM polyglot.shards WHERE state = 'committed'").await >= 2
    })
    .await;
    let (upload_key, upload_id) = upload_of_attempt(&system, 1).await.unwrap();
    system.workers.clear();
    let record = system.record(&id).await;
    assert_eq!((record.state.as_str(), record.attempt), ("running", 1), "not caught in the middle: {record:?}");
    system.add_worker();
    let record = system.wait_for_end_in_ledger(&id, Duration::from_mins(1)).await;
    assert_eq!((record.state.as_str(), record.attempt), ("completed", 2), "{record:?}");
    // The object is the second attempt's, and neither attempt has an upload left.
    let key = record.object_key.clone().unwrap();
    assert!(key.contains(&format!("{id}/2/")), "{key}");
    assert_exact_and_clean(&mut system, record, exact).await;
    assert!(!system.bucket.has_upload(&upload_key, &upload_id).await, "the first upload is still there");
    cleanup_checks::remove(system).await;
    servers.stop().await;
}

/// Key and id of an attempt's upload.
async fn upload_of_attempt(system: &System, attempt: i32) -> Option<(String, String)> {
    let found = sqlx::query_as("SELECT object_key, upload_id FROM polyglot.uploads WHERE attempt = $1");
    found.bind(attempt).fetch_optional(&system.pool).await.unwrap()
}

async fn wait_for_two_snapshot_holders(system: &System, id: &str) {
    wait_until_within(Duration::from_secs(30), "two workers hold the snapshot", async || {
        let record = system.record(id).await;
        assert!(!record.has_ended(), "it ended before two workers held its snapshot: {record:?}");
        system.count("SELECT count(*) FROM polyglot.keepers").await >= 2
    })
    .await;
}

/// Far more than the export takes.
fn time_limit(rows: u64) -> Duration {
    Duration::from_mins(2) + Duration::from_millis(rows / 10)
}

/// Number of claims of shards that had been claimed before.
fn shards_read_again(system: &System) -> usize {
    let mut times = BTreeMap::<(i32, i32), usize>::new();
    for claim in system.claims().into_iter().filter(|claim| claim.shard > 0) {
        *times.entry((claim.attempt, claim.shard)).or_default() += 1;
    }
    times.values().map(|times| times - 1).sum()
}

/// Asserts that the file is exact and that nothing remains beside it.
async fn assert_exact_and_clean(system: &mut System, record: Record, exact: (u64, u32)) {
    let key = record.object_key.unwrap();
    assert_eq!(system.bucket.length_and_crc32(&key).await, exact, "{key} is not what COPY writes");
    cleanup_checks::assert_nothing_remains_but(system, &[key]).await;
}
