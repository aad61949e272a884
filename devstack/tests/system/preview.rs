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
