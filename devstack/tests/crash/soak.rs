//! The soak: many exports of mixed size on three workers under a random fault each second. In the end every export has
//! ended, every file is exact and nothing remains.
//!
//! `SOAK_EXPORTS` (60), `SOAK_SECONDS` of faults (20), and `SOAK_SEED`, which repeats the plan of an earlier run: the same
//! exports and the same faults at the same times, as far as clocks allow.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use polyglot_test_kit::{ApiClient, first_rows, sample_request, wait_until_within};
use polyglot_test_servers::needs_servers;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use sqlx::Row;
use tokio::task::LocalSet;

use crate::cleanup_checks;
use crate::random_faults::RandomFaults;
use crate::reference;
use crate::servers::{ONE_TEST_AT_A_TIME, Servers};
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
/// Limit of the last export once every fault is repaired: pauses between attempts grow to a minute and a half.
const LAST_EXPORT_LIMIT: Duration = Duration::from_mins(4);

/// An export that will be submitted.
#[derive(Clone, Copy)]
struct Planned {
    kind: usize,
    /// Time between the submission before and this one.
    pause: Duration,
    /// Time after which it is deleted, if it is.
    deleted_after: Option<Duration>,
}

pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{variable}: {value}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak() {
    needs_servers!();
    LocalSet::new().run_until(Box::pin(run_soak())).await;
}

async fn run_soak() {
    let _alone = ONE_TEST_AT_A_TIME.lock().await;
    let (exports, seconds) = (number("SOAK_EXPORTS", 60), number("SOAK_SECONDS", 20));
    let seed = number("SOAK_SEED", rand::rng().random_range(0..1_000_000));
    println!("SOAK_SEED={seed} SOAK_EXPORTS={exports} SOAK_SECONDS={seconds}");
    let servers = Servers::start(ROWS).await;
    let requests = KINDS.map(|(format, compression, rows)| first_rows(sample_request(format, compression), rows));
    let files = reference::files(&servers, &requests).await;
    assert!(files[KINDS.len() - 1] == reference::csv_by_copy(&servers, ROWS).await, "not what COPY writes");
    let wanted: Vec<(usize, u64)> = files.iter().map(|file| fingerprint(file)).collect();
    drop(files);

    let env = [("MAX_ATTEMPTS", "50"), ("SHUTDOWN_GRACE_SECONDS", "2"), ("MEMORY_BUDGET_MB", "32")];
    let mut system = System::start(&servers, &env).await;
    for _ in 0..WORKERS {
        system.add_worker();
    }
    let plan = plan(&mut StdRng::seed_from_u64(seed), exports, Duration::from_secs(seconds));
    let began = Instant::now();
    let submitting = submit(system.api_client.clone(), &requests, &plan);
    let restarts = u32::try_from(seconds / 45).unwrap() + 1;
    let mut faults = RandomFaults::new(&mut system, StdRng::seed_from_u64(seed + 1), restarts);
    let (ids, ()) = tokio::join!(submitting, faults.run_for(Duration::from_secs(seconds)));
    println!("every fault is repaired after {:.1} s", began.elapsed().as_secs_f64());
    drop(faults);

    wait_for_all(&system).await;
    println!("all have ended after {:.1} s", began.elapsed().as_secs_f64());
    let objects = assert_exact(&system, &wanted, &ids).await;
    cleanup_checks::assert_nothing_remains_but(&mut system, &objects).await;
    println!("exact and clean after {:.1} s", began.elapsed().as_secs_f64());
    cleanup_checks::remove(system).await;
    servers.stop().await;
}

fn plan(random: &mut StdRng, exports: u64, within: Duration) -> Vec<Planned> {
    // Some are still being submitted in the last second of the faults.
    let mean = within.mul_f64(0.9).as_micros() / u128::from(exports.max(1));
    let mean = u64::try_from(mean).unwrap();
    let mut planned = || {
        let kind = random.random_range(0..KINDS.len());
        let deleted_after = random.random_bool(0.1).then(|| Duration::from_millis(random.random_range(0..5000)));
        Planned { kind, pause: Duration::from_micros(random.random_range(0..=2 * mean)), deleted_after }
    };
    (0..exports).map(|_| planned()).collect()
}

/// Submits the exports of the plan. Returns the ids that the api returned, each with whether it was deleted.
async fn submit(client: ApiClient, requests: &[Value], plan: &[Planned]) -> HashMap<String, bool> {
    let mut submissions = tokio::task::JoinSet::new();
    for planned in plan {
        // The plan spreads the submissions over the time of the faults.
        tokio::time::sleep(planned.pause).await;
        let (client, request, deleted) = (client.clone(), requests[planned.kind].clone(), planned.deleted_after);
        // A submission that has to wait does not delay the others.
        submissions.spawn_local(async move {
            let id = client.submit_with_retries(&request).await;
            if let Some(after) = deleted {
                // The plan decides how far the export is when it is deleted.
                tokio::time::sleep(after).await;
                client.delete_with_retries(&id).await;
            }
            (id, deleted.is_some())
        });
    }
    let accepted = submissions.join_all().await;
    let ids: HashMap<_, _> = accepted.iter().cloned().collect();
    assert_eq!(ids.len(), accepted.len(), "two keys stand for one export");
    ids
}

async fn wait_for_all(system: &System) {
    let active = "SELECT count(*) FROM polyglot.exports WHERE state IN ('pending', 'planning', 'running', 'finishing')";
    wait_until_within(LAST_EXPORT_LIMIT, "all exports have ended", async || match system.count(active).await {
        0 => Ok(()),
        _ => Err(format!("{:#?}", active_exports(system).await)),
    })
    .await;
}

/// Describes the exports that have not ended, for the reader of a failed test.
async fn active_exports(system: &System) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT concat_ws(' ', e.id, e.state, 'attempt', e.attempt, 'failures', e.failures, e.error_code, s.state,
                          s.leased_until - now(), e.token_due_at - now())
         FROM polyglot.exports e LEFT JOIN polyglot.shards s ON s.export_id = e.id
         WHERE e.state IN ('pending', 'planning', 'running', 'finishing')",
    )
    .fetch_all(&system.pool)
    .await
    .unwrap()
}

/// Compares every file. Returns the objects that have to be in the store.
async fn assert_exact(system: &System, wanted: &[(usize, u64)], ids: &HashMap<String, bool>) -> Vec<String> {
    let rows = sqlx::query(
        "SELECT id::text, state, attempt, object_key, error_code, error_detail, format, compression,
                request #>> '{filters,0,values,0}' AS rows FROM polyglot.exports",
    )
    .fetch_all(&system.pool)
    .await
    .unwrap();
    // Each key is one export, however often it was sent, and every accepted export is in the ledger.
    let found: HashSet<String> = rows.iter().map(|row| row.get("id")).collect();
    let missing: Vec<_> = ids.keys().filter(|id| !found.contains(*id)).collect();
    let unknown: Vec<_> = found.iter().filter(|id| !ids.contains_key(*id)).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "accepted and lost: {missing:?}; never returned: {unknown:?}");
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
        let file = system.download_with_retries(&id).await;
        assert_eq!(fingerprint(&file), wanted[kind], "{id} ({:?}, attempt {attempt}) is not exact", KINDS[kind]);
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort();
    println!("{} exports: {counts:?}", rows.len());
    objects
}

/// Length and hash of a file. Hundreds of whole files would be a lot of memory.
fn fingerprint(file: &[u8]) -> (usize, u64) {
    let mut hasher = DefaultHasher::new();
    file.hash(&mut hasher);
    (file.len(), hasher.finish())
}
