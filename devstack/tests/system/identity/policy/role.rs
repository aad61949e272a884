//! A role of the source that reads a dataset: its row security decides which rows there are.

use polyglot_test_servers::needs_servers;
use serde_json::json;
use sqlx::AssertSqlSafe;

use super::*;

#[tokio::test]
async fn row_security_applies_to_the_role_that_reads_the_dataset() {
    needs_servers!();
    let mut system = system_with(&[]).await;
    // Roles are the server's, which other tests use as well.
    let id = uuid::Uuid::new_v4().simple();
    let (reader, exempt) = (format!("north \"{id}"), format!("exempt_{id}"));
    let quoted = format!("\"{}\"", reader.replace('"', "\"\""));
    let statements = format!(
        "CREATE ROLE {quoted}; CREATE ROLE {exempt} BYPASSRLS;
         CREATE SCHEMA shop; GRANT USAGE ON SCHEMA shop TO {quoted}, {exempt};
         CREATE TABLE shop.sales (id int PRIMARY KEY, region text NOT NULL, filler text);
         INSERT INTO shop.sales SELECT n, CASE n % 2 WHEN 0 THEN 'north' ELSE 'south' END, repeat(md5(n::text), 8)
             FROM generate_series(1, 400000) n;
         CREATE MATERIALIZED VIEW shop.summary AS SELECT region, count(*) AS sales FROM shop.sales GROUP BY region;
         ALTER TABLE shop.sales ENABLE ROW LEVEL SECURITY;
         CREATE POLICY north ON shop.sales FOR SELECT TO {quoted} USING (region = 'north');
         GRANT SELECT ON shop.sales, shop.summary TO {quoted}; GRANT SELECT ON shop.sales TO {exempt}; ANALYZE"
    );
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&system.pool).await.unwrap();
    let entry = |name: &str, relation: &str, role: &str| {
        let role = role.replace('"', "\\\"");
        format!("[[dataset]]\nname = \"{name}\"\nrelation = \"shop.{relation}\"\nrole = \"{role}\"\n")
    };
    let datasets = [
        entry("north", "sales", &reader),
        // No lock can be taken on it, so the transaction begins twice.
        entry("summary", "summary", &reader),
        entry("exempt", "sales", &exempt),
        entry("unreadable", "summary", &exempt),
        entry("nobody", "sales", "no such role"),
    ];
    expose(&mut system, &datasets.concat()).await;
    system.add_worker();
    system.add_worker();
    let key = new_key(&system, "acme", EVERYTHING_OF_A_CLIENT);
    let few = json!([{"column": "id", "op": "<=", "value": 9}]);
    let (id, file) = exported(&system, &key, &request_of("north", &["id", "region"], few)).await;
    assert_eq!(String::from_utf8(file).unwrap(), "id,region\n2,north\n4,north\n6,north\n8,north\n");
    let manifest: Value = get(&system, &format!("/exports/{id}/manifest"), &key).await.json().await.unwrap();
    assert_eq!(manifest["policyApplied"], true);
    let state: Value = get(&system, &format!("/exports/{id}"), &key).await.json().await.unwrap();
    assert!(!format!("{manifest}{state}").contains("role"), "{manifest:#} {state:#}");
    // Every shard is read as the role.
    let (id, file) = exported(&system, &key, &request_of("north", &["id", "region", "filler"], json!([]))).await;
    let file = String::from_utf8(file).unwrap();
    assert_eq!(file.lines().count(), 200_001);
    assert!(!file.contains("south"));
    let manifest: Value = get(&system, &format!("/exports/{id}/manifest"), &key).await.json().await.unwrap();
    assert!(manifest["parts"].as_array().unwrap().len() > 2, "{manifest:#}");
    let preview: Value =
        post(&system, "/exports/preview", &key, &request_of("north", &["id"], json!([]))).await.json().await.unwrap();
    assert_eq!((&preview["rows"][0], &preview["rows"][1]), (&json!(["2"]), &json!(["4"])));
    // How many rows the others have is not told.
    assert_eq!(preview["estimatedRows"], Value::Null);
    let north: Value = get(&system, "/datasets/north", &key).await.json().await.unwrap();
    assert_eq!(north["estimatedRows"], Value::Null);
    let mut body = request_of("summary", &["region"], json!([]));
    body["orderBy"] = json!([{"column": "region"}]);
    assert_eq!(exported(&system, &key, &body).await.1, b"region\nnorth\nsouth\n");
    // What would go around row security, or cannot be read, is not there at all.
    for dataset in ["exempt", "unreadable", "nobody"] {
        for path in ["/exports", "/exports/preview"] {
            let answer = post(&system, path, &key, &request_of(dataset, &["id"], json!([]))).await;
            assert_eq!(problem(answer).await, (StatusCode::SERVICE_UNAVAILABLE, "dataset-unavailable".to_owned()));
        }
    }
    let list: Value = get(&system, "/datasets", &key).await.json().await.unwrap();
    let names: Vec<&str> =
        list["datasets"].as_array().unwrap().iter().map(|dataset| dataset["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["north", "summary"]);
    let log = system.api.as_ref().unwrap().log();
    assert!(log.contains("BYPASSRLS") && log.contains("there is no role"), "{log}");
    // A right that the role has lost since the export was accepted fails it.
    system.workers.clear();
    let accepted: Value =
        post(&system, "/exports", &key, &request_of("north", &["id"], json!([]))).await.json().await.unwrap();
    let revoke = format!("REVOKE SELECT ON shop.sales FROM {quoted}");
    sqlx::raw_sql(AssertSqlSafe(revoke)).execute(&system.pool).await.unwrap();
    system.add_worker();
    let id = accepted["exportId"].as_str().unwrap();
    assert_eq!(get(&system, &format!("/exports/{id}/download"), &key).await.status(), StatusCode::CONFLICT);
    let clean = format!("DROP OWNED BY {quoted}, {exempt}; DROP ROLE {quoted}, {exempt}");
    sqlx::raw_sql(AssertSqlSafe(clean)).execute(&system.pool).await.unwrap();
}
