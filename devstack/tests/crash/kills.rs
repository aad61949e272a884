//! One large export, and workers that are killed under it.
//!
//! `KILL_ROWS` (1,500,000), `KILL_SECONDS` between two kills (2), `KILL_SEED`, which says in what order they die.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use polyglot_storage::ObjectStore;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::door::request;
use crate::reference;
use crate::remains;
use crate::servers::{ALONE, Servers};
use crate::soak::number;
use crate::system::{Record, System};

const WORKERS: usize = 3;
const SLOTS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_completes_while_a_worker_is_killed_every_two_seconds() {
    let _alone = ALONE.lock().await;
    let (rows, pause) = (number("KILL_ROWS", 1_500_000), Duration::from_secs(number("KILL_SECONDS", 2)));
    let seed = number("KILL_SEED", rand::rng().random_range(0..1_000_000));
    println!("KILL_SEED={seed} KILL_ROWS={rows} KILL_SECONDS={}", pause.as_secs());
    let servers = Servers::start(rows).await;
    let exact = reference::copied_sum(&servers, rows).await;

    let mut system = System::start(&servers, &[("WORKER_SLOTS", &SLOTS.to_string())]).await;
    for _ in 0..WORKERS {
        system.add_worker();
    }
    let began = Instant::now();
    let id = system.door.submit(&request("csv", None, None)).await;
    // Before that, the one that is killed may be the only one that has the snapshot: that is the other test.
    several_keep(&system, &id).await;
    let first = Instant::now();
    let mut random = StdRng::seed_from_u64(seed);
    let (mut kills, mut order) = (0, Vec::new());
    let record = loop {
        let record = system.record(&id).await;
        if record.has_ended() {
            break record;
        }
        assert!(
            began.elapsed() < patience(rows),
            "after {:?} and {kills} kills not at its end: {record:?}",
            began.elapsed()
        );
        if first.elapsed() >= pause * (kills + 1) {
            if order.is_empty() {
                order.extend(0..WORKERS);
                order.shuffle(&mut random);
            }
            let place = order.pop().unwrap();
            kills += 1;
            // Killed when it is dropped.
            system.workers[place] = system.spawn_worker(&format!("worker-{}", WORKERS + kills as usize));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let took = began.elapsed();
    let again = read_again(&system);
    println!(
        "{rows} rows, {} bytes after {:.1} s: {kills} kills, {again} shards read again, {record:?}",
        exact.0,
        took.as_secs_f64()
    );
    assert_eq!((record.state.as_str(), record.attempt), ("completed", 1), "{record:?}");
    assert!(again <= kills as usize * SLOTS, "{again} shards were read again for {kills} kills");
    assert!(kills >= 2, "it was over too soon to tell anything");
    judge(&servers, system, record, exact).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_starts_over_when_every_keeper_of_its_snapshot_is_lost() {
    const ROWS: u64 = 400_000;
    let _alone = ALONE.lock().await;
    let servers = Servers::start(ROWS).await;
    let exact = reference::copied_sum(&servers, ROWS).await;
    let mut system = System::start(&servers, &[("WORKER_SLOTS", "1")]).await;
    system.add_worker();
    let id = system.door.submit(&request("csv", None, None)).await;
    let committed = "SELECT count(*) FROM polyglot.shards WHERE state = 'committed'";
    while system.count(committed).await < 2 {
        let record = system.record(&id).await;
        assert!(!record.has_ended(), "{record:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let upload = upload_of(&system, 1).await.unwrap();
    system.workers.clear();
    let record = system.record(&id).await;
    assert_eq!((record.state.as_str(), record.attempt), ("running", 1), "it was to be in the middle: {record:?}");
    system.add_worker();
    let record = system.ended(&id, Duration::from_mins(1)).await;
    assert_eq!((record.state.as_str(), record.attempt), ("completed", 2), "{record:?}");
    // Of the second attempt alone is there an object, and no upload of either.
    let key = record.object_key.clone().unwrap();
    assert!(key.contains(&format!("{id}/2/")), "{key}");
    let storage = system.storage.clone();
    judge(&servers, system, record, exact).await;
    let uploads = storage.list_uploads(&upload.0).await.unwrap().unwrap();
    assert!(uploads.iter().all(|known| known.id != upload.1), "the first upload is still there");
}

/// The key and the id of an attempt's upload.
async fn upload_of(system: &System, attempt: i32) -> Option<(String, String)> {
    let found = sqlx::query_as("SELECT object_key, upload_id FROM polyglot.uploads WHERE attempt = $1");
    found.bind(attempt).fetch_optional(&system.ledger).await.unwrap()
}

async fn several_keep(system: &System, id: &str) {
    let began = Instant::now();
    while system.count("SELECT count(*) FROM polyglot.keepers").await < 2 {
        let record = system.record(id).await;
        assert!(!record.has_ended() && began.elapsed() < Duration::from_secs(30), "nobody shares it: {record:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Far more than it takes.
fn patience(rows: u64) -> Duration {
    Duration::from_mins(2) + Duration::from_millis(rows / 10)
}

/// Claims of shards that had been claimed before.
fn read_again(system: &System) -> usize {
    let mut times = BTreeMap::<(i32, i32), usize>::new();
    for claim in system.claims().into_iter().filter(|claim| claim.shard > 0) {
        *times.entry((claim.attempt, claim.shard)).or_default() += 1;
    }
    times.values().map(|times| times - 1).sum()
}

/// The file is exact, and nothing is left beside it.
async fn judge(servers: &Arc<Servers>, mut system: System, record: Record, exact: (u64, u32)) {
    let key = record.object_key.unwrap();
    assert_eq!(reference::stored_sum(&system, &key).await, exact, "{key} is not what COPY writes");
    remains::nothing_but(&mut system, &[key]).await;
    remains::remove(system).await;
    servers.stop().await;
}
