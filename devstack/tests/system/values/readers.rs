//! The readers that people use: each reads every file of its format to the end and finds PostgreSQL's values.

use polyglot_test_kit::{Setup, System};
use polyglot_test_servers::needs_servers;
use serde_json::json;
use sqlx::AssertSqlSafe;

use super::table::{Column, columns, quoted};
use super::{export, request};
use crate::python::run_script;

/// A column of the types that a table usually has: its name, its type, what kind of value it is to the readers, its
/// value in row n, its text for the comparison.
type Usual = (&'static str, &'static str, &'static str, &'static str, &'static str);

const SCALARS: [Usual; 16] = [
    ("b", "boolean", "bool", "n % 3 = 0", "b::text"),
    ("i2", "smallint", "number", "n % 30000 - 15000", "i2::text"),
    ("i4", "integer", "number", "(n - 500) * 800003", "i4::text"),
    ("i8", "bigint", "number", "(n - 500) * 3607199254740993", "i8::text"),
    ("f4", "real", "single", "n * 0.1 - 7", "f4::text"),
    ("f8", "double precision", "double", "sin(n) * 10 ^ (n % 40 - 20)", "f8::text"),
    ("amount", "numeric(18,4)", "number", "(n - 500) * 12345.6789", "amount::text"),
    ("large", "numeric(38,10)", "number", "(n - 500) * 98765432109876543210.0123456789", "large::text"),
    ("t", "text", "text", "repeat(chr(95 + n % 900), n % 7) || E'\"a,\\n\\r\\té😀'", "t"),
    ("e", "varchar(9)", "text", "CASE n % 2 WHEN 0 THEN '' ELSE 'x' END", "e"),
    ("bin", "bytea", "bytes", "decode(md5(n::text), 'hex')", "encode(bin, 'hex')"),
    ("d", "date", "day", "date '1969-07-20' + n * 7", "d::text"),
    ("tm", "time", "time", "time '00:00' + n * interval '61.000001 s'", "to_char(tm, 'HH24:MI:SS.US')"),
    (
        "ts",
        "timestamp",
        "stamp",
        "timestamp '1969-12-31 23:00:01.5' + n * interval '31.000007 h'",
        "to_char(ts, 'YYYY-MM-DD\"T\"HH24:MI:SS.US')",
    ),
    (
        "tz",
        "timestamptz",
        "stamp",
        "timestamptz '2026-01-02 03:04:05.123456+00' - n * interval '77.7 h'",
        "to_char(tz AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')",
    ),
    ("u", "uuid", "uuid", "md5(n::text)::uuid", "u::text"),
];
const JSON: Usual =
    ("j", "jsonb", "json", "jsonb_build_object('n', n, 'list', jsonb_build_array(n / 4.0, null, 'é'))", "j::text");
/// Without NULL as an item: fastparquet has doubles for those. `round_trip.rs` has every shape.
const LISTS: [Usual; 3] = [
    ("i4s", "integer[]", "number[]", "ARRAY[n, -n, 0]", "to_json(i4s::text[])"),
    ("ts", "text[]", "text[]", "ARRAY['', 'a \"' || n, 'é']", "to_json(ts)"),
    ("none", "bigint[]", "number[]", "'{}'::bigint[]", "to_json(none::text[])"),
];

/// Fills `public.records` with these columns; the answer is what the readers have to find.
async fn fill(system: &System, usual: &[Usual], rows: usize) -> (Vec<Column>, std::path::PathBuf) {
    let definitions: Vec<String> = usual.iter().map(|(name, sql, ..)| format!("{name} {sql}")).collect();
    // Every eleventh value is NULL, in another row for each column.
    let values: Vec<String> = usual
        .iter()
        .enumerate()
        .map(|(at, (.., value, _))| format!("CASE WHEN (n + {at}) % 11 > 0 THEN {value} END"))
        .collect();
    let texts: Vec<String> = usual.iter().map(|(name, .., text)| format!("'{name}', {text}")).collect();
    for statement in [
        "DROP TABLE public.records".to_owned(),
        format!("CREATE TABLE public.records (id bigint PRIMARY KEY, {})", definitions.join(", ")),
        format!("INSERT INTO public.records SELECT n, {} FROM generate_series(1, {rows}) n", values.join(", ")),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&system.pool).await.unwrap();
    }
    let sql =
        format!("SELECT json_build_object('id', id::text, {})::text FROM public.records ORDER BY id", texts.join(", "));
    let mut lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&system.pool).await.unwrap();
    let mut kinds = serde_json::Map::from_iter([("id".to_owned(), json!("number"))]);
    kinds.extend(usual.iter().map(|(name, _, kind, ..)| ((*name).to_owned(), json!(kind))));
    lines.insert(0, serde_json::Value::from(kinds).to_string());
    let expected = system.file("expected-values");
    std::fs::write(&expected, lines.join("\n")).unwrap();
    (columns(&system.pool).await, expected)
}

async fn readers_agree(system: &System, body: &serde_json::Value, expected: &std::path::Path) -> String {
    let file = export(system, body).await;
    let format = body["format"].as_str().unwrap();
    let compression = body["compression"].as_str().unwrap_or("plain");
    run_script("compare_readers.py", [format.as_ref(), compression.as_ref(), file.as_os_str(), expected.as_os_str()])
}

#[tokio::test]
async fn every_reader_finds_the_usual_types() {
    needs_servers!();
    let system = System::start(Setup::default()).await;
    let (columns, expected) = fill(&system, &[&SCALARS[..], &[JSON]].concat(), 3000).await;
    for (format, compression, readers) in [
        ("parquet", None, &["pyarrow", "duckdb", "polars", "fastparquet"][..]),
        ("csv", None, &["csv", "duckdb", "pandas"]),
        ("csv", Some("gzip"), &["csv", "duckdb", "pandas"]),
        ("json", None, &["orjson", "ijson"]),
        ("json", Some("gzip"), &["orjson", "ijson"]),
        ("jsonl", None, &["orjson", "ijson"]),
        ("jsonl", Some("gzip"), &["orjson", "ijson"]),
        ("xml", None, &["lxml", "expat"]),
        ("xml", Some("gzip"), &["lxml", "expat"]),
    ] {
        let read = readers_agree(&system, &request(format, compression, &columns), &expected).await;
        for reader in readers {
            assert!(read.contains(&format!("{reader}: 3000 rows")), "{format}: {read}");
        }
    }
}

#[tokio::test]
async fn every_reader_finds_the_sample() {
    needs_servers!();
    // Several row groups, and more rows than any reader samples.
    let system = System::with_rows(60_000).await;
    let columns = columns(&system.pool).await;
    let sql = "SELECT json_build_object('id', id::text, 'created_at', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'),
                   'name', name, 'value', value::text, 'metadata', metadata::text)::text FROM public.records ORDER BY id";
    let mut lines: Vec<String> = sqlx::query_scalar(sql).fetch_all(&system.pool).await.unwrap();
    lines.insert(
        0,
        json!({"id": "number", "created_at": "stamp", "name": "text", "value": "number", "metadata": "json"})
            .to_string(),
    );
    let expected = system.file("expected-values");
    std::fs::write(&expected, lines.join("\n")).unwrap();
    for (format, compression) in [("parquet", None), ("csv", Some("gzip")), ("jsonl", None), ("xml", None)] {
        let read = readers_agree(&system, &request(format, compression, &columns), &expected).await;
        assert!(read.contains(": 60000 rows"), "{format}: {read}");
    }
}

#[tokio::test]
async fn every_reader_finds_the_lists() {
    needs_servers!();
    let system = System::start(Setup::default()).await;
    let (columns, expected) = fill(&system, &LISTS, 500).await;
    for (format, readers) in [("parquet", 4), ("json", 2), ("jsonl", 2)] {
        let read = readers_agree(&system, &request(format, None, &columns), &expected).await;
        assert_eq!(read.matches(": 500 rows").count(), readers, "{format}: {read}");
    }
}

#[tokio::test]
async fn every_reader_knows_zstd() {
    needs_servers!();
    let system = System::start(Setup::default()).await;
    let (columns, expected) = fill(&system, &SCALARS, 3000).await;
    let mut body = request("parquet", None, &columns);
    body["options"] = json!({"codec": "zstd", "rowGroupBytes": 1_048_576});
    let read = readers_agree(&system, &body, &expected).await;
    assert_eq!(read.matches(": 3000 rows").count(), 4, "{read}");
    for (format, readers) in [("csv", 3), ("json", 2), ("jsonl", 2), ("xml", 2)] {
        let read = readers_agree(&system, &request(format, Some("zstd"), &columns), &expected).await;
        assert_eq!(read.matches(": 3000 rows").count(), readers, "{format}: {read}");
    }
}

#[tokio::test]
async fn the_types_in_parquet_are_the_promised_ones() {
    needs_servers!();
    let system = System::start(Setup::default()).await;
    let types = [
        ("smallint", "int16"),
        ("integer", "int32"),
        ("bigint", "int64"),
        ("real", "float"),
        ("double precision", "double"),
        ("numeric", "string"),
        ("numeric(18,4)", "decimal128(18, 4)"),
        ("numeric(9,2)", "decimal128(9, 2)"),
        ("numeric(38)", "decimal128(38, 0)"),
        ("numeric(39,3)", "string"),
        ("boolean", "bool"),
        ("text", "string"),
        ("\"char\"", "string"),
        ("bytea", "binary"),
        ("date", "date32[day]"),
        ("time", "time64[us]"),
        ("timetz", "string"),
        ("timestamp", "timestamp[us]"),
        ("timestamptz", "timestamp[us, tz=UTC]"),
        ("interval", "string"),
        ("uuid", "extension<arrow.uuid>"),
        ("json", "string"),
        ("jsonb", "string"),
        ("inet", "string"),
        ("int4range", "string"),
    ];
    assert_types(&system, &types).await;
}

#[tokio::test]
async fn lists_and_negative_scales_in_parquet_have_the_promised_types() {
    needs_servers!();
    let system = System::start(Setup::default()).await;
    let types = [
        ("numeric(5,-2)", "decimal128(7, 0)"),
        ("numeric(36,-2)", "decimal128(38, 0)"),
        ("numeric(37,-2)", "string"),
        ("integer[]", "list<element: int32>"),
        ("integer[][]", "list<element: list<element: int32> not null>"),
        ("numeric(18,4)[]", "list<element: decimal128(18, 4)>"),
        ("numeric[]", "list<element: string>"),
        ("timestamptz[]", "list<element: timestamp[us, tz=UTC]>"),
        ("inet[]", "list<element: string>"),
        ("bytea[]", "list<element: binary>"),
    ];
    assert_types(&system, &types).await;
}

async fn assert_types(system: &System, types: &[(&str, &str)]) {
    let definitions: Vec<String> = types.iter().enumerate().map(|(at, (sql, _))| format!("c{at} {sql}")).collect();
    let create = format!(
        "DROP TABLE public.records; CREATE TABLE public.records ({}); INSERT INTO public.records DEFAULT VALUES",
        definitions.join(", ")
    );
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&system.pool).await.unwrap();
    let columns = columns(&system.pool).await;
    let file = export(system, &request("parquet", None, &columns)).await;
    let printed = run_script("compare_readers.py", ["schema".as_ref(), file.as_os_str()]);
    for ((at, line), (sql, wanted)) in printed.lines().enumerate().zip(types) {
        assert_eq!(line, format!("c{at}: {wanted}"), "{} of {sql}", quoted(&columns[at].name));
    }
    assert_eq!(printed.lines().count(), types.len());
}
