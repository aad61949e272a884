//! The crash matrix: each step × each fault in a system of its own, and the outcomes as the table in `MATRIX.md`.
//!
//! `UPDATE_MATRIX=1` writes that file instead of comparing with it. `CRASH_CELLS=killed/part` runs those cells alone whose
//! fault and step have these words in them. What each cell took is in `target/crash-matrix.tsv`.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinSet, LocalSet, spawn_local};

use crate::faults::Fault;
use crate::reference;
use crate::remains;
use crate::servers::{ALONE, Servers};
use crate::steps::{File, Held, ROWS, Step};
use crate::system::System;

/// Systems at a time. Most of a cell is waiting, for a lease to run out for instance.
const AT_A_TIME: usize = 18;

#[derive(Clone, Copy)]
struct Cell {
    step: Step,
    fault: Fault,
}

/// How a cell came out.
struct Outcome {
    cell: Cell,
    word: String,
    /// For the report alone: they may differ from run to run.
    details: String,
    failure: Option<String>,
}

/// What each file has to be, in the order of [`File::ALL`].
type Files = Vec<Vec<u8>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_matrix() {
    // The cells share this thread, and the proxies have those of the runtime.
    LocalSet::new().run_until(Box::pin(every_cell())).await;
}

async fn every_cell() {
    let _alone = ALONE.lock().await;
    let began = Instant::now();
    let servers = Servers::start(ROWS).await;
    let files = Arc::new(reference::files(&servers, &File::ALL.map(File::request)).await);
    for (file, exact) in File::ALL.into_iter().zip(files.iter()) {
        let copied = reference::copied(&servers, file.rows()).await;
        let unpacked = (file == File::CutGzip).then(|| reference::unzipped(exact));
        assert!(*unpacked.as_ref().unwrap_or(exact) == copied, "{file:?} is not what COPY writes");
    }
    println!("servers and files after {:.1} s", began.elapsed().as_secs_f64());

    let wanted = std::env::var("CRASH_CELLS").ok();
    let cells: Vec<Cell> = Fault::ALL
        .into_iter()
        .flat_map(|fault| Step::ALL.map(|step| Cell { step, fault }))
        .filter(|cell| cell.fault.applies_to(cell.step) && is_wanted(*cell, wanted.as_deref()))
        .collect();
    let mut outcomes = alone(&servers, &files, cells.iter().filter(|cell| !cell.fault.is_shared())).await;
    for fault in [Fault::PostgresRestarted, Fault::BrokerRestarted] {
        let cells = cells.iter().filter(|cell| cell.fault == fault);
        outcomes.extend(together(&servers, &files, fault, cells).await);
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
    cell.fault.words().contains(fault) && cell.step.words().contains(step)
}

/// Cells whose fault hits their own system only.
async fn alone(servers: &Arc<Servers>, files: &Arc<Files>, cells: impl Iterator<Item = &Cell>) -> Vec<Outcome> {
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut running = JoinSet::new();
    for cell in cells.copied() {
        let (servers, files, places) = (Arc::clone(servers), Arc::clone(files), Arc::clone(&places));
        running.spawn_local(async move {
            let _place = places.acquire().await.unwrap();
            outcome(cell, run(cell, servers, files, None)).await
        });
    }
    running.join_all().await
}

/// Cells whose fault is one restart of a server under all of them.
async fn together(
    servers: &Arc<Servers>,
    files: &Arc<Files>,
    fault: Fault,
    cells: impl Iterator<Item = &Cell>,
) -> Vec<Outcome> {
    let (near, mut all_near) = mpsc::channel::<Infallible>(1);
    let (there, mut all_there) = mpsc::channel::<Infallible>(1);
    let (stage, stages) = watch::channel(0);
    let mut running = JoinSet::new();
    for cell in cells.copied() {
        let turn = Turn { near: Some(near.clone()), there: Some(there.clone()), stages: stages.clone() };
        let (servers, files) = (Arc::clone(servers), Arc::clone(files));
        running.spawn_local(outcome(cell, run(cell, servers, files, Some(turn))));
    }
    drop((near, there));
    if running.is_empty() {
        return Vec::new();
    }
    // A channel ends when everybody has let go of it; who fails lets go of both.
    all_near.recv().await;
    stage.send_replace(1);
    all_there.recv().await;
    match fault {
        Fault::PostgresRestarted => servers.restart_postgres().await,
        _ => servers.restart_broker().await,
    }
    stage.send_replace(2);
    running.join_all().await
}

/// A cell's part in a fault that all share.
struct Turn {
    near: Option<mpsc::Sender<Infallible>>,
    there: Option<mpsc::Sender<Infallible>>,
    stages: watch::Receiver<u8>,
}

impl Turn {
    /// All others are near their step as well.
    async fn all_are_near(&mut self) {
        self.near = None;
        self.stages.wait_for(|stage| *stage >= 1).await.unwrap();
    }

    /// The fault has happened.
    async fn it_has_happened(&mut self) {
        self.there = None;
        self.stages.wait_for(|stage| *stage >= 2).await.unwrap();
    }
}

/// The word for the table and the details for the report.
async fn run(cell: Cell, servers: Arc<Servers>, files: Arc<Files>, turn: Option<Turn>) -> (String, String) {
    // One slot with the least budget makes the smallest parts; the grace is for SIGTERM.
    let env =
        [("WORKER_SLOTS", "1"), ("MEMORY_BUDGET_MB", "16"), ("SHUTDOWN_GRACE_SECONDS", "1"), ("MAX_ATTEMPTS", "10")];
    let mut system = System::start(&servers, &env).await;
    let mut held = Held::near(cell.step, &mut system).await;
    if let Some(mut turn) = turn {
        turn.all_are_near().await;
        held.lock(&mut system).await;
        held.look_at_shards(&system).await;
        turn.it_has_happened().await;
    } else {
        held.lock(&mut system).await;
        held.look_at_shards(&system).await;
    }
    let struck = Instant::now();
    cell.fault.strike(&mut system, &mut held).await;
    let record = held.ended(&system).await;
    let took = struck.elapsed();
    let attempts = cell.fault.attempts(cell.step);
    let word = match record.state.as_str() {
        "completed" if *attempts.start() == 2 => "completed, started over".to_owned(),
        "expired" => "completed, then deleted".to_owned(),
        "failed" => format!("failed ({})", record.error_code.as_deref().unwrap_or("?")),
        state => state.to_owned(),
    };
    assert!(attempts.contains(&record.attempt), "{record:?} instead of one of the attempts {attempts:?}");
    let mut objects = Vec::new();
    if record.state == "completed" {
        let file = system.door.download(&held.id).await;
        let wanted = &files[cell.step.file() as usize];
        assert!(file == *wanted, "{} bytes that are not the file of {} bytes", file.len(), wanted.len());
        objects.extend(record.object_key);
    }
    remains::nothing_but(&mut system, &objects).await;
    // A worker that was woken again has had its say by now.
    let late = system.record(&held.id).await;
    assert_eq!((&late.state, late.attempt), (&record.state, record.attempt), "it changed after its end");
    let claims = system.claims();
    let times = |shard| claims.iter().filter(|it| it.attempt == record.attempt && it.shard == shard).count();
    if record.attempt == 1 {
        let again: Vec<i32> = held.committed.iter().copied().filter(|&shard| times(shard) != 1).collect();
        assert!(again.is_empty(), "committed before the fault and done again: {again:?} in {claims:?}");
    }
    let cleaned = struck.elapsed();
    remains::remove(system).await;
    let details = format!(
        "{} attempts\t{} failures\t{} claims\t{} shards before\tended after {:.1} s\tclean after {:.1} s",
        record.attempt,
        record.failures,
        claims.len(),
        held.committed.len(),
        took.as_secs_f64(),
        cleaned.as_secs_f64()
    );
    (word, details)
}

/// Runs a cell to its end, also where that is a panic.
async fn outcome(cell: Cell, run: impl Future<Output = (String, String)> + 'static) -> Outcome {
    let result = spawn_local(run).await;
    let (word, details, failure) = match result {
        Ok((word, details)) => (word, details, None),
        Err(error) => {
            let payload = error.into_panic();
            let words = payload
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| payload.downcast_ref::<&str>().map(|words| (*words).to_owned()))
                .unwrap_or_default();
            let failure = format!("{} / {}: {words}", cell.fault.words(), cell.step.words());
            ("**wrong**".to_owned(), words, Some(failure))
        }
    };
    println!("{} / {}: {word}: {}", cell.fault.words(), cell.step.words(), details.replace('\t', ", "));
    Outcome { cell, word, details, failure }
}

fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "# Every step of an export × every fault\n\n\
         Written by the test `crash_matrix` (`UPDATE_MATRIX=1 make test`), which fails when an outcome changes. Each cell is a\n\
         system of its own: the export is brought to the step, the fault happens once, and the export ends as it says here.\n\
         In each cell a file, if there is one, is byte for byte that of an undisturbed run, and nothing is left: no other\n\
         object, no upload, no row that waits, no shard, no keeper, no message, no dead letter, no temporary file, no open transaction on\n\
         the source. “–”: the fault cannot happen there, or tells nothing there.\n\n\
         An export that is cut into shards has two workers, and ends in its first attempt unless it says “started over”: no\n\
         shard that was committed before the fault is done again. Only the loss of every process that keeps the snapshot, in\n\
         the columns of the source, of PostgreSQL and of SIGTERM, may cost an attempt.\n\n| step |",
    );
    for fault in Fault::ALL {
        text.push_str(&format!(" {} |", fault.words()));
    }
    text.push_str(&format!("\n|---|{}\n", "---|".repeat(Fault::ALL.len())));
    for step in Step::ALL {
        text.push_str(&format!("| {} |", step.words()));
        for fault in Fault::ALL {
            let found = outcomes.iter().find(|it| it.cell.step == step && it.cell.fault == fault);
            text.push_str(&format!(" {} |", found.map_or("–", |outcome| outcome.word.as_str())));
        }
        text.push('\n');
    }
    text
}

fn report(outcomes: &[Outcome]) {
    let mut lines: Vec<String> = outcomes
        .iter()
        .map(|it| format!("{}\t{}\t{}\t{}", it.cell.fault.words(), it.cell.step.words(), it.word, it.details))
        .collect();
    lines.sort();
    let path = folder().parent().unwrap().join("target/crash-matrix.tsv");
    // The folder of the build may be elsewhere.
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn compare(table: &str) {
    let path: PathBuf = folder().join("tests/crash/MATRIX.md");
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
