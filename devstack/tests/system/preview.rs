//! The preview: the first rows of an export that is not submitted.

use polyglot_test_kit::{Setup, System};
use polyglot_test_servers::needs_servers;
use reqwest::Method;
use serde_json::{Value, json};

async fn preview(system: &System, body: &Value) -> (u16, Value) {
    let answer = system.request(Method::POST, "/exports/preview").json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn the_first_rows_are_those_that_the_file_begins_with() {
    needs_servers!();
    let system = System::with_rows(100).await;
    let body = json!({
        "format": "csv",
        "columns": [{"source": "id", "target": "ID"}, {"source": "name", "target": "who"}],
        "filters": [{"column": "id", "op": ">", "value": 50}],
        "orderBy": [{"column": "id", "direction": "desc"}],
    });
    let (status, shown) = preview(&system, &body).await;
    assert_eq!(status, 200, "{shown}");
    assert_eq!(shown["columns"][0], json!({"source": "id", "target": "ID", "type": "bigint"}));
    let rows = shown["rows"].as_array().unwrap();
    assert_eq!((rows.len(), shown["more"].as_bool()), (20, Some(true)));
    let estimate = |shown: &Value| shown["estimatedRows"].as_u64().unwrap_or_else(|| panic!("no estimate in {shown}"));
    assert!(estimate(&shown) < 100, "the estimate does not follow the filter: {shown}");

    let accepted: Value = system.post(&body).await.json().await.unwrap();
    let id = accepted["exportId"].as_str().unwrap();
    system.wait_until_completed(id).await;
    let file = String::from_utf8(system.download(id).await).unwrap();
    for (row, line) in rows.iter().zip(file.lines().skip(1)) {
        let number = row[0].as_str().unwrap();
        assert_eq!(line.split(',').next(), Some(number));
    }
    // Nothing was stored for the preview.
    assert_eq!(system.count("SELECT count(*) FROM polyglot.exports").await, 1);

    let few = json!({
        "format": "json", "columns": [{"source": "id", "target": "id"}],
        "filters": [{"column": "id", "op": "<=", "value": 3}],
    });
    let (_, shown) = preview(&system, &few).await;
    assert_eq!(shown["rows"], json!([["1"], ["2"], ["3"]]));
    assert_eq!(shown["more"], false);
    // Without a filter and without an order, too.
    let all = json!({"format": "json", "columns": [{"source": "id", "target": "id"}]});
    assert!(estimate(&preview(&system, &all).await.1) >= 90);
}

#[tokio::test]
async fn a_preview_that_fails_says_why() {
    needs_servers!();
    let system = System::without_worker(Setup { rows: 10, ..Setup::default() }).await;
    let columns = json!([{"source": "value", "target": "value"}]);
    let (status, problem) = preview(&system, &json!({"format": "cvs", "columns": columns})).await;
    assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some("format")), "{problem}");

    for statement in [
        "ALTER TABLE public.records RENAME TO former_records",
        "CREATE TABLE public.numbers AS SELECT generate_series(1, 10) AS id",
    ] {
        sqlx::query(statement).execute(&system.pool).await.unwrap();
    }
    sqlx::raw_sql(
        "CREATE FUNCTION public.refuse(integer) RETURNS numeric LANGUAGE plpgsql AS
         $$ BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', false); RAISE 'not today'; END $$",
    )
    .execute(&system.pool)
    .await
    .unwrap();
    for (definition, status, kind) in [
        ("SELECT id, public.refuse(id) AS value FROM public.numbers", 422, "preview-failed"),
        ("SELECT id, (1 / (id - 5))::numeric AS value FROM public.numbers", 422, "preview-failed"),
        ("SELECT id, 1::numeric AS value FROM public.numbers WHERE pg_sleep(60) IS NOT NULL", 422, "preview-too-slow"),
    ] {
        for statement in ["DROP VIEW IF EXISTS public.records", &format!("CREATE VIEW public.records AS {definition}")]
        {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&system.pool).await.unwrap();
        }
        let (answered, problem) = preview(&system, &json!({"format": "csv", "columns": columns})).await;
        assert_eq!(answered, status, "{problem}");
        assert_eq!(problem["type"], format!("urn:polyglot:problem:{kind}"));
    }
    // The preview that was too slow does not occupy the connections.
    let answer = system.get("/datasets").await;
    assert_eq!(answer.status(), 200);
}

/// A table with a value of each kind that formats write in ways of their own, a row of NULLs, and one with long values.
const KINDS: &str = r#"
    DROP TABLE public.records;
    CREATE TABLE public.records (id bigint PRIMARY KEY, t text, b boolean, n numeric(10,2), u uuid, bytes bytea, d date,
                                 tz timestamptz, j jsonb, a integer[], i interval, v numeric);
    INSERT INTO public.records VALUES
        (9007199254740993, E'=1, "a"\n<b>&é', true, -12.5, 'A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11', '\x00ff', '2026-01-02',
         '2023-08-26 07:40:53.247583+00', '{"k": [1, "x\ty"]}', '{1,NULL,3}', '1 day', 0.5);
    INSERT INTO public.records VALUES (9007199254740994);
    INSERT INTO public.records SELECT 9007199254740995, repeat('é"', 5000), false, 0, NULL, decode(repeat('ab', 5000), 'hex'),
        '2026-01-02', '2026-01-02 03:04:05Z', jsonb_build_object('k', repeat('x', 5000)), array_agg(n), '1 day', repeat('9', 5000)::numeric
        FROM generate_series(1, 5000) n"#;

const COLUMNS: [&str; 12] = ["id", "t", "b", "n", "u", "bytes", "d", "tz", "j", "a", "i", "v"];

#[tokio::test]
async fn values_are_shown_as_the_file_has_them() {
    needs_servers!();
    let system = System::without_worker(Setup { rows: 10, ..Setup::default() }).await;
    sqlx::raw_sql(KINDS).execute(&system.pool).await.unwrap();
    let columns: Vec<Value> = COLUMNS.iter().map(|name| json!({"source": name, "target": name})).collect();
    let rows = async |format: &str, options: Value| {
        let (status, shown) =
            preview(&system, &json!({"format": format, "columns": columns, "options": options})).await;
        assert_eq!(status, 200, "{format}: {shown}");
        shown["rows"].clone()
    };
    let mut nulls = vec![Value::Null; COLUMNS.len()];
    // Parquet and Arrow have the same values.
    let columnar = json!([
        "9007199254740993",
        "=1, \"a\"\n<b>&é",
        "true",
        "-12.50",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "00ff",
        "2026-01-02",
        "2023-08-26T07:40:53.247583Z",
        "{\"k\": [1, \"x\\ty\"]}",
        "[1, NULL, 3]",
        "P1D",
        "0.5"
    ]);
    for (format, options, first) in [
        (
            "csv",
            json!({}),
            json!([
                "9007199254740993",
                "\"=1, \"\"a\"\"\n<b>&é\"",
                "true",
                "-12.50",
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                "\\x00ff",
                "2026-01-02",
                "2023-08-26T07:40:53.247583Z",
                "\"{\"\"k\"\": [1, \"\"x\\ty\"\"]}\"",
                "\"{1,NULL,3}\"",
                "P1D",
                "0.5"
            ]),
        ),
        (
            "csv",
            json!({"profile": "spreadsheet", "delimiter": ";", "decimal": ","}),
            json!([
                "9007199254740993",
                "\"'=1, \"\"a\"\"\n<b>&é\"",
                "true",
                "-12,50",
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                "\\x00ff",
                "2026-01-02",
                "2023-08-26 07:40:53",
                "\"{\"\"k\"\": [1, \"\"x\\ty\"\"]}\"",
                "{1,NULL,3}",
                "P1D",
                "0,5"
            ]),
        ),
        (
            "json",
            json!({"bigint": "string", "numeric": "string"}),
            json!([
                "\"9007199254740993\"",
                "\"=1, \\\"a\\\"\\n<b>&é\"",
                "true",
                "\"-12.50\"",
                "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
                "\"\\\\x00ff\"",
                "\"2026-01-02\"",
                "\"2023-08-26T07:40:53.247583Z\"",
                "{\"k\": [1, \"x\\ty\"]}",
                "[1,null,3]",
                "\"P1D\"",
                "\"0.5\""
            ]),
        ),
        (
            "jsonl",
            json!({}),
            json!([
                "9007199254740993",
                "\"=1, \\\"a\\\"\\n<b>&é\"",
                "true",
                "-12.50",
                "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
                "\"\\\\x00ff\"",
                "\"2026-01-02\"",
                "\"2023-08-26T07:40:53.247583Z\"",
                "{\"k\": [1, \"x\\ty\"]}",
                "[1,null,3]",
                "\"P1D\"",
                "0.5"
            ]),
        ),
        (
            "xml",
            json!({}),
            json!([
                "9007199254740993",
                "=1, \"a\"\n&lt;b&gt;&amp;é",
                "true",
                "-12.50",
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                "AP8=",
                "2026-01-02",
                "2023-08-26T07:40:53.247583Z",
                "<k><item>1</item><item>x\ty</item></k>",
                "<item>1</item><item xsi:nil=\"true\"/><item>3</item>",
                "P1D",
                "0.5"
            ]),
        ),
        ("parquet", json!({}), columnar.clone()),
        ("arrow", json!({"uuid": "string", "numeric": "double"}), columnar),
    ] {
        let shown = rows(format, options).await;
        assert_eq!(shown[0], first, "{format}");
        nulls[0] = first[0].as_str().unwrap().replace("993", "994").into();
        assert_eq!(shown[1], Value::from(nulls.clone()), "{format}");
        for (name, cell) in COLUMNS.iter().zip(shown[2].as_array().unwrap()) {
            let is_long = ["t", "bytes", "j", "a", "v"].contains(name);
            let length = cell.as_str().map_or(0, |cell| cell.chars().count());
            assert_eq!(
                (length == 201, cell.as_str().is_some_and(|cell| cell.ends_with('…'))),
                (is_long, is_long),
                "{format} {name}: {cell}"
            );
        }
        // The beginning of a long text has the escapes of the format, too.
        let beginning = match format {
            "csv" => "\"é\"\"é\"\"é",
            "json" | "jsonl" => "\"é\\\"é\\\"é",
            _ => "é\"é\"é",
        };
        assert!(shown[2][1].as_str().unwrap().starts_with(beginning), "{format}: {}", shown[2][1]);
    }
}

#[tokio::test]
async fn a_value_that_the_format_cannot_hold_is_told_before_the_export() {
    needs_servers!();
    let system = System::without_worker(Setup { rows: 10, ..Setup::default() }).await;
    sqlx::raw_sql("UPDATE public.records SET name = E'bell \\x07' WHERE id = 3").execute(&system.pool).await.unwrap();
    let columns = json!([{"source": "id", "target": "id"}, {"source": "name", "target": "Name"}]);
    let (status, problem) = preview(&system, &json!({"format": "xml", "columns": columns})).await;
    assert_eq!((status, problem["type"].as_str()), (422, Some("urn:polyglot:problem:preview-failed")), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("Row 3 of the preview: column \"Name\" holds") && detail.contains("XML 1.0"),
        "{detail}"
    );
    let replaced = json!({"format": "xml", "columns": columns, "options": {"onUnrepresentable": "replace"}});
    let (status, shown) = preview(&system, &replaced).await;
    assert_eq!((status, shown["rows"][2][1].as_str()), (200, Some("bell \u{FFFD}")), "{shown}");
}
