//! Sharded exports: the same bytes from any number of workers and the rows of one snapshot, whatever the key is and however
//! the rows are distributed.

use polyglot_test_kit::{Setup, System, export_request, sample_request, wait_until};
use polyglot_test_servers::needs_servers;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::python::run_script;

/// Rows of the tables here: 64 MiB of CSV, four shards.
const ROWS: i64 = 200_000;

/// Tables by what is special about their key: a description, the columns of the key, and their values in row n.
const TABLES: [(&str, &str, &str); 10] = [
    ("numbers", "id bigint PRIMARY KEY", "n"),
    (
        "dense, and sparse a million times over",
        "id bigint PRIMARY KEY",
        "CASE WHEN n <= 100000 THEN n ELSE n * 1000003::bigint END",
    ),
    (
        "of two columns, the first with few values",
        "a integer, b text COLLATE \"C\", PRIMARY KEY (a, b)",
        "n / 90000, lpad(n::text, 9, '0')",
    ),
    ("texts with quotes", "id text COLLATE \"C\" PRIMARY KEY", "'it''s \\ ' || lpad(n::text, 9, '0')"),
    ("texts as people sort them", "id text PRIMARY KEY", "lpad(n::text, 9, '0') || chr(228)"),
    ("a name that needs care", "\"number DESC, x\" bigint PRIMARY KEY", "n"),
    ("moments", "id timestamptz PRIMARY KEY", "'2026-01-01'::timestamptz + n * interval '1.5 s'"),
    ("uuids in order", "id uuid PRIMARY KEY", "lpad(to_hex(n), 32, '0')::uuid"),
    ("uuids by chance", "id uuid PRIMARY KEY", "md5(n::text)::uuid"),
    ("a type of which only the text is known", "id inet PRIMARY KEY", "'10.0.0.0'::inet + n"),
];

async fn table(system: &System, key: &str, values: &str) {
    let sql = format!(
        "DROP TABLE IF EXISTS public.records CASCADE;
         CREATE TABLE public.records ({key}, number bigint, payload text);
         INSERT INTO public.records SELECT {values}, n, repeat(md5(n::text), 10) FROM generate_series(1, {ROWS}) n;
         ANALYZE public.records"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&system.pool).await.unwrap();
}

fn body(format: &str) -> Value {
    export_request(format, None, ["number", "payload"])
}

/// A ready system with so many workers.
async fn system(rows: u64, workers: usize) -> System {
    let mut system = System::without_worker(Setup { rows, ..Setup::default() }).await;
    system.wait_until_ready().await;
    for _ in 0..workers {
        system.add_worker();
    }
    system
}

async fn completed(system: &System, body: &Value) -> (String, Value) {
    let id = system.submit_request(body).await;
    let state = system.wait_until_completed(&id).await;
    (id, state)
}

/// The file, and the number of its shards.
async fn exported(system: &System, body: &Value) -> (Vec<u8>, i64) {
    let (id, state) = completed(system, body).await;
    let shards = state["progress"]["shards"].as_i64().unwrap();
    assert_eq!(state["progress"]["shardsDone"], shards);
    assert_eq!(state["singleStream"].is_null(), shards > 1, "{state:#}");
    let file = system.download(&id).await;
    assert_eq!(state["progress"]["bytes"], file.len());
    delete(system, &id).await;
    (file, shards)
}

async fn delete(system: &System, id: &str) {
    assert_eq!(system.delete(id).await.status(), 204);
}

fn numbers(csv: &[u8]) -> Vec<i64> {
    let text = std::str::from_utf8(csv).unwrap();
    text.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect()
}

async fn expected(system: &System, rest: &str) -> Vec<i64> {
    let sql = format!("SELECT number FROM public.records {rest}");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&system.pool).await.unwrap()
}

#[tokio::test]
async fn along_every_kind_of_key_every_row_is_there_once_and_in_order() {
    needs_servers!();
    let system = system(0, 2).await;
    for (what, key, values) in TABLES {
        table(&system, key, values).await;
        let (file, shards) = exported(&system, &body("csv")).await;
        assert_eq!(shards > 2, !key.contains("inet"), "{what}: {shards} shards");
        let order = match key {
            _ if key.contains("(a, b)") => "a, b",
            _ if key.starts_with('"') => "number",
            _ => "id",
        };
        assert!(numbers(&file) == expected(&system, &format!("ORDER BY {order}")).await, "{what}");
    }
}

#[tokio::test]
async fn directions_filters_other_keys_and_partitions_are_sharded() {
    needs_servers!();
    let system = system(0, 2).await;
    table(&system, "id bigint PRIMARY KEY, code text COLLATE \"C\" NOT NULL UNIQUE", "n, lpad((-n)::text, 9, '0')")
        .await;
    let check = async |change: Value, rest: &str, shards_at_least: i64| {
        let mut body = body("csv");
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (file, shards) = exported(&system, &body).await;
        assert!(numbers(&file) == expected(&system, rest).await, "{change}");
        assert!(shards >= shards_at_least, "{change}: {shards} shards");
        shards
    };
    check(json!({"orderBy": [{"column": "id", "direction": "desc"}]}), "ORDER BY id DESC", 3).await;
    check(json!({"orderBy": ["code"]}), "ORDER BY code", 3).await;
    let most = json!({"filters": [{"column": "number", "op": ">", "value": 50_000}]});
    check(most, "WHERE number > 50000 ORDER BY id", 2).await;
    // An export of one stream says why.
    let few = json!({"filters": [{"column": "number", "op": "<", "value": 200}]});
    assert_eq!(check(few, "WHERE number < 200 ORDER BY id", 1).await, 1);
    assert_eq!(check(json!({"orderBy": ["payload"]}), "ORDER BY payload, id", 1).await, 1);
    let (_, state) =
        completed(&system, &json!({"orderBy": ["payload"], "format": "csv", "columns": body("csv")["columns"]})).await;
    assert_eq!(state["singleStream"]["code"], "no_key", "{state:#}");

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
    check(json!({}), "ORDER BY id", 3).await;
}

/// Files of no row, of just the size that a store takes as a part, of just a shard's, and of two; and one row more.
#[tokio::test]
async fn tables_at_the_edges_of_a_part_and_of_a_shard_are_whole() {
    needs_servers!();
    const ROW: i64 = 1 << 10;
    const HEADER: i64 = 15;
    let system = system(0, 2).await;
    for mebibytes in [0, 5, 16, 32] {
        for more in [0, 1] {
            let (even, rows) = (mebibytes << 10, (mebibytes << 10) + more);
            // The comma and the end of the line are the other two; the last row of an even size makes room for the header.
            let sql = format!(
                "DROP TABLE IF EXISTS public.records CASCADE;
                 CREATE TABLE public.records (id bigint PRIMARY KEY, number bigint, payload text);
                 INSERT INTO public.records
                 SELECT n, n, repeat('x', {ROW} - 2 - length(n::text) - CASE WHEN n = {even} THEN {HEADER} ELSE 0 END)
                 FROM generate_series(1, {rows}) n;
                 ANALYZE public.records"
            );
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&system.pool).await.unwrap();
            let (file, shards) = exported(&system, &body("csv")).await;
            let what = format!("{mebibytes} MiB and {more} rows: {shards} shards, {} bytes", file.len());
            let header = if mebibytes == 0 { HEADER } else { 0 };
            assert_eq!(i64::try_from(file.len()).unwrap(), rows * ROW + header, "{what}");
            assert!(numbers(&file) == (1..=rows).collect::<Vec<_>>(), "{what}");
            assert_eq!(shards > 1, mebibytes == 32, "{what}");
        }
    }
}

/// Gzip and Parquet as well: one member, one footer. Independent readers find the same rows in both, and by Parquet's
/// statistics alone only those row groups that may have the wanted rows.
#[tokio::test]
async fn one_worker_and_three_write_the_same_bytes() {
    needs_servers!();
    let mut system = system(600_000, 1).await;
    let formats = [
        ("csv", None),
        ("csv", Some("gzip")),
        ("json", None),
        ("jsonl", Some("gzip")),
        ("xml", None),
        ("parquet", None),
        ("arrow", None),
    ];
    let mut files = Vec::new();
    for (format, compression) in formats {
        let (file, shards) = exported(&system, &sample_request(format, compression)).await;
        assert!(shards > 1, "{format}: {shards} shards");
        files.push(file);
    }
    system.add_worker();
    system.add_worker();
    for ((format, compression), one) in formats.iter().zip(&files) {
        let (three, _) = exported(&system, &sample_request(format, *compression)).await;
        assert!(three == *one, "{format} {compression:?}: three workers write another file");
    }
    let [csv, zipped, parquet, arrow] =
        ["all.csv", "all.csv.gz", "all.parquet", "all.arrows"].map(|name| system.file(name));
    for (path, file) in [(&csv, &files[0]), (&zipped, &files[1]), (&parquet, &files[5]), (&arrow, &files[6])] {
        std::fs::write(path, file).unwrap();
    }
    let printed = run_script("read_shards.py", [&csv, &zipped, &parquet, &arrow]);
    assert!(printed.contains("600000 rows"), "{printed}");
}

/// The sum is the same in every snapshot, and in no mixture of two.
#[tokio::test]
async fn all_workers_read_one_snapshot() {
    needs_servers!();
    let system = system(0, 3).await;
    table(&system, "id bigint PRIMARY KEY", "n").await;
    let pool = system.pool.clone();
    let writing = tokio::spawn(async move {
        for round in 0.. {
            let sql = format!(
                "BEGIN;
                 UPDATE public.records SET number = number + 1 WHERE id = {low};
                 UPDATE public.records SET number = number - 1 WHERE id = {high};
                 INSERT INTO public.records VALUES ({new}, 0, 'new');
                 DELETE FROM public.records WHERE id = {old};
                 COMMIT",
                low = 1 + round % 1000,
                high = ROWS - 1000 + round % 1000,
                new = 2 * ROWS + round,
                old = 2 * ROWS - 1 + round,
            );
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
        }
    });
    for _ in 0..3 {
        let (file, shards) = exported(&system, &body("csv")).await;
        assert!(shards > 2, "{shards} shards");
        let rows = numbers(&file);
        assert_eq!(rows.iter().sum::<i64>(), ROWS * (ROWS + 1) / 2);
        assert!((ROWS..=ROWS + 1).contains(&i64::try_from(rows.len()).unwrap()), "{}", rows.len());
    }
    writing.abort();
}

/// Text that gzip makes a thousand times smaller, beside text that it hardly touches: what was estimated from both is wrong
/// for each. Pieces come out smaller than the store takes, and the export is one stream in the end.
#[tokio::test]
async fn shards_that_come_out_too_small_are_planned_again() {
    needs_servers!();
    let system = system(0, 2).await;
    table(&system, "id bigint PRIMARY KEY", "n").await;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "UPDATE public.records SET payload = repeat('x', 1500) WHERE id > {ROWS} / 2;
         UPDATE public.records SET payload = (SELECT string_agg(md5(id::text || n), '') FROM generate_series(1, 24) n)
         WHERE id <= {ROWS} / 2;
         ANALYZE public.records"
    )))
    .execute(&system.pool)
    .await
    .unwrap();
    let mut zipped = body("csv");
    zipped["compression"] = json!("gzip");
    let (id, state) = completed(&system, &zipped).await;
    assert_eq!(state["singleStream"]["code"], "uneven", "{state:#}");
    assert!(state["attempt"].as_i64() > Some(1), "{state:#}");
    let mut csv = Vec::new();
    let file = system.download(&id).await;
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&file[..]), &mut csv).unwrap();
    assert!(numbers(&csv) == expected(&system, "ORDER BY id").await);
    // It counts as no failure, and the parts that were stored before are removed.
    assert_eq!(system.count("SELECT count(*) FROM polyglot.exports WHERE failures > 0").await, 0);
    wait_until("the uploads are aborted", async || system.bucket.uploads().await.is_empty()).await;
}

/// Each file is whole by itself, and larger than a worker holds in memory.
#[tokio::test]
async fn the_layout_of_several_files_is_one_for_each_shard() {
    needs_servers!();
    let system = system(0, 2).await;
    table(&system, "id bigint PRIMARY KEY", "n").await;
    let mut several = body("csv");
    several["layout"] = json!("files");
    // Small: one file, in the same layout.
    let (id, state) = completed(&system, &several).await;
    assert_eq!(state["singleStream"]["code"], "small", "{state:#}");
    assert_eq!(files(&system, &id).await.len(), 1);

    sqlx::raw_sql("UPDATE public.records SET payload = repeat(payload, 5); ANALYZE public.records")
        .execute(&system.pool)
        .await
        .unwrap();
    let (id, state) = completed(&system, &several).await;
    let files = files(&system, &id).await;
    assert!(files.len() > 1 && state["progress"]["shards"] == files.len(), "{state:#}");
    let mut all = Vec::new();
    for file in &files {
        assert!(file.starts_with(b"number,payload\n"));
        all.extend(numbers(file));
    }
    assert!(all == expected(&system, "ORDER BY id").await);
    assert!(files.iter().all(|file| file.len() > 40 << 20), "{:?}", files.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(system.get(&format!("/exports/{id}/download")).await.status(), 409);
    assert_eq!(system.bucket.objects().await.len(), files.len() + 1);
    delete(&system, &id).await;
    assert_eq!(system.bucket.objects().await.len(), 1);
}

/// Every file that the manifest names, by its link.
async fn files(system: &System, id: &str) -> Vec<Vec<u8>> {
    let manifest: Value = system.get(&format!("/exports/{id}/manifest")).await.json().await.unwrap();
    let mut files = Vec::new();
    for (index, file) in manifest["files"].as_array().unwrap().iter().enumerate() {
        assert_eq!(file["name"], format!("part-{:05}.csv", index + 1), "{manifest:#}");
        let answer = reqwest::get(file["url"].as_str().unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        let bytes = answer.bytes().await.unwrap().to_vec();
        assert_eq!(file["bytes"], bytes.len());
        assert_eq!(file["crc32"], format!("{:08x}", crc32fast::hash(&bytes)));
        assert_eq!(file["rows"], numbers(&bytes).len());
        files.push(bytes);
    }
    files
}
