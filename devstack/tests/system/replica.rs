//! A streaming replica as the source: it cancels what stands in the way of the primary's changes, and its role may be forbidden to
//! ask for the position of the log.

use polyglot_devstack::postgres::{Postgres, PostgresSettings};
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_devstack::{Proxy, free_port, seed};
use polyglot_test_kit::{Setup, System, export_request, sample_request, wait_until};
use polyglot_test_servers::needs_servers;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

const PRIMARY: &[&str] = &["wal_level=replica", "max_wal_senders=4"];
/// The primary does not wait for the standby's readers, and the standby lets them read for a tenth of a second.
const STANDBY: &[&str] = &[
    "wal_level=replica",
    "max_wal_senders=4",
    "hot_standby_feedback=off",
    "max_standby_streaming_delay=100ms",
    "wal_receiver_status_interval=1s",
];

/// A primary with the table `records` in its database `shop`, and a standby that follows it.
struct Replicated {
    primary: Postgres,
    standby: Postgres,
    _files: [ScratchDir; 2],
}

impl Replicated {
    async fn start(rows: u64) -> Self {
        let files = [ScratchDir::new("primary").unwrap(), ScratchDir::new("standby").unwrap()];
        let [primary_dir, standby_dir] = files.each_ref().map(|files| files.path().canonicalize().unwrap());
        let settings = |options| PostgresSettings {
            port: free_port().unwrap(),
            durable: false,
            password: None,
            max_connections: 50,
            options,
        };
        let primary = Postgres::start(&primary_dir, &primary_dir.join("postgres.log"), settings(PRIMARY)).await;
        let primary = primary.unwrap_or_else(|error| panic!("{}", error.with_causes()));
        primary.ensure_database("shop").await.unwrap();
        seed::fill(&primary.url("shop"), rows).await.unwrap();
        let log = standby_dir.join("postgres.log");
        let standby = Postgres::start_standby(&primary, &standby_dir, &log, settings(STANDBY)).await;
        let standby = standby.unwrap_or_else(|error| panic!("{}", error.with_causes()));
        Self { primary, standby, _files: files }
    }

    /// Runs statements on the primary, each in a transaction of its own, and waits until the standby has replayed them.
    async fn change(&self, statements: &[&str]) {
        let mut primary = PgConnection::connect(&self.primary.url("shop")).await.unwrap();
        // So that the position below, up to which the log is written, has them.
        primary.execute("SET synchronous_commit TO on").await.unwrap();
        for statement in statements {
            primary.execute(AssertSqlSafe((*statement).to_owned())).await.unwrap();
        }
        let position = "SELECT pg_current_wal_flush_lsn()::text";
        let flushed: String = sqlx::query_scalar(position).fetch_one(&mut primary).await.unwrap();
        let mut standby = PgConnection::connect(&self.standby.url("shop")).await.unwrap();
        wait_until("the standby has replayed the change", async || {
            let replayed = "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn";
            sqlx::query_scalar::<_, bool>(replayed).bind(&flushed).fetch_one(&mut standby).await.unwrap()
        })
        .await;
    }
}

#[tokio::test]
async fn an_export_from_a_replica_needs_no_right_to_ask_for_its_position() {
    needs_servers!();
    let replicated = Replicated::start(1_000).await;
    replicated
        .change(&[
            "CREATE ROLE exporter LOGIN",
            "GRANT SELECT ON public.records TO exporter",
            // As PostgreSQL 15 has it from the beginning.
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        ])
        .await;
    let url = replicated.standby.url_for("exporter", "unused", "shop");
    let env = [("SOURCE_DATABASE_URL", url.as_str()), ("SOURCE_ALLOW_PRIVILEGED", "off")];
    let system = System::start(Setup::new(0, &env)).await;
    let (id, state, file) = system.export(&sample_request("csv", None)).await;
    assert_eq!(state["progress"]["rows"], 1_000, "{state:#}");
    let manifest = system.manifest(&id).await;
    assert!(manifest["snapshot"]["walPosition"].is_string(), "{manifest:#}");

    replicated
        .change(&[
            "REVOKE EXECUTE ON FUNCTION pg_last_wal_replay_lsn(), pg_current_wal_lsn(), pg_is_in_recovery() FROM PUBLIC",
        ])
        .await;
    let (id, state, again) = system.export(&sample_request("csv", None)).await;
    assert_eq!((&state["attempt"], again == file), (&1.into(), true), "{state:#}");
    let manifest = system.manifest(&id).await;
    assert!(manifest["snapshot"]["walPosition"].is_null() && manifest["snapshot"]["time"].is_string(), "{manifest:#}");
}

/// The `host:port` of a URL.
fn host_of(url: &str) -> &str {
    url.split('@').nth(1).unwrap().split('/').next().unwrap()
}

/// Reads `request` from a standby, has it cancelled in the middle by a vacuum of the primary, and returns the state at the end.
async fn cancelled_in_the_middle(request: &Value) -> Value {
    const ROWS: u64 = 250_000;
    let replicated = Replicated::start(ROWS).await;
    let url = replicated.standby.url("shop");
    let host = host_of(&url);
    let proxy = Proxy::start(host).unwrap();
    let through_proxy = url.replacen(host, &proxy.address().to_string(), 1);
    let mut system = System::without_worker(Setup::new(0, &[("SOURCE_DATABASE_URL", &through_proxy)])).await;
    system.wait_until_ready().await;
    system.add_worker();
    // Slow enough for the test to act while rows are being read.
    proxy.throttle(4 << 20);
    let id = system.submit_request(request).await;
    system.wait_for_state(&id, "reading", |state| state["progress"]["rows"].as_i64() > Some(0)).await;
    replicated.change(&["DELETE FROM public.records WHERE id % 2 = 0", "VACUUM public.records"]).await;
    wait_until("the standby has cancelled the attempt", async || {
        system.workers[0].log().contains("conflict with recovery")
    })
    .await;
    proxy.restore().await.unwrap();
    let state = system.wait_until_completed(&id).await;
    // The rows are those of the second attempt's moment.
    assert_eq!(state["progress"]["rows"], ROWS / 2, "{state:#}");
    assert!(state["attempt"].as_i64() > Some(1), "{state:#}");
    let log = system.workers[0].log();
    assert!(log.contains("attempt failed") && log.contains("again=true"), "{log}");
    system.wait_until_cleaned_up_except(1).await;
    state
}

#[tokio::test]
async fn a_stream_that_a_replica_cancels_is_read_again() {
    needs_servers!();
    let state = cancelled_in_the_middle(&export_request("csv", Some("zstd"), ["id", "name"])).await;
    assert!(state["singleStream"].is_object() || state["singleStream"].is_string(), "{state:#}");
}

/// The transaction that holds the snapshot runs no statement, so the standby ends its session.
#[tokio::test]
async fn a_sharded_export_whose_snapshot_a_replica_ends_is_read_again() {
    needs_servers!();
    let state = cancelled_in_the_middle(&sample_request("json", None)).await;
    assert!(state["progress"]["shards"].as_i64() > Some(1), "{state:#}");
}

/// Reads `request`, a CSV file of `id` and `name`, from a primary whose address leads to the promoted standby once `reading` holds,
/// checks that the file has the rows of the new primary alone, and returns the state at the end.
async fn failed_over_in_the_middle(request: &Value, reading: impl Fn(&Value) -> bool) -> Value {
    const ROWS: usize = 250_000;
    let replicated = Replicated::start(ROWS as u64).await;
    let url = replicated.primary.url("shop");
    let host = host_of(&url);
    let proxy = Proxy::start(host).unwrap();
    let through_proxy = url.replacen(host, &proxy.address().to_string(), 1);
    let env = [("SOURCE_DATABASE_URL", through_proxy.as_str()), ("MAX_ATTEMPTS", "2")];
    let mut system = System::without_worker(Setup::new(0, &env)).await;
    system.wait_until_ready().await;
    // Two: whichever takes the second attempt has to find the new primary.
    system.add_worker();
    system.add_worker();
    // Slow enough for the test to act while rows are being read.
    proxy.throttle(256 << 10);
    let id = system.submit_request(request).await;
    let before = system.wait_for_state(&id, "reading", reading).await;

    // What the first attempt does not see and the standby has, and then what only the promoted standby has.
    replicated.change(&["UPDATE public.records SET name = 'later'"]).await;
    let Replicated { primary, standby, _files } = replicated;
    primary.stop_at_once().await;
    standby.promote().await.unwrap();
    let mut promoted = PgConnection::connect(&standby.url("shop")).await.unwrap();
    let sql = "INSERT INTO public.records (created_at, name, value, metadata)
               SELECT created_at, 'last', value, metadata FROM public.records WHERE id = 1";
    assert_eq!(promoted.execute(sql).await.unwrap().rows_affected(), 1);
    let now = system.state(&id).await;
    assert_ne!(now["status"], "completed", "the export ended before the failover: {now:#}");
    proxy.lead_to(host_of(&standby.url("shop")));
    proxy.disconnect_all();
    proxy.restore().await.unwrap();

    let state = system.wait_until_completed(&id).await;
    assert_eq!((&state["attempt"], &state["progress"]["rows"]), (&2.into(), &(ROWS + 1).into()), "{state:#}");
    let mut rows =
        csv::Reader::from_reader(&*system.download(&id).await).into_records().map(Result::unwrap).collect::<Vec<_>>();
    rows.sort_by_key(|row| row[0].parse::<u64>().unwrap());
    rows.dedup_by(|a, b| a[0] == b[0]);
    let later = rows.iter().filter(|row| &row[1] == "later").count();
    let last = rows.iter().filter(|row| &row[1] == "last").count();
    assert_eq!((rows.len(), later, last), (ROWS + 1, ROWS, 1), "before the failover: {before:#}");
    system.wait_until_cleaned_up_except(1).await;
    state
}

#[tokio::test]
async fn a_stream_begins_anew_on_the_promoted_standby() {
    needs_servers!();
    let mut request = export_request("csv", None, ["id", "name"]);
    request["orderBy"] = ["id"].into();
    let state = failed_over_in_the_middle(&request, |state| state["progress"]["rows"].as_i64() > Some(0)).await;
    assert!(state["singleStream"].is_object() || state["singleStream"].is_string(), "{state:#}");
}
