//! The sample table on a real server: the same rows each time, and filled only once.

use polyglot_devstack::scratch_database::ScratchDatabase;
use polyglot_devstack::seed::{Seeded, fill, has_sample_columns};
use polyglot_test_servers::needs_database;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

async fn ask(database: &ScratchDatabase, sql: &str) -> String {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap()
}

const FIRST_1000: &str = "SELECT md5(string_agg(r::text, '|' ORDER BY id)) FROM public.records r WHERE id <= 1000";

#[tokio::test]
async fn the_same_rows_each_time_and_only_once() {
    let server = needs_database!();
    let small = ScratchDatabase::create(&server).await.unwrap();
    let large = ScratchDatabase::create(&server).await.unwrap();
    assert!(!has_sample_columns(small.url()).await.unwrap());
    assert_eq!(fill(small.url(), 1000).await.unwrap(), Seeded::Filled { rows: 1000 });
    assert_eq!(fill(large.url(), 3000).await.unwrap(), Seeded::Filled { rows: 3000 });
    assert!(has_sample_columns(small.url()).await.unwrap());
    assert_eq!(ask(&small, FIRST_1000).await, ask(&large, FIRST_1000).await);

    assert_eq!(fill(small.url(), 2000).await.unwrap(), Seeded::Kept { rows: 1000 });
    // The next row of an application does not collide with the seeded ones.
    let next = "INSERT INTO public.records (created_at, name, value, metadata) VALUES (now(), 'x', 1, '{}') RETURNING id::text";
    assert_eq!(ask(&small, next).await, "1001");
    small.remove().await.unwrap();
    large.remove().await.unwrap();
}

#[tokio::test]
async fn rows_have_values_that_formats_have_to_escape() {
    let server = needs_database!();
    let database = ScratchDatabase::create(&server).await.unwrap();
    fill(database.url(), 5000).await.unwrap();
    for condition in [
        "name LIKE '%,%'",
        "name LIKE '%\"%'",
        "name LIKE '%ü%'",
        "name LIKE '%🚀%'",
        "name LIKE E'%\\n%'",
        "name LIKE '%<&>%'",
        "name LIKE '=%'",
        "value < -1000000000",
        "abs(value) < 1",
        "value > 1000000000",
        "date_part('microseconds', created_at)::bigint % 1000 <> 0",
        "jsonb_array_length(metadata->'tags') = 4 AND metadata->>'active' = 'true'",
        "metadata#>>'{address,geo,lat}' LIKE '-%'",
    ] {
        let found = ask(&database, &format!("SELECT count(*)::text FROM public.records WHERE {condition}")).await;
        assert_ne!(found, "0", "{condition}");
    }
    let keys =
        ask(&database, "SELECT string_agg(DISTINCT k, ',') FROM public.records, jsonb_object_keys(metadata) k").await;
    assert_eq!(keys, "active,address,amount,category,region,tags");
    database.remove().await.unwrap();
}

#[tokio::test]
async fn a_table_without_rows_is_filled_later() {
    let server = needs_database!();
    let database = ScratchDatabase::create(&server).await.unwrap();
    assert_eq!(fill(database.url(), 0).await.unwrap(), Seeded::Filled { rows: 0 });
    assert_eq!(fill(database.url(), 10).await.unwrap(), Seeded::Filled { rows: 10 });
    database.remove().await.unwrap();
}
