//! The policies of `DATASETS`: for whom a dataset exists, which rows are whose, and which values nobody gets.

mod limits;
mod masks;
mod role;

use polyglot_test_servers::needs_servers;
use serde_json::json;

use super::*;

const DATASETS: &str = r#"
[[dataset]]
name = "orders"
relation = "shop.orders"
columns = ["id", "total"]
row_filter = [{ column = "tenant", op = "=", claim = "tenant" }, { column = "deleted", op = "=", value = false }]

[[dataset]]
name = "internal"
relation = "shop.internal"
tenants = ["acme"]

[[dataset]]
name = "by_number"
relation = "shop.orders"
columns = ["id"]
row_filter = [{ column = "id", op = "=", claim = "tenant" }]

[[dataset]]
relation = "shop.*"

[[dataset]]
name = "notes"
relation = "shop.notes"
columns = ["id"]
row_filter = [{ column = "author", op = "=", claim = "name" }]
"#;

async fn shop() -> System {
    let statements = [
        "CREATE SCHEMA shop",
        "CREATE TABLE shop.orders (id int PRIMARY KEY, tenant text NOT NULL, total int, deleted boolean NOT NULL DEFAULT false)",
        "INSERT INTO shop.orders SELECT n, CASE n % 3 WHEN 0 THEN 'acme' WHEN 1 THEN 'other' ELSE 'third' END, n, n % 10 = 0
         FROM generate_series(1, 300) n",
        "CREATE TABLE shop.internal (id int PRIMARY KEY)",
        "CREATE TABLE shop.public_list (id int PRIMARY KEY)",
        "CREATE TABLE shop.notes (id int, author text) PARTITION BY RANGE (id)",
        "CREATE TABLE shop.notes_2026 PARTITION OF shop.notes FOR VALUES FROM (0) TO (1000)",
        "INSERT INTO shop.notes SELECT n, CASE n % 2 WHEN 0 THEN 'ann' ELSE 'bob' END FROM generate_series(1, 20) n",
        "CREATE TABLE shop.old_orders () INHERITS (shop.orders)",
        "ANALYZE",
    ];
    system_over(&[], &statements, DATASETS).await
}

/// The system with these variables and a worker, over what the statements make of the source, with this `DATASETS` file.
async fn system_over(env: &[(&str, &str)], statements: &[&'static str], datasets: &str) -> System {
    let mut system = system_with(env).await;
    for statement in statements {
        sqlx::raw_sql(*statement).execute(&system.pool).await.unwrap();
    }
    expose(&mut system, datasets).await;
    system.add_worker();
    system
}

/// Starts the api with this `DATASETS` file.
async fn expose(system: &mut System, datasets: &str) {
    let file = system.file("datasets.toml");
    std::fs::write(&file, datasets).unwrap();
    system.set("DATASETS", file.to_str().unwrap());
    system.api = None;
    system.start_api();
    system.wait_until_ready().await;
}

/// The id and the file of the export of this body.
async fn exported(system: &System, key: &str, body: &Value) -> (String, Vec<u8>) {
    let accepted: Value = post(system, "/exports", key, body).await.json().await.unwrap();
    let id = accepted["exportId"].as_str().unwrap_or_else(|| panic!("{accepted:#}")).to_owned();
    let file = get(system, &format!("/exports/{id}/download"), key).await;
    assert_eq!(file.status(), StatusCode::OK, "{:?}", file.text().await);
    (id, file.bytes().await.unwrap().to_vec())
}

fn request_of(dataset: &str, columns: &[&str], filters: Value) -> Value {
    let mut request = json!({"dataset": dataset, "format": "csv", "orderBy": [{"column": "id"}]});
    request["columns"] = polyglot_test_kit::columns(columns);
    request["filters"] = filters;
    request
}

async fn post(system: &System, path: &str, key: &str, body: &Value) -> Response {
    request(system, Method::POST, path, key).json(body).send().await.unwrap()
}

#[tokio::test]
async fn every_tenant_gets_its_own_rows_and_nothing_tells_of_the_others() {
    needs_servers!();
    let system = shop().await;
    let (acme, other) =
        (new_key(&system, "acme", EVERYTHING_OF_A_CLIENT), new_key(&system, "other", EVERYTHING_OF_A_CLIENT));
    for (key, rest) in [(&acme, 0), (&other, 1)] {
        let own: Vec<u32> = (1..=300).filter(|n| n % 3 == rest && n % 10 != 0).collect();
        let body = request_of("orders", &["id", "total"], json!([]));
        let accepted: Value = post(&system, "/exports", key, &body).await.json().await.unwrap();
        let id = accepted["exportId"].as_str().unwrap().to_owned();
        let file = get(&system, &format!("/exports/{id}/download"), key).await.text().await.unwrap();
        let expected: Vec<String> = own.iter().map(|n| format!("{n},{n}")).collect();
        assert_eq!(file, format!("id,total\n{}\n", expected.join("\n")));
        let preview: Value = post(&system, "/exports/preview", key, &body).await.json().await.unwrap();
        assert_eq!(preview["rows"][0][0], own[0].to_string());
        // Neither document says how the rows were chosen, only that they were.
        let manifest: Value = get(&system, &format!("/exports/{id}/manifest"), key).await.json().await.unwrap();
        assert_eq!((&manifest["policyApplied"], &manifest["filters"]), (&json!(true), &json!([])), "{manifest:#}");
        let state: Value = get(&system, &format!("/exports/{id}"), key).await.json().await.unwrap();
        assert_eq!(state["request"]["filters"], Value::Null);
        let told = format!("{manifest}{state}");
        assert!(!told.contains("tenant") && !told.contains("\"column\":\"deleted\""), "{told}");
        // Nor is it a way around to name the hidden column, or to ask for another's rows.
        let around = request_of("orders", &["id"], json!([{"column": "tenant", "op": "!=", "value": "x"}]));
        assert_eq!(problem(post(&system, "/exports", key, &around).await).await.1, "invalid-request");
        let foreign = request_of("orders", &["id"], json!([{"column": "id", "op": "=", "value": 2}]));
        let preview: Value = post(&system, "/exports/preview", key, &foreign).await.json().await.unwrap();
        assert_eq!(preview["rows"], json!([]));
    }
}

#[tokio::test]
async fn a_dataset_exists_for_its_tenants_alone_and_no_pattern_goes_around_it() {
    needs_servers!();
    let system = shop().await;
    let (acme, other) =
        (new_key(&system, "acme", EVERYTHING_OF_A_CLIENT), new_key(&system, "other", EVERYTHING_OF_A_CLIENT));
    let names = async |key: &str| -> Vec<String> {
        let list: Value = get(&system, "/datasets", key).await.json().await.unwrap();
        list["datasets"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&acme).await, ["by_number", "internal", "notes", "orders", "public_list"]);
    assert_eq!(names(&other).await, ["by_number", "notes", "orders", "public_list"]);
    assert_eq!(problem(get(&system, "/datasets/internal", &other).await).await.1, "unknown-dataset");
    assert_eq!(get(&system, "/datasets/internal", &acme).await.status(), StatusCode::OK);
    let body = request_of("internal", &["id"], json!([]));
    let refused: Value = post(&system, "/exports", &other, &body).await.json().await.unwrap();
    let unknown: Value =
        post(&system, "/exports", &other, &request_of("nothing", &["id"], json!([]))).await.json().await.unwrap();
    let words =
        |answer: &Value| answer["detail"].as_str().unwrap().replace("internal", "NAME").replace("nothing", "NAME");
    assert_eq!(words(&refused), words(&unknown));
    assert_eq!(post(&system, "/exports", &acme, &body).await.status(), StatusCode::CREATED);
    // Neither the partition of one relation with a policy nor the child of another is a way around it.
    for part in ["notes_2026", "old_orders"] {
        let refused = post(&system, "/exports/preview", &other, &request_of(part, &["id"], json!([]))).await;
        assert_eq!(problem(refused).await.1, "invalid-request", "{part}");
        assert_eq!(problem(get(&system, &format!("/datasets/{part}"), &other).await).await.1, "unknown-dataset");
    }
    // What is locked, or gone, is still nobody's for another tenant.
    let mut lock = system.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE shop.internal IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    assert_eq!(problem(post(&system, "/exports", &other, &body).await).await.1, "invalid-request");
    assert_eq!(problem(get(&system, "/datasets/internal", &other).await).await.1, "unknown-dataset");
    lock.rollback().await.unwrap();
    // How many rows the others have is not told either.
    let orders: Value = get(&system, "/datasets/orders", &other).await.json().await.unwrap();
    assert_eq!(orders["estimatedRows"], Value::Null);
    let filter = json!([{"column": "total", "op": "=", "value": 3}]);
    let preview: Value =
        post(&system, "/exports/preview", &other, &request_of("orders", &["id"], filter)).await.json().await.unwrap();
    assert_eq!(preview["estimatedRows"], Value::Null);
}

#[tokio::test]
async fn a_policy_that_cannot_be_applied_refuses_and_is_never_left_out() {
    needs_servers!();
    let mut system = shop().await;
    let acme = new_key(&system, "acme", EVERYTHING_OF_A_CLIENT);
    // The tenant is no number.
    for path in ["/exports", "/exports/preview"] {
        let answer = post(&system, path, &acme, &request_of("by_number", &["id"], json!([]))).await;
        assert_eq!(problem(answer).await, (StatusCode::FORBIDDEN, "policy-not-applicable".to_owned()), "{path}");
    }
    let numbered = new_key(&system, "7", EVERYTHING_OF_A_CLIENT);
    let preview = post(&system, "/exports/preview", &numbered, &request_of("by_number", &["id"], json!([]))).await;
    assert_eq!(preview.json::<Value>().await.unwrap()["rows"], json!([["7"]]));
    // A column that is gone: the dataset is not available, instead of unfiltered.
    sqlx::raw_sql("ALTER TABLE shop.orders RENAME COLUMN tenant TO owner").execute(&system.pool).await.unwrap();
    system.api = None;
    system.start_api();
    system.wait_until_ready().await;
    let answer = post(&system, "/exports", &acme, &request_of("orders", &["id"], json!([]))).await;
    assert_eq!(problem(answer).await, (StatusCode::SERVICE_UNAVAILABLE, "dataset-unavailable".to_owned()));
    // A file that cannot be meant stops the start.
    let file = system.file("bad.toml");
    std::fs::write(&file, DATASETS.replace("claim = \"tenant\"", "clam = \"tenant\"")).unwrap();
    system.set("DATASETS", file.to_str().unwrap());
    system.start_api();
    let mut api = system.api.take().unwrap();
    assert_eq!(api.wait_for_exit().await.code(), Some(2));
    assert!(api.log().contains("DATASETS: ") && api.log().contains("clam"), "{}", api.log());
}

#[tokio::test]
async fn what_is_chosen_by_the_person_is_for_that_person_alone() {
    needs_servers!();
    let system = shop().await;
    let named = |name: &str| keys(&system, &["create", "--name", name, "--tenant", "acme"]).trim().to_owned();
    let (ann, bob) = (named("ann"), named("bob"));
    let mut body = request_of("notes", &["id"], json!([]));
    body["coalesce"] = json!(true);
    let accepted: Value = post(&system, "/exports", &ann, &body).await.json().await.unwrap();
    let id = accepted["exportId"].as_str().unwrap().to_owned();
    let file = get(&system, &format!("/exports/{id}/download"), &ann).await.text().await.unwrap();
    assert!(file.starts_with("id\n2\n4\n"), "{file}");
    for path in ["", "/download", "/manifest", "/events"] {
        let answer = get(&system, &format!("/exports/{id}{path}"), &bob).await;
        assert_eq!(problem(answer).await, (StatusCode::NOT_FOUND, "unknown-export".to_owned()), "{path}");
    }
    let list: Value = get(&system, "/exports", &bob).await.json().await.unwrap();
    assert_eq!(list["exports"], json!([]));
    let delete = request(&system, Method::DELETE, &format!("/exports/{id}"), &bob).send().await.unwrap();
    assert_eq!(delete.status(), StatusCode::NOT_FOUND);
    let other: Value = post(&system, "/exports", &bob, &body).await.json().await.unwrap();
    assert_ne!(other["exportId"], accepted["exportId"]);
}
