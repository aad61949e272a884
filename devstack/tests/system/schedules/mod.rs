//! Schedules by seed: the calls of clients, workers and sweepers on a real ledger, in an order that is drawn from a seed, with
//! workers that die, wake after their leases, and a clock that jumps. Every invariant is checked after each step. A schedule that
//! breaks one is made as short as possible and printed.
//!
//! `SEEDS` (1,000) is the number of schedules; `SEED` runs one.

mod invariants;
mod model;
mod shrink;
mod step;
mod work;
mod world;

use std::cell::Cell;

use futures_util::future::join_all;
use polyglot_devstack::scratch_database::ScratchDatabase;
use polyglot_ledger::{Ledger, Turn};
use polyglot_test_servers::needs_database;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use self::model::LEASE;
use self::step::{Schedule, draw};
use self::world::{Checked, World, worker_name};

/// Schedules that run unless `SEEDS` says otherwise, in about a minute on two cores.
const SEEDS: u64 = 1000;
/// Schedules that run at a time, each on a database of its own.
const PARALLEL: u64 = 4;
/// Schedules of a database after which the rows of earlier ones, which are deleted, are removed from its tables.
const SCHEDULES_BETWEEN_VACUUMS: usize = 25;
/// Calls in which honest workers must have ended every export.
const DRAIN_CALLS: usize = 400;
/// Passes in which the sweeper must have removed everything.
const CLEANUP_PASSES: usize = 8;

/// A failed run of a schedule.
struct Broken {
    invariant: String,
    /// What each step did, up to the one that broke it.
    trace: Vec<String>,
    /// Steps of the schedule that ran.
    steps: usize,
}

struct Database {
    scratch: ScratchDatabase,
    ledger: Ledger,
    pool: PgPool,
}

impl Database {
    async fn create(url: &str) -> Self {
        let scratch = ScratchDatabase::create(url).await.unwrap_or_else(|error| panic!("{}", error.with_causes()));
        let ledger = Ledger::new(scratch.url(), 2, "schedules").unwrap();
        ledger.migrate().await.unwrap();
        let options: PgConnectOptions = scratch.url().parse().unwrap();
        let options = options.options([("search_path", "polyglot")]).disable_statement_logging();
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        // plpgsql keeps the plan of its query; a function in SQL would be planned by each statement that calls it.
        let clock = "CREATE TABLE clock (at timestamptz NOT NULL);
            INSERT INTO clock VALUES (now());
            CREATE OR REPLACE FUNCTION ledger_now() RETURNS timestamptz LANGUAGE plpgsql STABLE AS
                'BEGIN RETURN (SELECT at FROM polyglot.clock); END'";
        sqlx::raw_sql(clock).execute(&pool).await.unwrap();
        Self { scratch, ledger, pool }
    }

    async fn vacuum(&self) {
        for statement in ["TRUNCATE exports CASCADE", "VACUUM clock"] {
            sqlx::query(statement).execute(&self.pool).await.unwrap();
        }
    }

    async fn remove(self) {
        self.pool.close().await;
        self.scratch.remove().await.unwrap_or_else(|error| panic!("{}", error.with_causes()));
    }

    async fn run(&self, schedule: &Schedule) -> Result<(), Broken> {
        let mut world = World::new(&self.ledger, &self.pool, schedule).await;
        for (at, step) in schedule.steps.iter().enumerate() {
            if let Err(invariant) = Box::pin(world.step(*step)).await {
                return Err(Broken { invariant, trace: world.trace, steps: at + 1 });
            }
        }
        let drained = drain(&mut world).await;
        drained.map_err(|invariant| Broken { invariant, trace: world.trace, steps: schedule.steps.len() })
    }
}

/// Honest workers do all work that there is, without any message. Then every export must have ended, and the sweeper must find
/// everything that attempts have left in the store.
async fn drain(world: &mut World<'_>) -> Checked {
    world.trace.push("honest workers go on".to_owned());
    world.claims.clear();
    world.go_on(0).await;
    let mut calls = 0;
    while world.exports.iter().any(model::Export::is_active) {
        calls += 1;
        if calls > DRAIN_CALLS {
            return Err("honest workers do not come to an end".to_owned());
        }
        world.trace.push("claim".to_owned());
        if world.claim(&worker_name(0), Turn::nth(calls)).await? {
            let claim = world.claims.len() - 1;
            while world.claims[claim].phase != world::Phase::Spent {
                world.trace.push("work".to_owned());
                world.work_honestly(claim).await?;
            }
        } else {
            world.trace.push("a lease passes, and a sweep".to_owned());
            world.go_on(LEASE + 1).await;
            world.sweep().await?;
        }
        world.check().await?;
    }
    world.trace.push("cleanup".to_owned());
    for _ in 0..CLEANUP_PASSES {
        world.clean_up().await?;
        world.go_on(20 * LEASE).await;
    }
    for (at, export) in world.exports.iter().enumerate() {
        let left: Vec<_> = export
            .uploads
            .iter()
            .filter(|attempt| export.published != Some(**attempt) && !export.removed.contains(attempt))
            .collect();
        if !left.is_empty() {
            return Err(format!("nobody removes what export {} has stored in the attempts {left:?}", at + 1));
        }
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM uploads").fetch_one(world.pool).await.unwrap();
    if rows == 0 { Ok(()) } else { Err(format!("{rows} uploads are never removed")) }
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value}: expected a whole number")))
}

#[tokio::test]
async fn every_invariant_holds_after_each_step_of_any_schedule() {
    let url = needs_database!();
    let seeds = match variable("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("SEEDS").unwrap_or(SEEDS),
    };
    let (first, end) = (seeds.start, seeds.end);
    // Futures of one task, so none runs at the same time as another.
    let (next, has_failed) = (Cell::new(first), Cell::new(false));
    let runs = (0..PARALLEL.min(end - first)).map(async |_| {
        let database = Database::create(&url).await;
        let mut failure = None;
        let mut since_vacuum = 0;
        while !has_failed.get() && next.get() < end {
            let seed = next.replace(next.get() + 1);
            let schedule = draw(seed);
            since_vacuum += 1;
            if let Err(broken) = Box::pin(database.run(&schedule)).await {
                // Others may end what they have begun.
                if !has_failed.replace(true) {
                    let (schedule, broken) = Box::pin(shrink::shrink(&database, schedule, broken)).await;
                    failure = Some(shrink::describe(seed, seed - first, &schedule, &broken));
                }
            } else if since_vacuum >= SCHEDULES_BETWEEN_VACUUMS {
                since_vacuum = 0;
                database.vacuum().await;
            }
        }
        database.remove().await;
        failure
    });
    if let Some(failure) = join_all(runs).await.into_iter().flatten().next() {
        panic!("{failure}");
    }
    println!("{} schedules, and every invariant held", end - first);
}
