//! Tables of unusual shape: very wide, empty, all NULL, with names and keys that need care; and that the same table is
//! always the same bytes.

use polyglot_test_kit::{Setup, System};
use polyglot_test_servers::needs_servers;
use sqlx::AssertSqlSafe;

use super::table::{Column, columns, quoted, reload, reload_csv};
use super::{bytes_of, export, request};
use crate::formats::CASES;

async fn with_table(statements: &str) -> (System, Vec<Column>) {
    let system = System::start(Setup::default()).await;
    let all = format!("DROP TABLE public.records; {statements}");
    sqlx::raw_sql(AssertSqlSafe(all)).execute(&system.pool).await.unwrap();
    let columns = columns(&system.pool).await;
    (system, columns)
}

/// Every format, there and back; and a second export is the same bytes.
async fn survives_everything(system: &System, columns: &[Column]) {
    for (format, compression) in CASES {
        let body = request(format, compression, columns);
        let file = export(system, &body).await;
        reload(system, format, compression, &file, columns).await;
        if (format, compression) == ("csv", None) {
            reload_csv(system, &file, columns).await;
        }
        let again = export(system, &body).await;
        assert!(bytes_of(&file) == bytes_of(&again), "{format} {compression:?}: a second export differs");
    }
}

/// One column a built-in type, none with a default.
const EVERY_TYPE: &str = "smallint, integer, bigint, real, double precision, numeric, numeric(18,4), numeric(50,2), boolean,
    text, varchar(5), char(5), name, \"char\", bytea, date, time, timetz, timestamp, timestamptz, interval, uuid, json, jsonb,
    xml, inet, cidr, macaddr, macaddr8, bit(3), bit varying, money, point, line, lseg, box, path, polygon, circle, tsvector,
    tsquery, oid, xid, xid8, pg_lsn, jsonpath, pg_snapshot, int4range, int8range, numrange, tsrange, tstzrange, daterange,
    int4multirange, datemultirange";

const ARRAYS: &str = "text[], integer[][], timestamptz[], json[], numeric(18,4)[], bytea[], inet[], int4range[]";

/// The types of a list, split at the commas between them.
fn each(list: &str) -> Vec<String> {
    let mut types: Vec<String> = Vec::new();
    let mut open = false;
    for piece in list.split(',') {
        match types.last_mut() {
            Some(last) if open => *last = format!("{last},{piece}"),
            _ => types.push(piece.trim().to_owned()),
        }
        open = types.last().is_some_and(|last| last.contains('(') && !last.contains(')'));
    }
    types
}

fn table_of(list: &str) -> String {
    let columns: Vec<String> = each(list).iter().enumerate().map(|(at, sql)| format!("c{at} {sql}")).collect();
    format!("CREATE TABLE public.records (id bigint PRIMARY KEY, {})", columns.join(", "))
}

async fn survives_empty_and_null(list: &str) {
    let (system, columns) = with_table(&table_of(list)).await;
    assert_eq!(columns.len(), each(list).len() + 1);
    survives_everything(&system, &columns).await;

    sqlx::query("INSERT INTO public.records SELECT n FROM generate_series(1, 300) n")
        .execute(&system.pool)
        .await
        .unwrap();
    survives_everything(&system, &columns).await;
    // Without the key, every row is nothing but NULL.
    let nulls: Vec<Column> = columns[1..].to_vec();
    let file = export(&system, &request("csv", None, &nulls)).await;
    let text = String::from_utf8(bytes_of(&file)).unwrap();
    let line = ",".repeat(nulls.len() - 1);
    assert_eq!(text.lines().skip(1).filter(|row| *row == line).count(), 300);
}

#[tokio::test]
async fn every_type_without_a_row_and_with_nothing_but_null() {
    needs_servers!();
    survives_empty_and_null(EVERY_TYPE).await;
}

#[tokio::test]
async fn arrays_without_a_row_and_with_nothing_but_null() {
    needs_servers!();
    survives_empty_and_null(ARRAYS).await;
}

#[tokio::test]
async fn sixteen_hundred_columns() {
    needs_servers!();
    // As many as PostgreSQL has; a row of them must fit a page.
    let types = ["boolean", "smallint", "integer", "\"char\"", "date", "real"];
    let values = ["n % 2 = 0", "n", "-n", "'x'", "date '2026-01-01' + n", "n / 2.0"];
    let definitions: Vec<String> = (1..1600).map(|at| format!("c{at} {}", types[at % 6])).collect();
    let filled: Vec<String> =
        (1..1600).map(|at| format!("CASE WHEN (n + {at}) % 5 > 0 THEN {} END", values[at % 6])).collect();
    let (system, columns) = with_table(&format!(
        "CREATE TABLE public.records (id bigint PRIMARY KEY, {});
         INSERT INTO public.records SELECT n, {} FROM generate_series(1, 200) n",
        definitions.join(", "),
        filled.join(", ")
    ))
    .await;
    assert_eq!(columns.len(), 1600);
    survives_everything(&system, &columns).await;
}

#[tokio::test]
async fn names_of_every_sort() {
    needs_servers!();
    let long = "ü".repeat(31) + "x";
    let names = [
        "Mixed Case",
        "a\"b",
        "\"",
        "'",
        "it's",
        "a,b",
        "a\nb",
        "select",
        "case",
        "format",
        "user",
        "order",
        "from",
        "null",
        "tableoid2",
        "a\\b",
        "<tag>",
        "&",
        "xml",
        "_x0041_",
        "1st",
        "a:b",
        "héllo",
        "日本",
        "😀",
        "e\u{301}",
        "$1",
        "{}",
        "%s",
        "--",
        "/* */",
        ";",
        "\\.",
        "t",
        "r",
        "a",
        "public",
        "records",
        "id ",
        "ID",
        &long,
    ];
    let definitions: Vec<String> = names.iter().map(|name| format!("{} text", quoted(name))).collect();
    let (system, mut columns) =
        with_table(&format!("CREATE TABLE public.records (id bigint PRIMARY KEY, {})", definitions.join(", "))).await;
    assert_eq!(long.len(), 63);
    let each: Vec<String> = names.iter().enumerate().map(|(at, _)| format!("'v{at}-' || n")).collect();
    let fill = format!("INSERT INTO public.records SELECT n, {} FROM generate_series(1, 20) n", each.join(", "));
    sqlx::query(AssertSqlSafe(fill)).execute(&system.pool).await.unwrap();
    // A control character may be in a table's name for a column, not in the file's.
    for column in &mut columns {
        column.target = column.target.replace('\n', " ");
    }
    survives_everything(&system, &columns).await;

    // Other names in the file, in another order.
    let mut renamed: Vec<Column> = columns.iter().rev().cloned().collect();
    renamed.rotate_right(1);
    for (at, column) in renamed.iter_mut().enumerate().skip(1) {
        column.target = format!("{at} {}", columns[at].target);
    }
    survives_everything(&system, &renamed).await;
}

/// The first field of each line of a CSV file.
fn first_cells(file: &std::path::Path) -> Vec<String> {
    let text = String::from_utf8(bytes_of(file)).unwrap();
    text.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn rows_are_in_the_order_of_the_key() {
    needs_servers!();
    // Not the order of the columns in the table, and names that are keywords of SQL.
    for key in ["\"format\", \"case\"", "\"case\"", "t, \"case\""] {
        let (system, columns) = with_table(&format!(
            "CREATE TABLE public.records (\"case\" bigint, t text COLLATE \"C\", \"format\" numeric, PRIMARY KEY ({key}));
             INSERT INTO public.records SELECT n, chr(97 + n % 26), (n * 7919) % 10 / 10.0 FROM generate_series(1, 1000) n
             ORDER BY hashint4(n)"
        ))
        .await;
        let sql = format!("SELECT \"case\"::text AS cell FROM public.records ORDER BY {key}");
        let expected: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&system.pool).await.unwrap();
        for compression in [None, Some("gzip")] {
            let file = export(&system, &request("csv", compression, &columns)).await;
            if compression.is_none() {
                assert!(first_cells(&file) == expected, "PRIMARY KEY ({key})");
            }
            reload(&system, "csv", compression, &file, &columns).await;
        }
        // The key orders even where it is not in the file.
        let file = export(&system, &request("csv", None, &columns[..1])).await;
        assert!(first_cells(&file) == expected, "PRIMARY KEY ({key})");
    }
}
