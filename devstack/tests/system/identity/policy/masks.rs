//! Masks: what files and previews show in place of a column's values, and that nothing else tells of these.

use polyglot_test_servers::needs_servers;
use serde_json::json;

use super::*;

const KEY: &str = "the key of the masks of this test";

const MASKED: &str = r#"
[[dataset]]
name = "people"
relation = "shop.people"
mask = { email = "hash", card = "last4", notes = "null", born = "hash" }

[[dataset]]
name = "visits"
relation = "shop.visits"
mask = { visitor = "hash" }

[[dataset]]
name = "by_email"
relation = "shop.by_email"
mask = { email = "hash" }
row_filter = [{ column = "email", op = "like", value = "%@example.com" }]
"#;

const PEOPLE: [&str; 5] = ["id", "email", "card", "notes", "born"];

async fn people() -> System {
    let statements = [
        "CREATE SCHEMA shop",
        "CREATE TABLE shop.people (id int PRIMARY KEY, email text, card bigint, notes jsonb, born date)",
        "INSERT INTO shop.people SELECT n, 'person' || n || '@example.com', 4000123400000000 + n, '{\"secret\": \"remark\"}', '1990-01-01'
         FROM generate_series(1, 50) n",
        "UPDATE shop.people SET email = NULL, card = NULL, notes = NULL, born = NULL WHERE id = 50",
        "CREATE TABLE shop.visits (id int PRIMARY KEY, visitor varchar(100))",
        "INSERT INTO shop.visits SELECT n, 'person' || (n % 10 + 1) || '@example.com' FROM generate_series(1, 30) n",
        "CREATE TABLE shop.by_email (email text PRIMARY KEY, note text)",
        "INSERT INTO shop.by_email VALUES ('b@example.com', E'line\\x01'), ('a@example.com', 'plain'), ('c@example.org', 'other')",
        "ANALYZE",
    ];
    system_over(&[("MASK_KEY", KEY)], &statements, MASKED).await
}

/// The masked value of a text.
fn hash(text: &str) -> String {
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let digest = hex(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref());
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, KEY.as_bytes());
    hex(ring::hmac::sign(&key, digest.as_bytes()).as_ref())
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn masked_values_are_in_no_file_of_any_format_and_equal_ones_stay_equal() {
    needs_servers!();
    let system = people().await;
    let key = new_key(&system, "acme", EVERYTHING_OF_A_CLIENT);
    for format in ["csv", "json", "jsonl", "xml", "parquet", "arrow"] {
        let mut body = request_of("people", &PEOPLE, json!([]));
        body["format"] = json!(format);
        let (id, file) = exported(&system, &key, &body).await;
        for value in ["@example.com", "4000123400", "remark", "1990-01-01"] {
            assert!(!holds(&file, value), "{value} is in {format}");
        }
        for value in [&hash("person1@example.com"), &hash("1990-01-01"), "************0001"] {
            assert!(holds(&file, value), "{value} is not in {format}");
        }
        let manifest: Value = get(&system, &format!("/exports/{id}/manifest"), &key).await.json().await.unwrap();
        assert_eq!((&manifest["policyApplied"], &manifest["rows"]), (&json!(true), &json!(50)), "{manifest:#}");
        let types: Vec<&Value> =
            manifest["columns"].as_array().unwrap().iter().map(|column| &column["sourceType"]).collect();
        assert_eq!(types, ["integer", "text", "text", "jsonb", "text"]);
        assert!(!manifest.to_string().contains("mask") && !manifest.to_string().contains("hash"), "{manifest:#}");
    }
    let (_, file) = exported(&system, &key, &request_of("people", &PEOPLE, json!([]))).await;
    let file = String::from_utf8(file).unwrap();
    let lines: Vec<&str> = file.lines().collect();
    assert_eq!(lines[7], format!("7,{},************0007,,{}", hash("person7@example.com"), hash("1990-01-01")));
    assert_eq!(lines[50], "50,,,,");
    // A join over the hashes of two datasets finds what a join over the values would.
    let (_, visits) = exported(&system, &key, &request_of("visits", &["id", "visitor"], json!([]))).await;
    let visits = String::from_utf8(visits).unwrap();
    let of_person_7 = visits.lines().filter(|line| line.ends_with(&hash("person7@example.com"))).count();
    assert_eq!(of_person_7, 3);
}

#[tokio::test]
async fn nothing_tells_of_a_masked_value() {
    needs_servers!();
    let system = people().await;
    let key = new_key(&system, "acme", EVERYTHING_OF_A_CLIENT);
    let preview: Value =
        post(&system, "/exports/preview", &key, &request_of("people", &PEOPLE, json!([]))).await.json().await.unwrap();
    let row = json!(["1", hash("person1@example.com"), "************0001", null, hash("1990-01-01")]);
    assert_eq!(preview["rows"][0], row);
    let types: Vec<&Value> = preview["columns"].as_array().unwrap().iter().map(|column| &column["type"]).collect();
    assert_eq!(types, ["integer", "text", "text", "jsonb", "text"]);
    let people: Value = get(&system, "/datasets/people", &key).await.json().await.unwrap();
    let column = people["columns"].as_array().unwrap().iter().find(|column| column["name"] == "card").unwrap();
    assert_eq!(
        (&column["type"], &column["operators"], &column["pathOperators"]),
        (&json!("text"), &json!([]), &json!([]))
    );
    assert_eq!(column["becomes"]["parquet"], "STRING");
    // Rows that are chosen or sorted by it would tell.
    for path in ["/exports", "/exports/preview"] {
        for filter in [
            json!({"column": "card", "op": "=", "value": 4_000_123_400_000_001_u64}),
            json!({"column": "email", "op": "is_not_null"}),
            json!({"column": "notes", "path": ["secret"], "op": "=", "value": "remark"}),
            json!({"column": "born", "op": "in", "value": ["1990-01-01"]}),
        ] {
            let answer = post(&system, path, &key, &request_of("people", &["id"], json!([filter]))).await;
            let answer: Value = answer.json().await.unwrap();
            assert_eq!(answer["errors"][0]["field"], "filters[0].column", "{filter}: {answer:#}");
            assert!(answer["errors"][0]["message"].as_str().unwrap().contains("are masked"), "{answer:#}");
        }
        let mut sorted = request_of("people", &["id"], json!([]));
        sorted["orderBy"] = json!([{"column": "email"}]);
        let answer: Value = post(&system, path, &key, &sorted).await.json().await.unwrap();
        assert_eq!(answer["errors"][0]["field"], "orderBy[0].column", "{answer:#}");
    }
    // A masked key neither sorts the rows nor names one that a format cannot hold; the operator's own filter may use it.
    let mut body = request_of("by_email", &["email", "note"], json!([]));
    body.as_object_mut().unwrap().remove("orderBy");
    let (id, file) = exported(&system, &key, &body).await;
    let file = String::from_utf8(file).unwrap();
    assert!(
        file.starts_with(&format!("email,note\n{},", hash("b@example.com"))) && file.lines().count() == 3,
        "{file}"
    );
    let manifest: Value = get(&system, &format!("/exports/{id}/manifest"), &key).await.json().await.unwrap();
    assert_eq!(manifest["order"], json!({"by": [], "promised": false}));
    body["format"] = json!("xml");
    let accepted: Value = post(&system, "/exports", &key, &body).await.json().await.unwrap();
    let id = accepted["exportId"].as_str().unwrap();
    let answer = get(&system, &format!("/exports/{id}/download"), &key).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    let state: Value = get(&system, &format!("/exports/{id}"), &key).await.json().await.unwrap();
    assert_eq!(state["errorCode"], "unrepresentable_value", "{state:#}");
    assert!(!state.to_string().contains("@example"), "{state:#}");
}

#[tokio::test]
async fn every_shard_is_masked() {
    needs_servers!();
    let mut system = people().await;
    for statement in [
        "CREATE TABLE shop.large (id int PRIMARY KEY, email text, filler text)",
        "INSERT INTO shop.large SELECT n, 'person' || n || '@example.com', repeat(md5(n::text), 8) FROM generate_series(1, 250000) n",
        "ANALYZE",
    ] {
        sqlx::raw_sql(statement).execute(&system.pool).await.unwrap();
    }
    let large =
        format!("{MASKED}\n[[dataset]]\nname = \"large\"\nrelation = \"shop.large\"\nmask = {{ email = \"hash\" }}\n");
    expose(&mut system, &large).await;
    system.add_worker();
    let key = new_key(&system, "acme", EVERYTHING_OF_A_CLIENT);
    let mut body = request_of("large", &["id", "email", "filler"], json!([]));
    body["parallelism"] = json!(4);
    let (id, file) = exported(&system, &key, &body).await;
    let manifest: Value = get(&system, &format!("/exports/{id}/manifest"), &key).await.json().await.unwrap();
    assert!(manifest["parts"].as_array().unwrap().len() > 2, "{manifest:#}");
    let file = String::from_utf8(file).unwrap();
    let mut lines = file.lines();
    lines.next();
    for (n, line) in (1..).zip(&mut lines) {
        let mut values = line.split(',');
        assert_eq!(values.next(), Some(&*n.to_string()));
        let email = values.next().unwrap();
        // Every value is a hash; some are looked at closely.
        assert_eq!(email.len(), 64, "{line}");
        if n % 1000 == 0 {
            assert_eq!(email, hash(&format!("person{n}@example.com")));
        }
    }
    assert_eq!(file.lines().count(), 250_001);
    assert!(!file.contains("@example.com"));
}

#[tokio::test]
async fn without_a_key_nothing_is_exported() {
    needs_servers!();
    let mut system = people().await;
    let key = new_key(&system, "acme", EVERYTHING_OF_A_CLIENT);
    system.workers.clear();
    system.set("MASK_KEY", "");
    system.add_worker();
    let body = request_of("people", &PEOPLE, json!([]));
    let accepted: Value = post(&system, "/exports", &key, &body).await.json().await.unwrap();
    let id = accepted["exportId"].as_str().unwrap();
    let answer = get(&system, &format!("/exports/{id}/download"), &key).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    let state: Value = get(&system, &format!("/exports/{id}"), &key).await.json().await.unwrap();
    assert_eq!(state["errorCode"], "policy_not_applicable", "{state:#}");
    // Files without a hashed column need none.
    exported(&system, &key, &request_of("people", &["id", "card", "notes"], json!([]))).await;
    system.api = None;
    for (mask_key, words) in [("", "\"people\""), ("hunter2", "at least 16 bytes")] {
        system.set("MASK_KEY", mask_key);
        system.start_api();
        let mut api = system.api.take().unwrap();
        assert_eq!(api.wait_for_exit().await.code(), Some(2));
        assert!(api.log().contains("MASK_KEY: ") && api.log().contains(words), "{}", api.log());
        assert!(!api.log().contains("hunter2"));
    }
    // A column that is gone: the dataset is not available, instead of unmasked.
    system.set("MASK_KEY", KEY);
    sqlx::raw_sql("ALTER TABLE shop.people RENAME COLUMN email TO mail").execute(&system.pool).await.unwrap();
    expose(&mut system, MASKED).await;
    let answer = post(&system, "/exports", &key, &request_of("people", &["id", "mail"], json!([]))).await;
    assert_eq!(problem(answer).await, (StatusCode::SERVICE_UNAVAILABLE, "dataset-unavailable".to_owned()));
}
