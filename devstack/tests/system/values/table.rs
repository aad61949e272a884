//! The table under test: its columns in the catalog, and the comparisons that PostgreSQL makes between it and
//! what came back out of a file.

use std::path::Path;

use polyglot_test_kit::System;
use serde_json::{Value, json};
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Postgres};

use super::bytes_of;
use crate::python::run_script;

#[derive(Debug, Clone)]
pub(super) struct Column {
    pub name: String,
    /// Its name in the file.
    pub target: String,
    /// The type's name without modifiers, domains resolved; of an array its items'.
    pub leaf: String,
    pub is_array: bool,
    /// hstore and composites: their text in every format, where `to_jsonb` makes objects of them.
    pub text_in_json: bool,
}

const COLUMNS: &str = "
    WITH RECURSIVE walk(attnum, typid, in_array) AS (
        SELECT attnum, atttypid, false FROM pg_attribute
        WHERE attrelid = 'public.records'::regclass AND attnum > 0 AND NOT attisdropped
      UNION ALL
        SELECT walk.attnum, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE item.oid END, in_array OR t.typtype <> 'd'
        FROM walk JOIN pg_type t ON t.oid = walk.typid LEFT JOIN pg_type item ON item.typarray = t.oid
        WHERE t.typtype = 'd' OR item.oid IS NOT NULL)
    SELECT a.attname::text, format_type(t.oid, NULL), walk.in_array, t.typtype = 'c' OR t.typname = 'hstore'
    FROM walk JOIN pg_type t ON t.oid = walk.typid
         JOIN pg_attribute a ON a.attrelid = 'public.records'::regclass AND a.attnum = walk.attnum
    WHERE t.typtype <> 'd' AND NOT EXISTS (SELECT FROM pg_type item WHERE item.typarray = t.oid)
    ORDER BY a.attnum";

/// The columns of `public.records`.
pub(super) async fn columns(pool: &PgPool) -> Vec<Column> {
    let rows: Vec<(String, String, bool, bool)> = sqlx::query_as(COLUMNS).fetch_all(pool).await.unwrap();
    rows.into_iter()
        .map(|(name, leaf, is_array, text_in_json)| {
            let target = name.clone();
            Column { name, target, leaf, is_array, text_in_json }
        })
        .collect()
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn text_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Column {
    fn is_json(&self) -> bool {
        self.leaf == "json" || self.leaf == "jsonb"
    }

    /// The value as the type's output function writes it. `::text` would cut the blanks of char(n), and `IS NULL` is
    /// true of a composite whose fields are.
    fn text(&self, of: &str) -> String {
        let value = format!("{of}.{}", quoted(&self.name));
        format!("CASE WHEN num_nulls({value}) = 0 THEN format('%s', {value}) END")
    }

    /// What must be equal after the way through a format and back: the text, but for what the format does not carry.
    fn carried(&self, of: &str, format: &str) -> String {
        let text = self.text(of);
        if format == "csv" {
            return text;
        }
        if self.is_array {
            // Only PostgreSQL's own text has a place for lower bounds.
            return format!(r"regexp_replace({text}, '^(\[-?\d+:-?\d+\])+=', '')");
        }
        if self.leaf == "json" && format.starts_with("json") {
            // White space between the tokens is not part of the value; inside a string it is.
            return format!(r#"regexp_replace({text}, '("(?:[^"\\]|\\.)*")|[ \t\r\n]+', '\1', 'g')"#);
        }
        text
    }

    /// The very text of a CSV cell, where it is not PostgreSQL's own.
    fn cell(&self, of: &str) -> String {
        let (text, value) = (self.text(of), format!("{of}.{}", quoted(&self.name)));
        match self.leaf.as_str() {
            _ if self.is_array => text,
            "boolean" => format!("CASE {value} WHEN true THEN 'true' WHEN false THEN 'false' END"),
            "timestamp without time zone" => format!("regexp_replace({text}, ' ', 'T')"),
            "timestamp with time zone" => format!(r"regexp_replace(regexp_replace({text}, ' ', 'T'), '\+00', 'Z')"),
            _ => text,
        }
    }

    /// What `to_jsonb` makes of the value, with our differences from it.
    fn jsonb(&self, of: &str) -> String {
        let value = format!("{of}.{}", quoted(&self.name));
        match (self.leaf.as_str(), self.is_array) {
            // A zone of zero is `Z`. Inside an array there is no string but timestamps.
            ("timestamp with time zone", _) => format!("replace(to_jsonb({value})::text, '+00:00', 'Z')::jsonb"),
            _ if self.text_in_json && self.is_array => format!("to_jsonb({value}::text[])"),
            // PostgreSQL calls these arrays and has no array syntax for them.
            ("int2vector" | "oidvector", _) => format!("to_jsonb({})", self.text(of)),
            _ if self.text_in_json => format!("to_jsonb({})", self.text(of)),
            _ => format!("to_jsonb({value})"),
        }
    }
}

/// A connection whose text of a value is the one that all formats have.
pub(super) async fn connection(pool: &PgPool) -> PoolConnection<Postgres> {
    let mut connection = pool.acquire().await.unwrap();
    sqlx::raw_sql(
        "SET TimeZone TO 'UTC'; SET DateStyle TO 'ISO'; SET IntervalStyle TO iso_8601; SET extra_float_digits TO 1",
    )
    .execute(&mut *connection)
    .await
    .unwrap();
    connection
}

pub(super) async fn run(connection: &mut PoolConnection<Postgres>, sql: String) {
    let start: String = sql.chars().take(300).collect();
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut **connection)
        .await
        .unwrap_or_else(|error| panic!("{start}: {error}"));
}

pub(super) async fn copy_in(connection: &mut PoolConnection<Postgres>, statement: &str, bytes: Vec<u8>) -> u64 {
    let mut copy = connection.copy_in_raw(statement).await.unwrap();
    for piece in bytes.chunks(1 << 20) {
        copy.send(piece).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    copy.finish().await.unwrap_or_else(|error| panic!("{statement}: {error}"))
}

/// Asserts that `records` and `other` are the same rows, by the expressions of each column for either side.
async fn assert_same(
    connection: &mut PoolConnection<Postgres>,
    other: &str,
    columns: &[Column],
    pairs: &[(String, String)],
    what: &str,
) {
    let side = |pick: fn(&(String, String)) -> &String| {
        pairs.iter().map(|pair| pick(pair).as_str()).collect::<Vec<_>>().join(", ")
    };
    let ours = format!("SELECT {} FROM public.records a", side(|pair| &pair.0));
    let theirs = format!("SELECT {} FROM {other} b", side(|pair| &pair.1));
    let count = format!(
        "SELECT (SELECT count(*) FROM ({ours} EXCEPT ALL {theirs}) missing),
                (SELECT count(*) FROM ({theirs} EXCEPT ALL {ours}) extra)"
    );
    let (missing, extra): (i64, i64) = sqlx::query_as(AssertSqlSafe(count)).fetch_one(&mut **connection).await.unwrap();
    if (missing, extra) == (0, 0) {
        return;
    }
    // Which cells: the first column is the key.
    let mut cells = Vec::new();
    for (column, (left, right)) in columns.iter().zip(pairs) {
        let sql = format!(
            "SELECT format('%s of %s: %L came back as %L', {name}, {key}, left({left}, 200), left({right}, 200))
             FROM public.records a JOIN {other} b ON {key} = {other_key}
             WHERE {left} IS DISTINCT FROM {right} LIMIT 3",
            name = text_literal(&column.name),
            key = pairs[0].0,
            other_key = pairs[0].1,
        );
        let found: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut **connection).await.unwrap();
        cells.extend(found);
    }
    panic!("{what}: {missing} rows are missing and {extra} are not the table's:\n{}", cells.join("\n"));
}

/// The rows of `other`, a table like `records`, are those of `records` as far as `format` carries them.
async fn assert_reloaded(connection: &mut PoolConnection<Postgres>, columns: &[Column], format: &str, what: &str) {
    let pairs: Vec<_> = columns.iter().map(|it| (it.carried("a", format), it.carried("b", format))).collect();
    assert_same(connection, "reloaded", columns, &pairs, what).await;
}

async fn empty_reloaded(connection: &mut PoolConnection<Postgres>) {
    run(connection, "DROP TABLE IF EXISTS reloaded; CREATE TABLE reloaded (LIKE public.records)".to_owned()).await;
}

fn names(columns: &[Column]) -> String {
    columns.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ")
}

/// Takes a file of `columns` back through the independent reader of its format.
pub(super) async fn reload(system: &System, format: &str, compression: Option<&str>, file: &Path, columns: &[Column]) {
    let mut connection = connection(&system.pool).await;
    let description: Vec<Value> = columns
        .iter()
        .map(|column| json!({"target": column.target, "leaf": column.leaf, "array": column.is_array}))
        .collect();
    let (described, like, copy) =
        (file.with_extension("columns"), file.with_extension("like"), file.with_extension("copy"));
    std::fs::write(&described, Value::from(description).to_string()).unwrap();
    std::fs::write(&like, json_texts(&mut connection, columns).await).unwrap();
    let compression = compression.unwrap_or("plain");
    let paths = [file, &described, &like, &copy].map(Path::as_os_str);
    run_script("reload.py", [format.as_ref(), compression.as_ref()].into_iter().chain(paths));
    empty_reloaded(&mut connection).await;
    copy_in(&mut connection, &format!("COPY reloaded ({}) FROM STDIN", names(columns)), bytes_of(&copy)).await;
    assert_reloaded(&mut connection, columns, format, &format!("{format} ({compression})")).await;
}

/// The text of every json column, a line a row, for the readers that cannot know it.
async fn json_texts(connection: &mut PoolConnection<Postgres>, columns: &[Column]) -> String {
    let fields: Vec<String> = columns
        .iter()
        .filter(|column| column.is_json())
        .map(|column| {
            let (value, text) = (quoted(&column.name), if column.is_array { "text[]" } else { "text" });
            format!("{}, to_json({value}::{text})", text_literal(&column.target))
        })
        .collect();
    if fields.is_empty() {
        return String::new();
    }
    let sql = format!(
        "SELECT json_build_object('id', {}::text, 'like', json_build_object({}))::text FROM public.records",
        quoted(&columns[0].name),
        fields.join(", ")
    );
    let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut **connection).await.unwrap();
    rows.join("\n")
}

/// PostgreSQL itself reads a CSV file: into a table like `records`, and into text columns, whose cells must be the
/// promised ones to the letter.
pub(super) async fn reload_csv(system: &System, file: &Path, columns: &[Column]) {
    let mut connection = connection(&system.pool).await;
    empty_reloaded(&mut connection).await;
    let statement = format!("COPY reloaded ({}) FROM STDIN (FORMAT csv, HEADER)", names(columns));
    copy_in(&mut connection, &statement, bytes_of(file)).await;
    assert_reloaded(&mut connection, columns, "csv", "CSV by COPY").await;

    let cells: Vec<String> = columns.iter().map(|column| format!("{} text", quoted(&column.name))).collect();
    run(&mut connection, format!("DROP TABLE IF EXISTS cells; CREATE TABLE cells ({})", cells.join(", "))).await;
    copy_in(&mut connection, "COPY cells FROM STDIN (FORMAT csv, HEADER)", bytes_of(file)).await;
    let pairs: Vec<_> = columns.iter().map(|it| (it.cell("a"), format!("b.{}", quoted(&it.name)))).collect();
    assert_same(&mut connection, "cells", columns, &pairs, "the cells of CSV").await;
}

/// Asserts that a JSON Lines file, as PostgreSQL reads it, equals `to_jsonb`.
pub(super) async fn compare_jsonb(system: &System, file: &Path, columns: &[Column]) {
    let mut connection = connection(&system.pool).await;
    run(&mut connection, "DROP TABLE IF EXISTS lines; CREATE TABLE lines (line jsonb)".to_owned()).await;
    // Delimiter and quote are bytes that JSON never has, so a line is one value as it stands.
    let statement = r"COPY lines FROM STDIN (FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02')";
    let lines = copy_in(&mut connection, statement, bytes_of(file)).await;
    let rows = system.count("SELECT count(*) FROM public.records").await;
    assert_eq!(i64::try_from(lines).unwrap(), rows);
    let wanted: Vec<String> =
        columns.iter().map(|it| format!("({}, ({})::text)", text_literal(&it.target), it.jsonb("a"))).collect();
    let sql = format!(
        "SELECT format('%s of %s: %s instead of %s', key, a.id, left(found, 200), left(wanted, 200))
         FROM public.records a LEFT JOIN lines l ON (l.line ->> 'id')::bigint = a.id,
              LATERAL (SELECT coalesce(e.key, v.key) AS key, wanted, e.value::text AS found
                       FROM (VALUES {}) v(key, wanted) FULL JOIN jsonb_each(l.line) e ON e.key = v.key) cell
         WHERE found IS DISTINCT FROM coalesce(wanted, 'null') LIMIT 40",
        wanted.join(", ")
    );
    let different: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut *connection).await.unwrap();
    assert!(different.is_empty(), "not what to_jsonb says:\n{}", different.join("\n"));
}
