//! The most rows and bytes of one file. What would have more fails, and nothing of it is there.

use polyglot_test_servers::needs_servers;
use serde_json::json;

use super::*;

const LIMITED: &str = r#"
[[dataset]]
name = "by_rows"
relation = "shop.numbers"
max_rows = 300

[[dataset]]
name = "by_bytes"
relation = "shop.numbers"
max_bytes = 1095

[[dataset]]
name = "large_by_rows"
relation = "shop.large"
max_rows = 200000

[[dataset]]
name = "large_by_bytes"
relation = "shop.large"
max_bytes = 60000000
"#;

/// Submits, waits for the end, and returns what the export's state says.
async fn ended(system: &System, key: &str, body: &Value) -> Value {
    let accepted: Value = post(system, "/exports", key, body).await.json().await.unwrap();
    let id = accepted["exportId"].as_str().unwrap_or_else(|| panic!("{accepted:#}")).to_owned();
    drop(get(system, &format!("/exports/{id}/download"), key).await);
    get(system, &format!("/exports/{id}"), key).await.json().await.unwrap()
}

#[tokio::test]
async fn a_file_has_as_much_as_the_limit_or_is_not_there() {
    needs_servers!();
    let statements = [
        "CREATE SCHEMA shop",
        "CREATE TABLE shop.numbers (id int PRIMARY KEY)",
        "INSERT INTO shop.numbers SELECT n FROM generate_series(1, 301) n",
        "CREATE TABLE shop.large (id int PRIMARY KEY, filler text)",
        "INSERT INTO shop.large SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 250000) n",
        "ANALYZE",
    ];
    let mut system = system_over(&[], &statements, LIMITED).await;
    system.add_worker();
    let key = new_key(&system, "acme", EVERYTHING_OF_A_CLIENT);
    let up_to =
        |dataset: &str, last: u32| request_of(dataset, &["id"], json!([{"column": "id", "op": "<=", "value": last}]));
    // `id`, numbers of one, two and three digits, each with the end of its line: 3 + 9·2 + 90·3 + 201·4 bytes.
    for (dataset, unit) in [("by_rows", "300 rows"), ("by_bytes", "1095 bytes")] {
        for format in ["csv", "jsonl"] {
            let mut more = request_of(dataset, &["id"], json!([]));
            more["format"] = json!(format);
            let state = ended(&system, &key, &more).await;
            assert_eq!(
                (&state["status"], &state["errorCode"]),
                (&json!("failed"), &json!("dataset_limit")),
                "{state:#}"
            );
            assert!(state["error"].as_str().unwrap().contains(unit), "{state:#}");
        }
        let state = ended(&system, &key, &up_to(dataset, 300)).await;
        assert_eq!((&state["status"], &state["progress"]["rows"]), (&json!("completed"), &json!(300)), "{state:#}");
        // The preview has a limit of its own.
        let preview: Value = post(&system, "/exports/preview", &key, &request_of(dataset, &["id"], json!([])))
            .await
            .json()
            .await
            .unwrap();
        assert_eq!((preview["rows"].as_array().unwrap().len(), &preview["more"]), (20, &json!(true)));
    }
    for dataset in ["large_by_rows", "large_by_bytes"] {
        for layout in ["file", "files"] {
            let mut whole = request_of(dataset, &["id", "filler"], json!([]));
            whole["layout"] = json!(layout);
            let state = ended(&system, &key, &whole).await;
            assert_eq!(
                (&state["status"], &state["errorCode"]),
                (&json!("failed"), &json!("dataset_limit")),
                "{state:#}"
            );
        }
        let mut part = up_to(dataset, 200_000);
        part["columns"] = polyglot_test_kit::columns(["id", "filler"]);
        let state = ended(&system, &key, &part).await;
        assert_eq!((&state["status"], &state["progress"]["rows"]), (&json!("completed"), &json!(200_000)), "{state:#}");
    }
    // Nothing is left of what failed.
    system.wait_until_cleaned_up_except(4).await;
}
