//! Tests of the connection cache and of the limit that it keeps to, against a real PostgreSQL.

use std::time::Duration;

use polyglot_core::relation::RelationName;
use polyglot_core::request::{ColumnMapping, ExportRequest};
use polyglot_source::{ConnectionLimit, session_activity};
use polyglot_test_servers::needs_database;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::connection_cache::ConnectionCache;
use super::transaction::{Connected, Source};

/// Long enough for something that does not wait, on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
/// Time after which a test believes that something waits.
const WAITS: Duration = Duration::from_millis(300);

/// A request for a catalog view, which every database has.
fn request() -> ExportRequest {
    let relation = RelationName { schema: "pg_catalog".to_owned(), name: "pg_settings".to_owned() };
    let column = ColumnMapping { source: "name".to_owned(), target: "name".to_owned() };
    ExportRequest::new("settings", relation, "csv", vec![column])
}

async fn reader(connected: Connected) -> Source {
    let mut source = connected.begin(&request()).await.unwrap().0;
    // The view is PostgreSQL's own, but the catalog's answer is yes for any view.
    source.is_reusable = true;
    source
}

/// Returns the number of sessions of this name prefix.
async fn sessions(observer: &mut PgConnection, name: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE $1 || '%'")
        .bind(name)
        .fetch_one(observer)
        .await
        .unwrap()
}

/// Waits until the limit has so many permits in use.
async fn until_in_use(limit: &ConnectionLimit, count: usize) {
    let began = Instant::now();
    while limit.in_use() != count {
        assert!(began.elapsed() < LIMIT, "{} permits are in use, not {count}", limit.in_use());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_idle_reader_is_given_to_another_export_when_no_connection_may_be_opened() {
    let url = needs_database!();
    // Two connections for reading, and one for control.
    let limit = ConnectionLimit::new(3, 2);
    let cache = ConnectionCache::new(limit.clone(), 2);
    let (attempt, closed) = ((Uuid::new_v4(), 1), CancellationToken::new());
    let first = reader(cache.connect(&url, "polyglot cache a").await.unwrap()).await;
    let second = reader(cache.connect(&url, "polyglot cache a").await.unwrap()).await;
    let first_pid = first.backend.pid;
    assert_eq!((limit.in_use(), cache.idle()), (2, 0));
    assert!(timeout(WAITS, cache.connect(&url, "polyglot cache b")).await.is_err(), "no permit was needed");
    assert!(cache.connect_if_free(&url, "polyglot cache b").await.is_none());

    // Someone waits, and is given the reader that becomes idle.
    let waiting = tokio::spawn({
        let (cache, url) = (cache.clone(), url.clone());
        async move { reader(cache.connect(&url, "polyglot cache b").await.unwrap()).await }
    });
    sleep(WAITS).await;
    assert!(!waiting.is_finished());
    cache.keep_reader(attempt, first, &closed);
    let third = timeout(LIMIT, waiting).await.unwrap().unwrap();
    assert_eq!(third.backend.pid, first_pid, "a session was closed and another one opened");
    assert!(cache.take_reader(attempt).is_none());

    // Who only wants what is free does not take it.
    cache.keep_reader(attempt, second, &closed);
    assert!(cache.connect_if_free(&url, "polyglot cache c").await.is_none());
    assert!(cache.take_reader((Uuid::new_v4(), 1)).is_none());
    let second = cache.take_reader(attempt).unwrap();

    // A reader of a session that has been closed is closed as well.
    closed.cancel();
    cache.keep_reader(attempt, second, &closed);
    assert_eq!(cache.idle(), 0);
    until_in_use(&limit, 1).await;
    third.close();
    until_in_use(&limit, 0).await;
}

#[tokio::test]
async fn a_dropped_connection_counts_until_the_server_has_ended_its_statement() {
    let url = needs_database!();
    let mut observer = PgConnection::connect(&url).await.unwrap();
    let limit = ConnectionLimit::new(2, 1);
    let cache = ConnectionCache::new(limit.clone(), 1);
    let mut source = reader(cache.connect(&url, "polyglot dropped").await.unwrap()).await;
    let sleeping = sqlx::query("SELECT pg_sleep(3600)");
    assert!(timeout(WAITS, sleeping.execute(&mut *source.connection)).await.is_err());
    assert_eq!(sessions(&mut observer, "polyglot dropped").await, 1);
    drop(source);
    assert_eq!(limit.in_use(), 1, "the permit was released at once");
    // The next one waits for the permit, and by then the session is gone.
    let next = timeout(LIMIT, cache.connect(&url, "polyglot next")).await.unwrap().unwrap();
    assert_eq!(sessions(&mut observer, "polyglot dropped").await, 0);
    next.close();
    until_in_use(&limit, 0).await;
}

#[tokio::test]
async fn a_waiting_reader_is_not_starved_by_connections_that_become_idle() {
    let url = needs_database!();
    let limit = ConnectionLimit::new(2, 1);
    let cache = ConnectionCache::new(limit.clone(), 1);
    // Four exports take turns on one connection.
    let exports = (0..4).map(|n| {
        let (cache, url) = (cache.clone(), url.clone());
        tokio::spawn(async move {
            for _ in 0..20 {
                let connected = cache.connect(&url, &format!("polyglot turn {n}")).await.unwrap();
                cache.keep(reader(connected).await.commit().await.unwrap());
            }
        })
    });
    for export in exports.collect::<Vec<_>>() {
        timeout(LIMIT, export).await.expect("an export gets no connection").unwrap();
    }
    assert_eq!((limit.in_use(), cache.idle()), (1, 1));
    // What nobody wants is closed.
    until_in_use(&limit, 0).await;
    assert_eq!(cache.idle(), 0);
}

#[tokio::test]
async fn the_activity_of_sessions_is_measured() {
    let url = needs_database!();
    let mut observer = PgConnection::connect(&url).await.unwrap();
    let limit = ConnectionLimit::new(3, 2);
    let cache = ConnectionCache::new(limit.clone(), 2);
    let before = session_activity(&mut observer).await.unwrap();
    let source = reader(cache.connect(&url, "polyglot measured").await.unwrap()).await;
    let mut busy = reader(cache.connect(&url, "polyglot measured").await.unwrap()).await;
    let sleeping = sqlx::query("SELECT pg_sleep(3600)");
    assert!(timeout(WAITS, sleeping.execute(&mut *busy.connection)).await.is_err());
    // Other tests have sessions in the same database.
    let activity = session_activity(&mut observer).await.unwrap();
    assert!(activity.sessions >= 2, "{before:?} {activity:?}");
    assert!(activity.oldest_snapshot_seconds >= WAITS.as_secs_f64(), "{activity:?}");
    assert!(activity.longest_statement_seconds >= WAITS.as_secs_f64() / 2.0, "{activity:?}");
    drop((source, busy));
    until_in_use(&limit, 0).await;
}
