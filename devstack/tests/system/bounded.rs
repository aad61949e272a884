//! The connections that the service has on the source stay within the number that its configuration states, whatever is
//! queued, cancelled or killed, and everybody else can connect.
//!
//! `make test` runs a small size, `make bounded` a large one: `BOUNDED_LARGE` exports that are sharded (12),
//! `BOUNDED_CANCELLED` more that are cancelled half-way (8), `BOUNDED_WORKERS` (1), and `BOUNDED_KILL_SECONDS` between two
//! kills of a worker (0: none is killed). `BOUNDED_SMALL_SECONDS` is how long a small export beside them may take at most.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use polyglot_test_kit::{ApiClient, Process, Setup, System, export_request, first_rows, wait_until_within};
use polyglot_test_servers::needs_servers;
use rand::Rng;
use reqwest::StatusCode;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

/// Rows of the table: 35 MiB of CSV, two shards. In the table they are compressed to an eighth, so that reading them is quick
/// and the table is still large enough to be sharded.
const ROWS: u64 = 6000;
/// Slots of each worker, exports whose snapshot may be open, and one connection for checks.
const WORKER_CONNECTIONS: usize = 2 + 4 + 1;
const API_CONNECTIONS: usize = 6;
/// Lease of every claim, which ends that long after its worker was killed.
const LEASE: Duration = Duration::from_secs(5);
/// Interval of the looks at the source.
const LOOK: Duration = Duration::from_millis(50);
/// Time after which the sessions of a killed worker have ended, with room for a busy machine: the server notices a lost client
/// within a second.
const KILLED_SESSIONS_END: Duration = Duration::from_secs(5);
/// Exports that are submitted, or waited for in order to be cancelled, at a time.
const AT_A_TIME: usize = 16;

fn number<T: std::str::FromStr>(variable: &str, default: T) -> T {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    value.map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{variable}: {value}")))
}

fn large() -> Value {
    export_request("csv", None, ["id", "payload"])
}

/// What the looks at the source have found.
#[derive(Default)]
struct Looks {
    count: AtomicUsize,
    most: AtomicUsize,
    /// Workers that were killed a moment ago.
    killed: AtomicUsize,
    done: AtomicBool,
}

impl Looks {
    /// Looks at the source until `done`, each time over a new connection.
    async fn look(&self, url: &str, workers: usize) {
        while !self.done.load(Ordering::Relaxed) {
            let allowed = (workers + self.killed.load(Ordering::Relaxed)) * WORKER_CONNECTIONS + API_CONNECTIONS;
            let mut connection = PgConnection::connect(url).await.expect("somebody else can connect to the source");
            let sessions: Vec<String> = sqlx::query_scalar(
                "SELECT application_name || ' ' || coalesce(state, '') || ' ' || coalesce(left(query, 60), '')
                 FROM pg_stat_activity
                 WHERE application_name LIKE 'polyglot %' AND datname = current_database()
                   AND backend_type = 'client backend'",
            )
            .fetch_all(&mut connection)
            .await
            .unwrap();
            connection.close().await.unwrap();
            assert!(sessions.len() <= allowed, "{} sessions, allowed are {allowed}: {sessions:#?}", sessions.len());
            self.count.fetch_add(1, Ordering::Relaxed);
            self.most.fetch_max(sessions.len(), Ordering::Relaxed);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Kills a worker now and then and starts another, until `done`.
    async fn kill(&self, system: &System, workers: &mut [Process], every: Duration) {
        let mut kills = 0;
        while !every.is_zero() && !self.done.load(Ordering::Relaxed) {
            tokio::time::sleep(every.mul_f64(rand::rng().random_range(0.5..1.5))).await;
            let at = rand::rng().random_range(0..workers.len());
            self.killed.fetch_add(1, Ordering::Relaxed);
            kills += 1;
            workers[at] = system.spawn_worker(&format!("bounded-{kills}"));
            // The next one is killed when the sessions of this one have ended.
            tokio::time::sleep(KILLED_SESSIONS_END).await;
            self.killed.fetch_sub(1, Ordering::Relaxed);
        }
        println!("{kills} workers were killed");
    }
}

async fn completed(api: &ApiClient, id: &str, limit: Duration) -> Value {
    let state = wait_until_within(limit, &format!("export {id} is at its end"), async || {
        let state = api.state(id).await;
        if state["finishedAt"].is_null() { Err(format!("{state:#}")) } else { Ok(state) }
    })
    .await;
    assert_eq!(state["status"], "completed", "{state:#}");
    state
}

/// Submits an export, and cancels it some time after a worker has begun it.
async fn cancelled(api: &ApiClient, limit: Duration) {
    let id = api.submit_with_retries(&large()).await;
    wait_until_within(limit, &format!("export {id} has begun"), async || {
        let state = api.state(&id).await;
        if state["status"] == "pending" { Err(format!("{state:#}")) } else { Ok(()) }
    })
    .await;
    let pause = rand::rng().random_range(0..400);
    tokio::time::sleep(Duration::from_millis(pause)).await;
    // 204: it was faster.
    let status = api.delete_with_retries(&id).await;
    assert!([StatusCode::ACCEPTED, StatusCode::NO_CONTENT].contains(&status), "{status}");
    if status == StatusCode::ACCEPTED {
        wait_until_within(limit, &format!("export {id} is cancelled"), async || {
            let state = api.state(&id).await;
            if state["finishedAt"].is_null() { Err(format!("{state:#}")) } else { Ok(()) }
        })
        .await;
    }
}

/// Exports ten rows again and again until `done`; returns how often, and the longest time, without the lease of a
/// worker that was killed.
async fn small(api: &ApiClient, limit: Duration, looks: &Looks) -> (usize, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !looks.done.load(Ordering::Relaxed) {
        let began = Instant::now();
        let id = api.submit_with_retries(&first_rows(large(), 10)).await;
        let state = completed(api, &id, limit).await;
        let mut took = began.elapsed();
        if state["attempt"].as_u64() > Some(1) {
            // Its first worker was killed, and its lease had to end.
            println!("a small export was lost with its worker and took {took:.1?}");
            took = took.saturating_sub(LEASE);
        }
        api.delete_with_retries(&id).await;
        (count, longest) = (count + 1, longest.max(took));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    (count, longest)
}

#[tokio::test]
async fn the_connections_on_the_source_stay_within_the_stated_number() {
    needs_servers!();
    let (to_finish, to_cancel) = (number("BOUNDED_LARGE", 12_usize), number("BOUNDED_CANCELLED", 8_usize));
    let (workers, kill_every) = (number("BOUNDED_WORKERS", 1_usize), number("BOUNDED_KILL_SECONDS", 0_u64));
    let limit = Duration::from_secs(number("BOUNDED_LIMIT_SECONDS", 120));
    let env = [("MAX_ATTEMPTS", "100"), ("LEASE_SECONDS", "5"), ("EXPORT_TIMEOUT_MS", "0")];
    let system = System::without_worker(Setup::new(0, &env)).await;
    let sql = format!(
        "DROP TABLE IF EXISTS public.records CASCADE;
         CREATE TABLE public.records (id bigint PRIMARY KEY, payload text);
         INSERT INTO public.records
         SELECT n, repeat((SELECT string_agg(md5(n || ' ' || i), '') FROM generate_series(1, 24) i), 8)
         FROM generate_series(1, {ROWS}) n;
         ANALYZE public.records"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&system.pool).await.unwrap();
    system.wait_until_ready().await;
    let mut running: Vec<Process> = (0..workers).map(|n| system.spawn_worker(&format!("worker-{n}"))).collect();

    let (api, looks, began) = (&system.api_client, Looks::default(), Instant::now());
    let finishing = async {
        let ids: Vec<String> = stream::iter(0..to_finish)
            .map(async |_| api.submit_with_retries(&large()).await)
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        println!("{to_finish} exports are submitted after {:.1} s", began.elapsed().as_secs_f64());
        for id in &ids {
            let state = completed(api, id, limit).await;
            assert_eq!(state["progress"]["shards"], 2, "it is sharded: {state:#}");
            assert_eq!(api.delete_with_retries(id).await, StatusCode::NO_CONTENT);
        }
        println!("they have completed after {:.1} s", began.elapsed().as_secs_f64());
    };
    let cancelling = async {
        stream::iter(0..to_cancel).for_each_concurrent(AT_A_TIME, async |_| cancelled(api, limit).await).await;
        println!("{to_cancel} exports are cancelled after {:.1} s", began.elapsed().as_secs_f64());
    };
    let working = async {
        tokio::join!(finishing, cancelling);
        looks.done.store(true, Ordering::Relaxed);
    };
    let every = Duration::from_secs(kill_every);
    let ((), (count, longest), (), ()) = tokio::join!(
        working,
        small(api, limit, &looks),
        looks.look(&system.database_url, workers),
        looks.kill(&system, &mut running, every),
    );
    let (seen, most) = (looks.count.into_inner(), looks.most.into_inner());
    println!("at most {most} sessions in {seen} looks; {count} small exports, the longest took {longest:.1?}");
    assert!(seen > 10 && most > API_CONNECTIONS && count > 0, "{seen} looks, {most} sessions, {count} small exports");
    // The default has room for a machine that other tests keep busy.
    let bar = Duration::from_secs(number("BOUNDED_SMALL_SECONDS", 20));
    assert!(longest <= bar, "a small export took {longest:?}");
    // An idle service holds nothing on the source but the api's pool.
    const HELD: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'polyglot %'
        AND application_name NOT IN ('polyglot catalog', 'polyglot monitor', 'polyglot sweeper')
        AND datname = current_database()";
    system.wait_until_none("no session of an export is left", HELD).await;
    system.wait_until_cleaned_up().await;
}
