//! Limits per tenant: what is over one is refused, what is under it again is accepted, two apis on one ledger agree, and other
//! tenants notice nothing.

mod begun;
mod flood;
mod requests;

use polyglot_test_kit::{ApiClient, Setup, System, first_rows, sample_request, wait_until};
use polyglot_test_servers::needs_servers;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

use crate::identity::{EVERYTHING_OF_A_CLIENT, get, new_key};

/// A system with these limits, and a key of the tenant `acme` and of another tenant.
async fn limited(rows: u64, limits: &str, env: &[(&str, &str)]) -> (System, String, String) {
    let mut system = System::without_worker(Setup::new(rows, &[&[("AUTH", "on")], env].concat())).await;
    let path = system.file("limits.toml");
    std::fs::write(&path, limits).unwrap();
    system.set("TENANT_LIMITS", path.to_str().unwrap());
    system.start_api();
    system.wait_until_ready().await;
    let (ours, theirs) =
        (new_key(&system, "acme", EVERYTHING_OF_A_CLIENT), new_key(&system, "other", EVERYTHING_OF_A_CLIENT));
    (system, ours, theirs)
}

async fn post(url: &str, key: &str, body: &Value) -> Response {
    Client::new().post(format!("{url}/exports")).bearer_auth(key).json(body).send().await.unwrap()
}

/// Submits and returns the export's id.
async fn accepted(api: &ApiClient, key: &str) -> String {
    let answer = post(&api.url(""), key, &sample_request("csv", None)).await;
    let status = answer.status();
    let document: Value = answer.json().await.unwrap();
    assert_eq!(status, StatusCode::CREATED, "{document:#}");
    document["exportId"].as_str().unwrap().to_owned()
}

/// The member `limit` of a refusal, and after how many seconds it asks to come back.
async fn refused(answer: Response) -> (Value, u64) {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let document: Value = answer.json().await.unwrap();
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{document:#}");
    assert_eq!(document["type"], "urn:polyglot:problem:tenant-limit");
    (document["limit"].clone(), headers[RETRY_AFTER].to_str().unwrap().parse().unwrap())
}

async fn completed(system: &System, key: &str, id: &str) {
    wait_until(&format!("export {id} is completed"), async || {
        let state: Value = get(system, &format!("/exports/{id}"), key).await.json().await.unwrap();
        if state["status"] == "completed" { Ok(()) } else { Err(format!("{state:#}")) }
    })
    .await;
}

#[tokio::test]
async fn exports_that_have_not_ended_are_limited_by_all_apis_together() {
    needs_servers!();
    let (system, ours, theirs) = limited(5, "[tenants.acme]\nqueued = 3", &[]).await;
    let (_second, other_url) = system.another_api().await;
    let (url, body) = (system.url(""), sample_request("csv", None));
    let posts = (0..12).map(|n| post(if n % 2 == 0 { &url } else { &other_url }, &ours, &body));
    let answers = futures_util::future::join_all(posts).await;
    let mut ids = Vec::new();
    for answer in answers {
        if answer.status() == StatusCode::CREATED {
            ids.push(answer.json::<Value>().await.unwrap()["exportId"].as_str().unwrap().to_owned());
        } else {
            assert_eq!(refused(answer).await, (json!({"name": "queued", "max": 3, "used": 3}), 5));
        }
    }
    assert_eq!(ids.len(), 3, "two apis have to agree");
    // What joins an export adds none, and another tenant has no limit.
    let mut joining = body.clone();
    joining["coalesce"] = json!(true);
    assert_eq!(post(&other_url, &ours, &joining).await.status(), StatusCode::OK);
    for _ in 0..4 {
        accepted(&system, &theirs).await;
    }
    let limits: Value = get(&system, "/limits", &ours).await.json().await.unwrap();
    assert_eq!((&limits["queued"], &limits["tenant"]), (&json!({"max": 3, "used": 3}), &json!("acme")));
    assert_eq!(limits["rowsPerDay"], json!({"max": null, "used": 0}));
    let admin = new_key(&system, "default", "metrics");
    let metrics = get(&system, "/metrics", &admin).await.text().await.unwrap();
    let counted =
        metrics.lines().find(|line| line.starts_with("polyglot_http_refused_total{reason=\"tenant_queued\"}"));
    assert!(counted.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");

    let deleted = crate::identity::request(&system, reqwest::Method::DELETE, &format!("/exports/{}", ids[0]), &ours);
    assert_eq!(deleted.send().await.unwrap().status(), StatusCode::ACCEPTED);
    accepted(&system, &ours).await;
    refused(post(&url, &ours, &body).await).await;
}

#[tokio::test]
async fn rows_and_bytes_of_a_day_are_limited_until_they_are_a_day_old() {
    needs_servers!();
    let limits = "[tenants.acme]\nrows_per_day = 30\n[tenants.other]\nbytes_per_day = 1";
    let (mut system, ours, theirs) = limited(20, limits, &[]).await;
    system.add_worker();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let id = accepted(&system, &ours).await;
        completed(&system, &ours, &id).await;
        ids.push(id);
    }
    let (url, body) = (system.url(""), sample_request("csv", None));
    let (limit, seconds) = refused(post(&url, &ours, &body).await).await;
    assert_eq!(limit, json!({"name": "rows_per_day", "max": 30, "used": 40}));
    assert!((86_300..=86_400).contains(&seconds), "{seconds}");
    // The older one has to leave, and the file's end does not make it leave.
    sqlx::query(
        "UPDATE polyglot.exports SET state = 'expired', finished_at = now() - interval '23:58:00' WHERE id = $1::uuid",
    )
    .bind(&ids[0])
    .execute(&system.pool)
    .await
    .unwrap();
    let (_, seconds) = refused(post(&url, &ours, &body).await).await;
    assert!((60..=120).contains(&seconds), "{seconds}");
    sqlx::query("UPDATE polyglot.exports SET finished_at = now() - interval '24:00:01' WHERE id = $1::uuid")
        .bind(&ids[0])
        .execute(&system.pool)
        .await
        .unwrap();
    accepted(&system, &ours).await;

    let id = accepted(&system, &theirs).await;
    completed(&system, &theirs, &id).await;
    let (limit, _) = refused(post(&url, &theirs, &body).await).await;
    assert_eq!((&limit["name"], &limit["max"]), (&json!("bytes_per_day"), &json!(1)));
}

#[tokio::test]
async fn event_streams_are_limited_by_all_apis_together() {
    needs_servers!();
    let (system, ours, theirs) = limited(5, "[default]\nstreams = 1", &[]).await;
    let (_second, other_url) = system.another_api().await;
    let stream =
        async |url: &str, key: &str| Client::new().get(format!("{url}/events")).bearer_auth(key).send().await.unwrap();
    let url = system.url("");
    let open = stream(&url, &ours).await;
    assert_eq!(open.status(), StatusCode::OK);
    assert_eq!(refused(stream(&other_url, &ours).await).await, (json!({"name": "streams", "max": 1, "used": 1}), 5));
    let of_others = stream(&other_url, &theirs).await;
    assert_eq!(of_others.status(), StatusCode::OK);
    drop(open);
    let again = wait_until("the slot is free again", async || {
        Some(stream(&other_url, &ours).await).filter(|answer| answer.status() == StatusCode::OK)
    })
    .await;
    // Those of an api that was lost end by themselves.
    refused(stream(&url, &ours).await).await;
    sqlx::query("UPDATE polyglot.open_streams SET alive_until = now() - interval '1 second'")
        .execute(&system.pool)
        .await
        .unwrap();
    assert_eq!(stream(&url, &ours).await.status(), StatusCode::OK);
    drop(again);
}

#[tokio::test]
async fn cost_and_parallelism_of_an_export_are_limited() {
    needs_servers!();
    let limits = "[tenants.acme]\nplanner_cost = 100\nparallelism = 2";
    let (system, ours, theirs) = limited(20_000, limits, &[]).await;
    let (url, all) = (system.url(""), sample_request("csv", None));
    let answer = post(&url, &ours, &all).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["type"], "urn:polyglot:problem:query-too-costly");
    assert!(problem["detail"].as_str().unwrap().contains("the tenant's limit of 100."), "{problem:#}");
    accepted(&system, &theirs).await;
    let mut few = first_rows(all, 5);
    few["parallelism"] = json!(8);
    let cheap = post(&url, &ours, &few).await;
    assert_eq!(cheap.status(), StatusCode::CREATED);
    few["parallelism"] = json!(1);
    assert_eq!(post(&url, &ours, &few).await.status(), StatusCode::CREATED);
    let stored: Vec<Option<i32>> =
        sqlx::query_scalar("SELECT requested_parallelism FROM polyglot.exports ORDER BY created_at")
            .fetch_all(&system.pool)
            .await
            .unwrap();
    assert_eq!(stored, [None, Some(2), Some(1)]);
}

#[tokio::test]
async fn a_file_with_a_mistake_refuses_the_start() {
    needs_servers!();
    let (mut system, _, _) = limited(1, "", &[]).await;
    std::fs::write(system.file("limits.toml"), "[default]\nqueue = 1").unwrap();
    system.start_api();
    let mut api = system.api.take().unwrap();
    assert_eq!(api.wait_for_exit().await.code(), Some(2));
    assert!(api.log().contains("TENANT_LIMITS: ") && api.log().contains("queue"), "{}", api.log());
}
