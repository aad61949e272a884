//! Repeated submissions: the same key, the same request, at the same time.

use polyglot_test_kit::{Setup, System, sample_request, wait_until};
use polyglot_test_servers::needs_servers;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

async fn submit(system: &System, key: &str, body: &str) -> Response {
    let request = system.request(Method::POST, "/exports").header("Content-Type", "application/json");
    request.header("Idempotency-Key", key).body(body.to_owned()).send().await.unwrap()
}

async fn id_of(answer: Response) -> String {
    let body: Value = answer.json().await.unwrap();
    body["exportId"].as_str().unwrap_or_else(|| panic!("{body:#}")).to_owned()
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer() {
    needs_servers!();
    let system = System::with_rows(5).await;
    let body = sample_request("csv", None).to_string();
    let first = submit(&system, "order-7", &body).await;
    assert_eq!(first.status(), StatusCode::CREATED);
    assert!(!first.headers().contains_key("idempotent-replayed"));
    let location = first.headers()["location"].clone();
    let id = id_of(first).await;
    system.wait_until_completed(&id).await;
    let again = submit(&system, "order-7", &body).await;
    assert_eq!(again.status(), StatusCode::CREATED);
    assert_eq!(
        (&again.headers()["location"], &again.headers()["idempotent-replayed"]),
        (&location, &"true".parse().unwrap())
    );
    // The first answer, although the export has ended since.
    assert_eq!(again.json::<Value>().await.unwrap(), json!({"exportId": id, "status": "pending"}));
    let other = submit(&system, "order-7", &sample_request("json", None).to_string()).await;
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.json::<Value>().await.unwrap()["type"], "urn:polyglot:problem:idempotency-key-reused");
    // Without the key, and with another one, it is another export.
    assert_ne!(id_of(submit(&system, "order-8", &body).await).await, id);
    assert_ne!(system.submit("csv", None).await, id);
    assert_eq!(system.count("SELECT count(*) FROM polyglot.exports").await, 3);
}

#[tokio::test]
async fn a_refused_request_leaves_its_key_free() {
    needs_servers!();
    let system = System::without_worker(Setup { rows: 5, ..Setup::default() }).await;
    let refused = submit(&system, "k", r#"{"format": "xls", "columns": []}"#).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let accepted = submit(&system, "k", &sample_request("csv", None).to_string()).await;
    assert_eq!(accepted.status(), StatusCode::CREATED);
    let nonsense = submit(&system, "", &sample_request("csv", None).to_string()).await;
    assert_eq!(nonsense.status(), StatusCode::BAD_REQUEST);
    assert_eq!(nonsense.json::<Value>().await.unwrap()["errors"][0]["field"], "Idempotency-Key");
}

#[tokio::test]
async fn the_same_key_many_times_at_once_is_one_export() {
    needs_servers!();
    let mut system = System::without_worker(Setup { rows: 5, ..Setup::default() }).await;
    let body = sample_request("csv", None).to_string();
    let answers = futures_util::future::join_all((0..20).map(|_| submit(&system, "k", &body))).await;
    let mut ids = Vec::new();
    for answer in answers {
        match answer.status() {
            StatusCode::CREATED => ids.push(id_of(answer).await),
            StatusCode::CONFLICT => assert_eq!(answer.headers()["retry-after"], "1"),
            other => panic!("{other}"),
        }
    }
    assert!(!ids.is_empty() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(system.count("SELECT count(*) FROM polyglot.exports").await, 1);
    // A client that closes its connection at once, and repeats the request.
    for round in 0..10 {
        let key = format!("hasty {round}");
        let hasty = tokio::time::timeout(std::time::Duration::from_millis(round), submit(&system, &key, &body)).await;
        drop(hasty);
        wait_until("the repeated request is accepted", async || {
            let status = submit(&system, &key, &body).await.status();
            assert!(status == StatusCode::CREATED || status == StatusCode::CONFLICT, "{status}");
            status == StatusCode::CREATED
        })
        .await;
    }
    assert_eq!(system.count("SELECT count(*) FROM polyglot.exports").await, 11);
    // The api dies before it answers: the key is free again after a minute.
    system.api = None;
    sqlx::query("UPDATE polyglot.idempotency_keys SET export_id = NULL, created_at = now() - interval '2 minutes' WHERE key = 'k'")
        .execute(&system.pool)
        .await
        .unwrap();
    system.start_api();
    system.wait_until_ready().await;
    assert_eq!(submit(&system, "k", &body).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn identical_active_requests_are_one_export_on_request() {
    needs_servers!();
    let mut system = System::without_worker(Setup { rows: 50, ..Setup::default() }).await;
    system.wait_until_ready().await;
    let mut wish = sample_request("csv", None);
    let plain = system.post(&wish).await;
    assert_eq!(plain.status(), StatusCode::CREATED);
    wish["coalesce"] = json!(true);
    let joined = system.post(&wish).await;
    assert_eq!(joined.status(), StatusCode::OK);
    let location = joined.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(location, plain.headers()["location"].to_str().unwrap());
    let body: Value = joined.json().await.unwrap();
    assert_eq!(body["status"], "pending");
    let id = id_of(plain).await;
    assert_eq!(body["exportId"], id);
    // A request that differs in anything is another export.
    let mut other = wish.clone();
    other["filters"] = json!([{"column": "id", "op": "<", "value": 10}]);
    assert_eq!(system.post(&other).await.status(), StatusCode::CREATED);
    assert_eq!(system.post(&other).await.status(), StatusCode::OK);
    system.add_worker();
    system.wait_until_completed(&id).await;
    // An export that has ended is not shared.
    let fresh = system.post(&wish).await;
    assert_eq!(fresh.status(), StatusCode::CREATED);
    assert_ne!(id_of(fresh).await, id);
}
