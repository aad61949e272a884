//! The crash matrix: each step × each fault in a system of its own, and the outcomes as the table in `MATRIX.md`.
//!
//! `UPDATE_MATRIX=1` writes that file instead of comparing with it. `CRASH_CELLS=killed/part` runs only the cells whose
//! descriptions of fault and step contain these words. `CRASH_LONG=1` runs the faults that take minutes as well; the table does
//! not have them. How long each cell took is in `target/crash-matrix.tsv`.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use polyglot_test_servers::needs_servers;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinSet, LocalSet, spawn_local};

use crate::cleanup_checks;
use crate::faults::Fault;
use crate::reference;
use crate::servers::{ONE_TEST_AT_A_TIME, Servers};
use crate::steps::{File, HeldExport, ROWS, Step};
use crate::system::System;

/// Number of systems that run at once. A cell mostly waits, for instance for a lease to expire.
const AT_A_TIME: usize = 18;

#[derive(Clone, Copy)]
struct Cell {
    step: Step,
    fault: Fault,
}

/// Outcome of a cell.
struct Outcome {
    cell: Cell,
    /// Entry in the table.
    result: String,
    /// For the report alone: they may differ from run to run.
    details: String,
    failure: Option<String>,
}

/// Expected files, in the order of [`File::ALL`].
type Files = Vec<Vec<u8>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_matrix() {
    needs_servers!();
    // The cells share this thread, and the proxies have those of the runtime.
    LocalSet::new().run_until(Box::pin(run_all_cells())).await;
}

async fn run_all_cells() {
    let _alone = ONE_TEST_AT_A_TIME.lock().await;
    let began = Instant::now();
    let servers = Servers::start(ROWS).await;
    let files = Arc::new(reference::files(&servers, &File::ALL.map(File::request)).await);
    for (file, exact) in File::ALL.into_iter().zip(files.iter()) {
        let by_copy = reference::csv_by_copy(&servers, file.rows()).await;
        let unzipped = (file == File::ShardedGzip).then(|| reference::gunzip(exact));
        assert!(*unzipped.as_ref().unwrap_or(exact) == by_copy, "{file:?} is not what COPY writes");
    }
    println!("servers and files after {:.1} s", began.elapsed().as_secs_f64());

    let wanted = std::env::var("CRASH_CELLS").ok();
    let with_long = std::env::var("CRASH_LONG").is_ok_and(|value| value == "1");
    let cells: Vec<Cell> = Fault::ALL
        .into_iter()
        .flat_map(|fault| Step::ALL.map(|step| Cell { step, fault }))
        .filter(|cell| cell.fault.applies_to(cell.step) && is_wanted(*cell, wanted.as_deref()))
        .filter(|cell| with_long || !cell.fault.is_long())
        .collect();
    let mut outcomes = run_separately(&servers, &files, cells.iter().filter(|cell| !cell.fault.is_shared())).await;
    for fault in [Fault::PostgresRestarted, Fault::BrokerRestarted] {
        let cells = cells.iter().filter(|cell| cell.fault == fault);
        outcomes.extend(run_under_shared_fault(&servers, &files, fault, cells).await);
    }
    println!("{} cells after {:.1} s", outcomes.len(), began.elapsed().as_secs_f64());
    servers.stop().await;
    report(&outcomes);
    let failures: Vec<&str> = outcomes.iter().filter_map(|outcome| outcome.failure.as_deref()).collect();
    assert!(failures.is_empty(), "{} cells failed:\n{}", failures.len(), failures.join("\n"));
    if wanted.is_none() {
        compare(&table(&outcomes));
    }
}

fn is_wanted(cell: Cell, wanted: Option<&str>) -> bool {
    let Some(wanted) = wanted else { return true };
    let (fault, step) = wanted.split_once('/').unwrap_or((wanted, ""));
    cell.fault.description().contains(fault) && cell.step.description().contains(step)
}

/// Runs cells whose fault hits their own system only.
async fn run_separately(
    servers: &Arc<Servers>,
    files: &Arc<Files>,
    cells: impl Iterator<Item = &Cell>,
) -> Vec<Outcome> {
    let permits = Arc::new(Semaphore::new(AT_A_TIME));
    let mut running = JoinSet::new();
    for cell in cells.copied() {
        let (servers, files, permits) = (Arc::clone(servers), Arc::clone(files), Arc::clone(&permits));
        running.spawn_local(async move {
            let _permit = permits.acquire().await.unwrap();
            outcome_of(cell, run(cell, servers, files, None)).await
        });
    }
    running.join_all().await
}

/// Runs cells whose fault is one restart of a server that all of them share.
async fn run_under_shared_fault(
    servers: &Arc<Servers>,
    files: &Arc<Files>,
    fault: Fault,
    cells: impl Iterator<Item = &Cell>,
) -> Vec<Outcome> {
    let (near, mut all_near) = mpsc::channel::<Infallible>(1);
    let (at_step, mut all_at_step) = mpsc::channel::<Infallible>(1);
    let (stage, stages) = watch::channel(0);
    let mut running = JoinSet::new();
    for cell in cells.copied() {
        let barrier = Barrier { near: Some(near.clone()), at_step: Some(at_step.clone()), stages: stages.clone() };
        let (servers, files) = (Arc::clone(servers), Arc::clone(files));
        running.spawn_local(outcome_of(cell, run(cell, servers, files, Some(barrier))));
    }
    drop((near, at_step));
    if running.is_empty() {
        return Vec::new();
    }
    // A channel ends when every cell has dropped its sender; a cell that fails drops both.
    all_near.recv().await;
    stage.send_replace(1);
    all_at_step.recv().await;
    match fault {
        Fault::PostgresRestarted => servers.restart_postgres().await,
        _ => servers.restart_broker().await,
    }
    stage.send_replace(2);
    running.join_all().await
}

/// What a cell waits for when its fault is shared by all.
struct Barrier {
    near: Option<mpsc::Sender<Infallible>>,
    at_step: Option<mpsc::Sender<Infallible>>,
    stages: watch::Receiver<u8>,
}

impl Barrier {
    /// Waits until every cell is near its step.
    async fn wait_until_all_are_near(&mut self) {
        self.near = None;
        self.stages.wait_for(|stage| *stage >= 1).await.unwrap();
    }

    /// Waits until the fault has been injected.
    async fn wait_until_injected(&mut self) {
        self.at_step = None;
        self.stages.wait_for(|stage| *stage >= 2).await.unwrap();
    }
}

/// Runs a cell. Returns the result for the table and the details for the report.
async fn run(cell: Cell, servers: Arc<Servers>, files: Arc<Files>, barrier: Option<Barrier>) -> (String, String) {
    // One slot with the least budget makes the smallest parts; the grace is for SIGTERM.
    let max_attempts = ("MAX_ATTEMPTS", cell.fault.max_attempts());
    let env = [("WORKER_SLOTS", "1"), ("MEMORY_BUDGET_MB", "16"), ("SHUTDOWN_GRACE_SECONDS", "1"), max_attempts];
    let mut system = System::start(&servers, &env).await;
    let mut held = HeldExport::bring_near(cell.step, &mut system).await;
    if let Some(mut barrier) = barrier {
        barrier.wait_until_all_are_near().await;
        held.lock(&mut system).await;
        held.record_committed_shards(&system).await;
        barrier.wait_until_injected().await;
    } else {
        held.lock(&mut system).await;
        held.record_committed_shards(&system).await;
    }
    let injected = Instant::now();
    cell.fault.inject(&mut system, &mut held).await;
    let record = system.wait_for_end_in_ledger(&held.id, cell.fault.limit()).await;
    let took = injected.elapsed();
    let attempts = cell.fault.attempts(cell.step);
    let result = match record.state.as_str() {
        "completed" if *attempts.start() == 2 => "completed, started over".to_owned(),
        "expired" => "completed, then deleted".to_owned(),
        "failed" => format!("failed ({})", record.error_code.as_deref().unwrap_or("?")),
        state => state.to_owned(),
    };
    assert!(attempts.contains(&record.attempt), "{record:?} instead of one of the attempts {attempts:?}");
    let mut objects = Vec::new();
    if record.state == "completed" {
        let file = system.download_with_retries(&held.id).await;
        let wanted = &files[cell.step.file() as usize];
        assert!(file == *wanted, "{} bytes that are not the file of {} bytes", file.len(), wanted.len());
        objects.extend(record.object_key);
    }
    cleanup_checks::assert_nothing_remains_but(&mut system, &objects).await;
    // A frozen worker that was resumed has ended by now.
    let late = system.record(&held.id).await;
    assert_eq!((&late.state, late.attempt), (&record.state, record.attempt), "it changed after its end");
    let claims = system.claims();
    let times = |shard| claims.iter().filter(|it| it.attempt == record.attempt && it.shard == shard).count();
    if record.attempt == 1 {
        let again: Vec<i32> = held.committed.iter().copied().filter(|&shard| times(shard) != 1).collect();
        assert!(again.is_empty(), "committed before the fault and done again: {again:?} in {claims:?}");
    }
    let cleaned = injected.elapsed();
    cleanup_checks::remove(system).await;
    let details = format!(
        "{} attempts\t{} failures\t{} claims\t{} shards before\tended after {:.1} s\tclean after {:.1} s",
        record.attempt,
        record.failures,
        claims.len(),
        held.committed.len(),
        took.as_secs_f64(),
        cleaned.as_secs_f64()
    );
    (result, details)
}

/// Runs a cell to its end, which may be a panic.
async fn outcome_of(cell: Cell, run: impl Future<Output = (String, String)> + 'static) -> Outcome {
    let (result, details, failure) = match spawn_local(run).await {
        Ok((result, details)) => (result, details, None),
        Err(error) => {
            let payload = error.into_panic();
            let message = payload
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| payload.downcast_ref::<&str>().map(|message| (*message).to_owned()))
                .unwrap_or_default();
            let failure = format!("{} / {}: {message}", cell.fault.description(), cell.step.description());
            ("**wrong**".to_owned(), message, Some(failure))
        }
    };
    println!("{} / {}: {result}: {}", cell.fault.description(), cell.step.description(), details.replace('\t', ", "));
    Outcome { cell, result, details, failure }
}

fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "# Every step of an export × every fault\n\n\
         Written by the test `crash_matrix` (`UPDATE_MATRIX=1 make test`), which fails when an outcome changes. Each cell is a\n\
         system of its own: the export is brought to the step, the fault happens once, and the export ends as it says here.\n\
         In each cell the file, if there is one, is byte for byte that of an undisturbed run, and nothing else remains: no other\n\
         object, no upload, no row that waits, no shard, no snapshot holder, no message, no dead letter, no temporary file, no open\n\
         transaction on the source. “–”: the fault cannot happen at this step, or would test nothing new.\n\n\
         An export of several shards has two workers, and ends in its first attempt unless the cell says “started over”: no shard\n\
         that was committed before the fault is exported again. Only the loss of every process that holds the snapshot, in the\n\
         columns of the source, of PostgreSQL and of SIGTERM, or of the upload, in that of a store that is restarted empty, may\n\
         cost an attempt.\n\n| step |",
    );
    let faults = || Fault::ALL.into_iter().filter(|fault| !fault.is_long());
    for fault in faults() {
        text.push_str(&format!(" {} |", fault.description()));
    }
    text.push_str(&format!("\n|---|{}\n", "---|".repeat(faults().count())));
    for step in Step::ALL {
        text.push_str(&format!("| {} |", step.description()));
        for fault in faults() {
            let found = outcomes.iter().find(|it| it.cell.step == step && it.cell.fault == fault);
            text.push_str(&format!(" {} |", found.map_or("–", |outcome| outcome.result.as_str())));
        }
        text.push('\n');
    }
    text
}

fn report(outcomes: &[Outcome]) {
    let mut lines: Vec<String> = outcomes
        .iter()
        .map(|it| {
            format!("{}\t{}\t{}\t{}", it.cell.fault.description(), it.cell.step.description(), it.result, it.details)
        })
        .collect();
    lines.sort();
    let path = manifest_dir().parent().unwrap().join("target/crash-matrix.tsv");
    // The folder of the build may be elsewhere.
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn compare(table: &str) {
    let path: PathBuf = manifest_dir().join("tests/crash/MATRIX.md");
    if std::env::var("UPDATE_MATRIX").is_ok_and(|value| value == "1") {
        std::fs::write(&path, table).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (committed, now) = (lines(&committed), lines(table));
    let mut difference = Vec::new();
    for at in 0..committed.len().max(now.len()) {
        let (old, new) = (committed.get(at), now.get(at));
        if old != new {
            difference.extend(old.map(|line| format!("- {line}")));
            difference.extend(new.map(|line| format!("+ {line}")));
        }
    }
    let path = path.display();
    assert!(
        difference.is_empty(),
        "{path} is not what happened (UPDATE_MATRIX=1 writes it):\n{}",
        difference.join("\n")
    );
}
