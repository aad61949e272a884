//! The cost of a sharded export in the ledger alone: eight claimers that do nothing between their calls, so that every
//! statement is waited for, and the sums of the finish.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use polyglot_core::format_options::FormatOptions;
use polyglot_core::manifest::Manifest;
use polyglot_core::relation::RelationName;
use polyglot_core::request::{ColumnMapping, ExportRequest};
use polyglot_formats::{Format, standalone};
use polyglot_ledger::{
    Claim, Claimed, Committed, Finished, JobKind, Ledger, LedgerError, Planned, RetryPolicy, SnapshotHolder,
    StoredShard, Terms,
};
use polyglot_worker::end_of_file;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::sample;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const CLAIMERS: usize = 8;
/// Number of processes that hold the snapshot.
const WORKERS: usize = 4;
const LEASE: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_secs(1);
/// Number of messages that the relay sends at a time, as in the worker.
const MESSAGES: i64 = 200;
const TERMS: Terms = Terms {
    lease: LEASE,
    timeout: None,
    snapshot_age: None,
    retry: RetryPolicy { max_attempts: 3, first_pause: LEASE, longest_pause: LEASE },
    max_open_snapshots: 4,
    check_request: |_| Ok(()),
};

/// Time of the ledger's calls for one shard.
#[derive(Clone, Copy, Default)]
struct Took {
    claim: Duration,
    renew: Duration,
    commit: Duration,
}

/// Runs an export of `shards` shards through the ledger at `url`, an empty database, and prints the figures.
///
/// With `held` a transaction is open in the ledger's own database all the while, as the transaction of a snapshot
/// holder is where the source is the same database: no row version that the ledger has replaced can be vacuumed before
/// it ends.
pub(crate) async fn measure(url: &str, shards: u16, held: bool) -> Result<()> {
    let ledger = Ledger::new(url, 16, "polyglot-bench")?;
    ledger.migrate().await?;
    let mut holder = PgConnection::connect(url).await?;
    if held {
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT count(*) FROM polyglot.exports")
            .execute(&mut holder)
            .await?;
    }

    let id = ledger.submit("default", &request()).await?;
    let start = claim(&ledger, id).await?.ok_or("nothing to plan")?;
    ledger.begin_upload(&start, "key").await?;
    ledger.record_upload(&start, "key", "upload").await?;
    let bounds = (0..shards).map(|n| {
        serde_json::json!({"from": [(u64::from(n) * 53_687).to_string()], "to": [(u64::from(n + 1) * 53_687).to_string()]})
    });
    let planned = Planned {
        plan: serde_json::json!({"columns": [], "order": [], "snapshot": {"time": "", "wal_position": ""}}),
        bounds: bounds.collect(),
        rows_estimate: Some(1),
        parallelism: 16,
    };
    let began = Instant::now();
    ledger.planned(&start, &planned, SnapshotHolder { owner: "worker 0", snapshot: "snapshot", lease: LEASE }).await?;
    let planning = began.elapsed();

    let is_finished = Arc::new(AtomicBool::new(false));
    let mut background = JoinSet::new();
    background.spawn(relay(ledger.clone(), Arc::clone(&is_finished)));
    for worker in 0..WORKERS {
        background.spawn(hold(ledger.clone(), start.clone(), format!("worker {worker}"), Arc::clone(&is_finished)));
    }
    let stored = Arc::new(stored());
    let took = Arc::new(Mutex::new(Vec::with_capacity(shards.into())));
    let began = Instant::now();
    let mut claimers = JoinSet::new();
    for _ in 0..CLAIMERS {
        claimers.spawn(work(ledger.clone(), id, Arc::clone(&stored), Arc::clone(&took)));
    }
    while let Some(ended) = claimers.join_next().await {
        ended??;
    }
    let working = began.elapsed();
    is_finished.store(true, Ordering::Relaxed);
    while let Some(ended) = background.join_next().await {
        ended??;
    }

    let began = Instant::now();
    let last = claim(&ledger, id).await?.ok_or("nothing to finish")?;
    let JobKind::Finish(cut) = &last.work else { return Err("not every shard is committed".into()) };
    let end = end_of_file(&ledger, &last, cut).await?;
    let summing = began.elapsed();
    let began = Instant::now();
    let manifest = Manifest { rows: 1, bytes: 1, uncompressed_bytes: 1, ..end.manifest };
    let finished = Finished { object_key: "key".into(), etag: None, peak_memory_bytes: None, manifest };
    ledger.complete(&last, &finished, None).await?;
    let completing = began.elapsed();
    drop(holder);

    let took = took.lock().expect("no claimer has panicked");
    let holding = if held { "a snapshot held in the ledger's database" } else { "no snapshot held" };
    println!("{shards} shards through the ledger, {CLAIMERS} claimers, {holding}");
    println!(
        "  all of it {:.1} s, {:.2} ms a shard; of these: to store the plan {:.2} s, to sum up {:.2} s ({} bytes of row groups a \
         shard, {} bytes of footer), to complete {:.2} s",
        (planning + working + summing + completing).as_secs_f64(),
        (planning + working + summing + completing).as_secs_f64() * 1000.0 / f64::from(shards),
        planning.as_secs_f64(),
        summing.as_secs_f64(),
        stored.row_groups.as_ref().map_or(0, Vec::len),
        end.bytes,
        completing.as_secs_f64(),
    );
    println!("  median ms of a call     claim   renew  commit");
    let tenth = took.len() / 10;
    for (name, range) in [
        ("first tenth", 0..tenth),
        ("in the middle", took.len() / 2 - tenth / 2..took.len() / 2 + tenth / 2),
        ("last tenth", took.len() - tenth..took.len()),
    ] {
        let median = |of: fn(&Took) -> Duration| {
            let mut times: Vec<Duration> = took[range.clone()].iter().map(of).collect();
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64() * 1000.0
        };
        let [claim, renew, commit] = [median(|it| it.claim), median(|it| it.renew), median(|it| it.commit)];
        println!("  {name:<20} {claim:8.2}{renew:8.2}{commit:8.2}");
    }
    Ok(())
}

fn request() -> ExportRequest {
    let columns = sample::NAMES.map(|name| ColumnMapping { source: name.to_owned(), target: name.to_owned() });
    ExportRequest::new("records", RelationName::records(), "parquet", columns.to_vec())
}

/// Returns a shard with the description of its Parquet row groups.
fn stored() -> StoredShard {
    let file = {
        let parquet = Format::by_name("parquet").expect("it is a format");
        standalone::encode(&sample::copy(), &sample::columns(), parquet, &FormatOptions::default())
    };
    let file = file.expect("the rows are good");
    // The footer is followed by its length and the magic number.
    let (_, tail) = file.split_at(file.len() - 8);
    let length = u32::from_le_bytes(*tail.first_chunk().expect("it has eight bytes"));
    let row_groups = file[file.len() - 8 - usize::try_from(length).expect("it is in memory")..].to_vec();
    StoredShard {
        rows: 53_687,
        bytes: 16 << 20,
        crc32: 1,
        uncompressed_bytes: 16 << 20,
        etag: Some("\"0123456789abcdef0123456789abcdef\"".to_owned()),
        row_groups: Some(row_groups),
        ..StoredShard::default()
    }
}

async fn claim(ledger: &Ledger, id: Uuid) -> Result<Option<Claim>> {
    Ok(match ledger.claim(id, "worker 0", &TERMS).await? {
        Claimed::Work(claim) => Some(*claim),
        Claimed::Nothing => None,
    })
}

/// Claims, renews and commits shards like one slot of a worker, without the work.
async fn work(ledger: Ledger, id: Uuid, stored: Arc<StoredShard>, took: Arc<Mutex<Vec<Took>>>) -> Result<()> {
    loop {
        let mut times = Took::default();
        let began = Instant::now();
        // The other claimers hold the remaining shards.
        let Some(claim) = claim(&ledger, id).await? else { return Ok(()) };
        times.claim = began.elapsed();
        if matches!(claim.work, JobKind::Finish(_)) {
            ledger.give_back(&claim).await?;
            return Ok(());
        }
        let began = Instant::now();
        ledger.renew(&claim, LEASE, 0, 0).await?;
        times.renew = began.elapsed();
        let began = Instant::now();
        let committed =
            ledger.commit(&claim, &StoredShard { number: claim.shard, ..StoredShard::clone(&stored) }, Some(1)).await?;
        times.commit = began.elapsed();
        took.lock().expect("no claimer has panicked").push(times);
        if committed == Committed::All {
            return Ok(());
        }
    }
}

/// Empties the outbox as fast as a relay may.
async fn relay(ledger: Ledger, is_finished: Arc<AtomicBool>) -> Result<()> {
    while !is_finished.load(Ordering::Relaxed) || ledger.has_messages().await? {
        if ledger.has_messages().await? {
            ledger.relay::<LedgerError, _>(MESSAGES, async |_| Ok(())).await?;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Renews the row of a snapshot holder every second, like a process that holds the snapshot.
async fn hold(ledger: Ledger, claim: Claim, owner: String, is_finished: Arc<AtomicBool>) -> Result<()> {
    while !is_finished.load(Ordering::Relaxed) {
        let holder = SnapshotHolder { owner: &owner, snapshot: "snapshot", lease: LEASE };
        ledger.hold_snapshot(claim.export_id, claim.attempt, holder).await?;
        tokio::time::sleep(BEAT).await;
    }
    Ok(())
}
