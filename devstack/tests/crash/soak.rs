//! The soak: many exports of mixed size on three workers, a random fault each second, and in the end every one has ended,
//! every file is exact and nothing is left.
//!
//! `SOAK_EXPORTS` (60), `SOAK_SECONDS` of faults (20), and `SOAK_SEED`, which repeats the plan of an earlier run: the same
//! exports and the same faults at the same times, as far as clocks allow.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use sqlx::Row;
use tokio::task::LocalSet;

use crate::door::{Door, request};
use crate::mishaps::Mishaps;
use crate::reference;
use crate::remains;
use crate::servers::{ALONE, Servers};
use crate::system::System;

/// Formats with and without compression, by number of rows. The tiny ones are a `PutObject`; 60,000 rows are several parts.
const KINDS: [(&str, Option<&str>, u64); 18] = [
    ("csv", None, 0),
    ("csv", None, 10),
    ("json", None, 10),
    ("jsonl", None, 100),
    ("xml", None, 1),
    ("parquet", None, 1000),
    ("csv", Some("gzip"), 1000),
    ("jsonl", Some("zstd"), 1000),
    ("json", None, 8000),
    ("xml", None, 8000),
    ("csv", None, 20_000),
    ("parquet", None, 20_000),
    ("jsonl", Some("gzip"), 20_000),
    ("csv", Some("gzip"), 60_000),
    ("jsonl", None, 60_000),
    ("xml", None, 60_000),
    ("parquet", None, 150_000),
    ("csv", None, 200_000),
];
const ROWS: u64 = 200_000;
const WORKERS: usize = 3;
/// How long the last export may take once nothing is broken any more: pauses between attempts grow to a minute and a half.
const PATIENCE: Duration = Duration::from_mins(4);

/// One of the exports to come.
#[derive(Clone, Copy)]
struct Planned {
    kind: usize,
    pause: Duration,
    /// After so long it is deleted.
    deleted: Option<Duration>,
}

pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{variable}: {value}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak() {
    LocalSet::new().run_until(Box::pin(all_of_it())).await;
}

async fn all_of_it() {
    let _alone = ALONE.lock().await;
    let (exports, seconds) = (number("SOAK_EXPORTS", 60), number("SOAK_SECONDS", 20));
    let seed = number("SOAK_SEED", rand::rng().random_range(0..1_000_000));
    println!("SOAK_SEED={seed} SOAK_EXPORTS={exports} SOAK_SECONDS={seconds}");
    let servers = Servers::start(ROWS).await;
    let requests = KINDS.map(|(format, compression, rows)| request(format, compression, Some(rows)));
    let files = reference::files(&servers, &requests).await;
    assert!(files[KINDS.len() - 1] == reference::copied(&servers, ROWS).await, "not what COPY writes");
    let wanted: Vec<(usize, u64)> = files.iter().map(|file| fingerprint(file)).collect();
    drop(files);

    let env = [("MAX_ATTEMPTS", "50"), ("SHUTDOWN_GRACE_SECONDS", "2"), ("MEMORY_BUDGET_MB", "32")];
    let mut system = System::start(&servers, &env).await;
    for _ in 0..WORKERS {
        system.add_worker();
    }
    let plan = plan(&mut StdRng::seed_from_u64(seed), exports, Duration::from_secs(seconds));
    let began = Instant::now();
    let submitting = submit(system.door.clone(), &requests, &plan);
    let restarts = u32::try_from(seconds / 45).unwrap() + 1;
    let mut mishaps = Mishaps::new(&mut system, StdRng::seed_from_u64(seed + 1), restarts);
    let (ids, ()) = tokio::join!(submitting, mishaps.befall(Duration::from_secs(seconds)));
    println!("everything is put right after {:.1} s", began.elapsed().as_secs_f64());
    drop(mishaps);

    wait_for_all(&system).await;
    println!("all have ended after {:.1} s", began.elapsed().as_secs_f64());
    let objects = judge(&system, &wanted, &ids).await;
    remains::nothing_but(&mut system, &objects).await;
    println!("exact and clean after {:.1} s", began.elapsed().as_secs_f64());
    remains::remove(system).await;
    servers.stop().await;
}

fn plan(random: &mut StdRng, exports: u64, within: Duration) -> Vec<Planned> {
    // Some are still being submitted in the last second of the faults.
    let mean = within.mul_f64(0.9).as_micros() / u128::from(exports.max(1));
    let mean = u64::try_from(mean).unwrap();
    let mut planned = || {
        let kind = random.random_range(0..KINDS.len());
        let deleted = random.random_bool(0.1).then(|| Duration::from_millis(random.random_range(0..5000)));
        Planned { kind, pause: Duration::from_micros(random.random_range(0..=2 * mean)), deleted }
    };
    (0..exports).map(|_| planned()).collect()
}

/// Submits all of the plan. The answer is the ids that were told, each with whether it was deleted.
async fn submit(door: Door, requests: &[Value], plan: &[Planned]) -> HashMap<String, bool> {
    let mut clients = tokio::task::JoinSet::new();
    for planned in plan {
        tokio::time::sleep(planned.pause).await;
        let (door, request, deleted) = (door.clone(), requests[planned.kind].clone(), planned.deleted);
        // One that has to wait does not keep the others.
        clients.spawn_local(async move {
            let id = door.submit(&request).await;
            if let Some(after) = deleted {
                tokio::time::sleep(after).await;
                door.delete(&id).await;
            }
            (id, deleted.is_some())
        });
    }
    let told = clients.join_all().await;
    let ids: HashMap<_, _> = told.iter().cloned().collect();
    assert_eq!(ids.len(), told.len(), "two keys stand for one export");
    ids
}

async fn wait_for_all(system: &System) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let active =
            "SELECT count(*) FROM polyglot.exports WHERE state IN ('pending', 'planning', 'running', 'finishing')";
        let active = system.count(active).await;
        if active == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{active} exports do not end: {:#?}", states(system).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The exports that have not ended, for the reader of a failed test.
async fn states(system: &System) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT concat_ws(' ', e.id, e.state, 'attempt', e.attempt, 'failures', e.failures, e.error_code, s.state,
                          s.leased_until - now(), e.token_due_at - now())
         FROM polyglot.exports e LEFT JOIN polyglot.shards s ON s.export_id = e.id
         WHERE e.state IN ('pending', 'planning', 'running', 'finishing')",
    )
    .fetch_all(&system.ledger)
    .await
    .unwrap()
}

/// Compares every file. The answer is the objects that belong there.
async fn judge(system: &System, wanted: &[(usize, u64)], ids: &HashMap<String, bool>) -> Vec<String> {
    let rows = sqlx::query(
        "SELECT id::text, state, attempt, object_key, error_code, error_detail, format, compression,
                request #>> '{filters,0,values,0}' AS rows FROM polyglot.exports",
    )
    .fetch_all(&system.ledger)
    .await
    .unwrap();
    // Each key is one export, however often it was sent, and what was accepted is there.
    let found: HashSet<String> = rows.iter().map(|row| row.get("id")).collect();
    let missing: Vec<_> = ids.keys().filter(|id| !found.contains(*id)).collect();
    let unknown: Vec<_> = found.iter().filter(|id| !ids.contains_key(*id)).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "accepted and lost: {missing:?}; never told: {unknown:?}");
    let mut objects = Vec::new();
    let mut counts = HashMap::<String, u32>::new();
    for row in &rows {
        let (id, state): (String, String) = (row.get("id"), row.get("state"));
        let attempt: i32 = row.get("attempt");
        *counts.entry(state.clone()).or_default() += 1;
        *counts.entry(format!("attempts {attempt:2}")).or_default() += 1;
        if state != "completed" {
            let detail: Option<String> = row.get("error_detail");
            assert!(ids[&id], "{id} is {state} though nobody deleted it: {detail:?}");
            assert!(["cancelled", "expired"].contains(&state.as_str()), "{id} is {state}: {detail:?}");
            continue;
        }
        assert!(!ids[&id], "{id} was deleted and is {state}");
        objects.push(row.get("object_key"));
        let (format, compression): (String, Option<String>) = (row.get("format"), row.get("compression"));
        let rows: u64 = row.get::<String, _>("rows").parse().unwrap();
        let kind = KINDS.iter().position(|kind| *kind == (format.as_str(), compression.as_deref(), rows)).unwrap();
        let file = system.door.download(&id).await;
        assert_eq!(fingerprint(&file), wanted[kind], "{id} ({:?}, attempt {attempt}) is not exact", KINDS[kind]);
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort();
    println!("{} exports: {counts:?}", rows.len());
    objects
}

/// Enough to tell two files apart; hundreds of whole ones would be a lot of memory.
fn fingerprint(file: &[u8]) -> (usize, u64) {
    let mut hasher = DefaultHasher::new();
    file.hash(&mut hasher);
    (file.len(), hasher.finish())
}
