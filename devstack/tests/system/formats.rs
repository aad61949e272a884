//! The files themselves: every format, read to the end by independent readers and compared with the table row by row.

use std::ffi::OsStr;

use polyglot_test_kit::{Setup, System};
use polyglot_test_servers::needs_servers;
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::python::run_script;

/// Every format, plain and, where it is text, with gzip.
pub(crate) const CASES: [(&str, Option<&str>); 10] = [
    ("csv", None),
    ("csv", Some("gzip")),
    ("json", None),
    ("json", Some("gzip")),
    ("jsonl", None),
    ("jsonl", Some("gzip")),
    ("xml", None),
    ("xml", Some("gzip")),
    ("parquet", None),
    ("arrow", None),
];

/// Compares a file with the rows that PostgreSQL itself returns, by `read_export.py`.
fn compare(file: &std::path::Path, format: &str, gzip: bool, expected: &std::path::Path) {
    let compression = if gzip { "gzip" } else { "plain" };
    run_script("read_export.py", [OsStr::new(format), OsStr::new(compression), file.as_os_str(), expected.as_os_str()]);
}

/// Writes the rows of the table as PostgreSQL returns them, for the readers to compare with.
async fn write_expected(system: &System) -> std::path::PathBuf {
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT json_build_object('id', id::text, 'name', name, 'value', value::text, 'metadata', metadata::text,
             'created_at', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'))::text
         FROM public.records ORDER BY id",
    )
    .fetch_all(&system.pool)
    .await
    .unwrap();
    let path = system.file("expected.jsonl");
    std::fs::write(&path, rows.join("\n")).unwrap();
    path
}

async fn every_format_equals_the_table(rows: u64) {
    let system = System::with_rows(rows).await;
    let expected = write_expected(&system).await;
    for (format, compression) in CASES {
        let id = system.submit(format, compression).await;
        let state = system.wait_until_completed(&id).await;
        assert_eq!(state["progress"]["rows"], rows, "{state:#}");
        let bytes = system.download(&id).await;
        assert_eq!(state["progress"]["bytes"], bytes.len());
        let file = system.file(&format!("{format}-{}", compression.unwrap_or("plain")));
        std::fs::write(&file, &bytes).unwrap();
        compare(&file, format, compression.is_some(), &expected);
        // The same table, the same request, another export: the same bytes.
        let again = system.submit(format, compression).await;
        system.wait_until_completed(&again).await;
        assert!(system.download(&again).await == bytes, "{format}: a second export differs");
    }
    // Every export above is complete, so nothing of any attempt remains beside the files. The rows of their uploads wait for
    // the sweeper, which checks the keys for unknown uploads.
    assert_eq!(system.count("SELECT count(*) FROM polyglot.uploads WHERE looks = 0").await, 0);
    assert_eq!(system.bucket.uploads().await, []);
}

#[tokio::test]
async fn every_format_holds_the_whole_table() {
    needs_servers!();
    every_format_equals_the_table(20_000).await;
}

#[tokio::test]
async fn every_format_holds_a_table_without_rows() {
    needs_servers!();
    every_format_equals_the_table(0).await;
}

#[tokio::test]
async fn every_format_holds_a_table_of_one_row() {
    needs_servers!();
    every_format_equals_the_table(1).await;
}

#[tokio::test]
async fn a_file_of_many_parts_is_whole() {
    needs_servers!();
    // 60 MB of JSON are eight parts, uploaded two at a time.
    let system = System::with_rows(200_000).await;
    let expected = write_expected(&system).await;
    for format in ["json", "parquet"] {
        let id = system.submit(format, None).await;
        system.wait_until_completed(&id).await;
        let file = system.file(format);
        std::fs::write(&file, system.download(&id).await).unwrap();
        compare(&file, format, false, &expected);
    }
}

/// Values of every type that is read natively, and some that go by their text form, as CSV against PostgreSQL's own
/// CSV output (which differs from ours in booleans and the form of timestamps alone).
#[tokio::test]
async fn other_types_are_as_postgres_prints_them() {
    needs_servers!();
    let system = System::without_worker(Setup::default()).await;
    let columns = [
        ("b", "boolean", "CASE b WHEN true THEN 'true' WHEN false THEN 'false' END"),
        ("i2", "smallint", "i2"),
        ("i4", "integer", "i4"),
        ("f4", "real", "f4"),
        ("f8", "double precision", "f8"),
        ("n", "numeric", "n"),
        ("n2", "numeric(5,-2)", "n2"),
        ("t", "text", "t"),
        ("c", "char(5)", "c"),
        ("by", "bytea", "by"),
        ("d", "date", "d"),
        ("tm", "time", "tm"),
        ("ts", "timestamp", "regexp_replace(ts::text, ' ', 'T')"),
        ("u", "uuid", "u"),
        ("j", "json", "j"),
        ("iv", "interval", "iv"),
        ("ip", "inet", "ip"),
        ("r", "int4range", "r"),
        ("a", "integer[]", "a"),
        ("ttz", "timetz", "ttz"),
        ("Odd \"Name\"", "text", "\"Odd \"\"Name\"\"\""),
    ];
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let definitions: Vec<String> = columns.iter().map(|(name, sql, _)| format!("{} {sql}", quoted(name))).collect();
    for statement in [
        "DROP TABLE public.records".to_owned(),
        format!("CREATE TABLE public.records (id integer PRIMARY KEY, {})", definitions.join(", ")),
        "INSERT INTO public.records VALUES
            (1, true, -32768, 2147483647, 'NaN', 'Infinity', 'NaN', 12300, '', 'ab', '\\x00ff', '0044-03-15 BC', '24:00', 'infinity', gen_random_uuid(), '{\"a\": [1.50]}', '1 year 2 days', '10.0.0.0/8', '[1,5)', '{1,NULL,3}', '10:00+02', 'x'),
            (2, false, 32767, -2147483648, 1e-5, -0.0, 1e131 / 7, -99900, E'a\"b\\nc,d', '', '', '9999-12-31', '00:00:00.000001', '4714-11-24 00:00:00 BC', gen_random_uuid(), 'null', '-3 mons', '::1', 'empty', '{}', '23:59:59.999999-15', ' '),
            (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
            (4, true, 0, 0, 1e6, 1e15, 0.000, 0, '\\.', 'é', '\\xdeadbeef', '2000-02-29', '12:34:56.7', '2026-01-02 03:04:05.123456', gen_random_uuid(), '[]', '1 day 01:02:03.5', '192.168.0.1', '(,)', '{1,2,3,4}', '00:00+00', 'ü😀')".to_owned(),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&system.pool).await.unwrap();
    }
    let mut system = system;
    system.wait_until_ready().await;
    system.add_worker();
    let mapping = polyglot_test_kit::columns(columns.iter().map(|(name, ..)| name));
    let (_, _, ours) = system.export(&json!({"format": "csv", "columns": mapping})).await;
    let ours = String::from_utf8(ours).unwrap();

    let expressions: Vec<String> =
        columns.iter().map(|(name, _, expression)| format!("{expression} AS {}", quoted(name))).collect();
    let copy = format!(
        "COPY (SELECT {} FROM public.records ORDER BY id) TO STDOUT (FORMAT csv, HEADER)",
        expressions.join(", ")
    );
    let mut connection = system.pool.acquire().await.unwrap();
    sqlx::raw_sql(
        "SET IntervalStyle TO iso_8601; SET TimeZone TO 'UTC'; SET DateStyle TO 'ISO'; SET extra_float_digits TO 1",
    )
    .execute(&mut *connection)
    .await
    .unwrap();
    let mut stream = connection.copy_out_raw(&copy).await.unwrap();
    let mut theirs = Vec::new();
    while let Some(chunk) = futures_util::TryStreamExt::try_next(&mut stream).await.unwrap() {
        theirs.extend_from_slice(&chunk);
    }
    let theirs = String::from_utf8(theirs).unwrap();
    for (row, (our, their)) in ours.lines().zip(theirs.lines()).enumerate() {
        assert_eq!(our, their, "line {row}");
    }
    assert_eq!(ours.len(), theirs.len());

    // The same rows in the other text formats and, without the infinities, in Parquet: none may fail.
    for format in ["json", "jsonl", "xml"] {
        system.export(&json!({"format": format, "columns": mapping})).await;
    }
    sqlx::query("DELETE FROM public.records WHERE id = 1").execute(&system.pool).await.unwrap();
    system.export(&json!({"format": "parquet", "columns": mapping})).await;
}

#[tokio::test]
async fn an_unrepresentable_value_fails_the_export_with_row_and_column_and_leaves_nothing() {
    needs_servers!();
    let system = System::with_rows(50).await;
    sqlx::query("UPDATE public.records SET name = E'bell \\u0007' WHERE id = 17").execute(&system.pool).await.unwrap();
    sqlx::query("UPDATE public.records SET created_at = 'infinity' WHERE id = 18").execute(&system.pool).await.unwrap();
    for (format, row, column) in [("xml", 17, "name"), ("parquet", 18, "created_at")] {
        let id = system.submit(format, None).await;
        let state = system.wait_until_ended(&id).await;
        assert_eq!(state["status"], "failed", "{state:#}");
        let error = state["error"].as_str().unwrap();
        assert!(error.contains(&format!("Row {row} ")) && error.contains(&format!("{column:?}")), "{error}");
        let download = system.get(&format!("/exports/{id}/download")).await;
        assert_eq!(download.status().as_u16(), 409);
    }
    system.wait_until_cleaned_up().await;
    // The same rows are no trouble for CSV.
    let id = system.submit("csv", None).await;
    system.wait_until_completed(&id).await;
}

#[tokio::test]
async fn the_embedded_store_of_make_run_delivers_the_same_bytes() {
    let servers = needs_servers!();
    let strict = System::with_rows(60_000).await;
    let embedded = System::start(Setup::new(60_000, &[("S3_ENDPOINT", &servers.s3_embedded_endpoint)])).await;
    for (format, compression) in [("csv", None), ("json", Some("gzip")), ("parquet", None)] {
        let mut files = Vec::new();
        for system in [&strict, &embedded] {
            let id = system.submit(format, compression).await;
            system.wait_until_completed(&id).await;
            let download = system.get(&format!("/exports/{id}/download")).await;
            let header = |name: &str| download.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            let disposition = header("content-disposition");
            assert_eq!(disposition, Some(format!("attachment; filename=\"export-{id}.{format}\"")));
            let headers = (header("content-type"), header("content-encoding"));
            files.push((headers, download.bytes().await.unwrap()));
        }
        assert!(files[0] == files[1], "{format} differs between the stores");
    }
}
