//! Ranges that are read side by side: the same bytes as from one reader, whatever the key and however it is spread.

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::harness::{Setup, System};

/// Tables of more than four ranges, by what is special about the key, and whether they are cut.
const TABLES: [(&str, &str, &str, bool); 11] = [
    ("numbers", "id bigint PRIMARY KEY", "n", true),
    (
        "with gaps, and half of them far away",
        "id bigint PRIMARY KEY",
        "CASE WHEN n <= 60000 THEN n * 3 ELSE n * 1000003::bigint END",
        true,
    ),
    (
        "dense, then sparse",
        "id numeric PRIMARY KEY",
        "CASE WHEN n < 90000 THEN n ELSE 90000 + (n - 90000) ^ 3 END",
        true,
    ),
    (
        "of two columns, the first with few values",
        "a integer, b text COLLATE \"C\", PRIMARY KEY (a, b)",
        "n / 50000, lpad(n::text, 9, '0')",
        true,
    ),
    ("texts with quotes", "id text COLLATE \"C\" PRIMARY KEY", "'it''s \\ ' || lpad(n::text, 9, '0')", true),
    ("texts as people sort them", "id text PRIMARY KEY", "lpad(n::text, 9, '0') || chr(228)", true),
    ("a name that needs care", "\"number DESC, x\" bigint PRIMARY KEY", "n", true),
    ("a type of which only the text is known", "id inet PRIMARY KEY", "'10.0.0.0'::inet + n", false),
    ("moments", "id timestamptz PRIMARY KEY", "'2026-01-01'::timestamptz + n * interval '1.5 s'", true),
    ("uuids in order", "id uuid PRIMARY KEY", "lpad(to_hex(n), 32, '0')::uuid", true),
    ("uuids by chance", "id uuid PRIMARY KEY", "md5(n::text)::uuid", false),
];

async fn table(system: &System, key: &str, values: &str) {
    let sql = format!(
        "DROP TABLE IF EXISTS public.records;
         CREATE TABLE public.records ({key}, payload text, number integer);
         INSERT INTO public.records SELECT {values}, repeat(md5(n::text), 6), n FROM generate_series(1, 120000) n;
         ANALYZE public.records"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&system.pool).await.unwrap();
}

fn body(format: &str) -> Value {
    let columns = [json!({"source": "number", "target": "number"}), json!({"source": "payload", "target": "payload"})];
    json!({"format": format, "columns": columns})
}

async fn exported(system: &System, body: &Value) -> Vec<u8> {
    let answer = system.post(body).await;
    let status = answer.status();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(status, 201, "{answer:#}");
    let id = answer["exportId"].as_str().unwrap().to_owned();
    system.completed(&id).await;
    system.download(&id).await
}

/// The file by one reader and by two, from workers that take turns, and in how many ranges the second read.
async fn both_ways(system: &mut System, body: &Value) -> (Vec<u8>, usize) {
    let mut files = Vec::new();
    let mut ranges = 0;
    for readers in ["1", "2"] {
        system.workers.clear();
        system.set("SOURCE_READERS", readers);
        system.add_worker();
        files.push(exported(system, body).await);
        let log = system.workers[0].log();
        ranges = log.split("ranges=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        assert!(readers == "2" || ranges == 1, "{ranges} ranges for one reader");
    }
    let two = files.pop().unwrap();
    assert!(files[0] == two, "{body}: one reader and two differ");
    (two, ranges)
}

fn numbers(csv: &[u8]) -> Vec<i64> {
    let text = std::str::from_utf8(csv).unwrap();
    text.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect()
}

async fn expected(system: &System, rest: &str) -> Vec<i64> {
    let sql = format!("SELECT number::bigint FROM public.records {rest}");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&system.pool).await.unwrap()
}

async fn system() -> System {
    let system = System::without_worker(Setup::default()).await;
    system.wait_until_ready().await;
    system
}

#[tokio::test]
async fn every_kind_of_key_gives_the_same_bytes_and_the_rows_in_order() {
    let mut system = system().await;
    for (what, key, values, is_cut) in TABLES {
        table(&system, key, values).await;
        let (file, ranges) = both_ways(&mut system, &body("csv")).await;
        assert_eq!(ranges > 4, is_cut, "{what}: {ranges} ranges");
        let order = match key {
            _ if key.contains("(a, b)") => "a, b",
            _ if key.starts_with('"') => "number",
            _ => "id",
        };
        assert!(numbers(&file) == expected(&system, &format!("ORDER BY {order}")).await, "{what}");
    }
}

#[tokio::test]
async fn every_format_has_the_same_bytes() {
    let mut system = system().await;
    table(&system, "id bigint PRIMARY KEY", "n").await;
    for format in ["json", "jsonl", "xml", "parquet"] {
        let (_, ranges) = both_ways(&mut system, &body(format)).await;
        assert!(ranges > 4, "{format}: {ranges} ranges");
    }
    let mut zipped = body("csv");
    zipped["compression"] = json!("gzip");
    both_ways(&mut system, &zipped).await;
}

#[tokio::test]
async fn directions_and_partitions_are_cut_and_what_has_another_way_is_not() {
    let mut system = system().await;
    table(&system, "id bigint PRIMARY KEY", "n").await;
    let mut descending = body("csv");
    descending["orderBy"] = json!([{"column": "id", "direction": "desc"}]);
    let (file, ranges) = both_ways(&mut system, &descending).await;
    assert!(ranges > 4 && numbers(&file) == expected(&system, "ORDER BY id DESC").await, "{ranges} ranges");
    // Filtered rows, and an order that no index has, are the server's to find.
    let mut half = body("csv");
    half["filters"] = json!([{"column": "number", "op": ">", "value": 60000}]);
    let (file, ranges) = both_ways(&mut system, &half).await;
    assert!(ranges == 1 && numbers(&file) == expected(&system, "WHERE number > 60000 ORDER BY id").await, "{ranges}");
    let mut sorted = body("csv");
    sorted["orderBy"] = json!(["payload"]);
    assert_eq!(both_ways(&mut system, &sorted).await.1, 1);

    sqlx::raw_sql(
        "ALTER TABLE public.records RENAME TO whole;
         CREATE TABLE public.records (LIKE public.whole, PRIMARY KEY (id)) PARTITION BY RANGE (id);
         CREATE TABLE public.low PARTITION OF public.records FOR VALUES FROM (MINVALUE) TO (30000);
         CREATE TABLE public.high PARTITION OF public.records FOR VALUES FROM (30000) TO (MAXVALUE);
         INSERT INTO public.records SELECT * FROM public.whole;
         ANALYZE public.records",
    )
    .execute(&system.pool)
    .await
    .unwrap();
    let (file, ranges) = both_ways(&mut system, &body("csv")).await;
    assert!(ranges > 4 && numbers(&file) == expected(&system, "ORDER BY id").await, "{ranges} ranges");
}

/// Two connections, one snapshot: rows that come, change and go while they read are in the file as they were.
#[tokio::test]
async fn two_readers_see_one_moment() {
    let mut system = system().await;
    table(&system, "id bigint PRIMARY KEY", "n").await;
    system.set("SOURCE_READERS", "2");
    system.add_worker();
    let pool = system.pool.clone();
    // The sum stays the same in every moment, and in no mixture of two.
    let writing = tokio::spawn(async move {
        for round in 0.. {
            let sql = format!(
                "BEGIN;
                 UPDATE public.records SET number = number + 1 WHERE id = {low};
                 UPDATE public.records SET number = number - 1 WHERE id = {high};
                 INSERT INTO public.records VALUES ({new}, 'new', 0);
                 DELETE FROM public.records WHERE id = {old};
                 COMMIT",
                low = 1 + round % 1000,
                high = 119_000 + round % 1000,
                new = 200_000 + round,
                old = 199_999 + round,
            );
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
        }
    });
    for _ in 0..4 {
        let rows = numbers(&exported(&system, &body("csv")).await);
        assert_eq!(rows.iter().sum::<i64>(), 120_000 * 120_001 / 2);
        assert!((120_000..=120_001).contains(&rows.len()), "{}", rows.len());
    }
    assert!(system.workers[0].log().matches("ranges=1 ").count() == 0, "it was not cut");
    writing.abort();
}

/// What the second connection is for: a source, or a network, that gives each connection so much and no more.
#[tokio::test]
#[ignore = "a measurement, whose figures are in bench/README.md"]
async fn with_a_bounded_rate_for_each_connection() {
    let mut system = system().await;
    table(&system, "id bigint PRIMARY KEY", "n").await;
    let host = system.database.url().split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
    let proxy = polyglot_devstack::Proxy::start(host.clone()).await.unwrap();
    proxy.slow_to(4 << 20);
    let through = system.database.url().replace(&host, &proxy.address().to_string());
    system.set("SOURCE_DATABASE_URL", &through);
    for readers in ["1", "2", "1", "2"] {
        system.workers.clear();
        system.set("SOURCE_READERS", readers);
        system.add_worker();
        exported(&system, &body("csv")).await;
        let took = system.count("SELECT (1000 * extract(epoch FROM finished_at - started_at))::bigint FROM polyglot.exports ORDER BY id DESC LIMIT 1").await;
        println!("{readers} connection(s) of 4 MiB/s each: {took} ms");
    }
}
