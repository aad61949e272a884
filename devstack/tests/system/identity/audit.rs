//! The audit: what is recorded, for whom it is to be read, and that nothing is done which cannot be recorded.

use polyglot_test_servers::needs_servers;
use serde_json::json;

use super::*;

const SECRET_VALUE: &str = "Ada Haas 1";

async fn audit(system: &System, key: &str, query: &str) -> Vec<Value> {
    let answer = get(system, &format!("/audit{query}"), key).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    answer.text().await.unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_action<'l>(lines: &'l [Value], action: &str) -> Vec<&'l Value> {
    lines.iter().filter(|line| line["action"] == action).collect()
}

#[tokio::test]
async fn everything_that_is_done_is_recorded_without_the_values_of_filters() {
    needs_servers!();
    let mut system = system_with(&[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    system.add_worker();
    let admin = new_key(&system, "acme", "admin");
    let other = new_key(&system, "other", "admin");
    let mut body = polyglot_test_kit::sample_request("csv", None);
    body["filters"] = json!([{"column": "name", "op": "=", "value": SECRET_VALUE}]);
    let post = async |path: &str, body: &Value| {
        let post = request(&system, Method::POST, path, &admin).header("x-forwarded-for", "203.0.113.9, 192.0.2.7");
        post.header("x-request-id", "the-request").json(body).send().await.unwrap()
    };
    assert_eq!(post("/exports/preview", &body).await.status(), StatusCode::OK);
    let accepted: Value = post("/exports", &body).await.json().await.unwrap();
    let id = accepted["exportId"].as_str().unwrap().to_owned();
    let again: Value = post("/exports", &body).await.json().await.unwrap();
    let file = get(&system, &format!("/exports/{id}/download"), &admin).await.bytes().await.unwrap();
    assert_eq!(get(&system, &format!("/exports/{id}/download?delivery=proxy"), &admin).await.status(), StatusCode::OK);
    assert_eq!(get(&system, &format!("/exports/{id}/manifest"), &admin).await.status(), StatusCode::OK);
    let delete = request(&system, Method::DELETE, &format!("/exports/{id}"), &admin).send().await.unwrap();
    assert_eq!(delete.status(), StatusCode::NO_CONTENT);
    let reader = new_key(&system, "acme", "exports:read");
    assert_eq!(get(&system, "/audit", &reader).await.status(), StatusCode::FORBIDDEN);

    let lines = audit(&system, &admin, "").await;
    let submitted = of_action(&lines, "export.submit");
    assert_eq!(submitted.len(), 2);
    let first = submitted[0];
    assert_eq!((first["exportId"].as_str(), first["dataset"].as_str()), (Some(id.as_str()), Some("records")));
    assert_eq!((first["tenant"].as_str(), first["caller"].as_str()), (Some("acme"), Some("test")));
    assert_eq!((first["address"].as_str(), first["requestId"].as_str()), (Some("192.0.2.7"), Some("the-request")));
    assert_eq!(first["filtersHash"].as_str().unwrap().len(), 64);
    assert_eq!(first["filtersHash"], submitted[1]["filtersHash"]);
    assert_eq!(submitted[1]["exportId"], again["exportId"]);
    let downloads = of_action(&lines, "export.download");
    let details: Vec<&str> = downloads.iter().map(|line| line["detail"].as_str().unwrap()).collect();
    assert_eq!(details, ["redirect", "proxy"]);
    assert_eq!((downloads[0]["rows"].as_u64(), downloads[0]["bytes"].as_u64()), (Some(1), Some(file.len() as u64)));
    for action in ["export.preview", "export.manifest", "export.delete", "key.create"] {
        assert!(!of_action(&lines, action).is_empty(), "{action} is not recorded");
    }
    let refused = of_action(&lines, "request.refuse");
    assert!(refused[0]["detail"].as_str().unwrap().contains("admin"), "{refused:?}");
    assert!(lines.iter().map(|line| line["id"].as_i64().unwrap()).is_sorted());
    // Pages, and the other tenant.
    let second = audit(&system, &admin, &format!("?after={}&limit=1", lines[0]["id"])).await;
    assert_eq!(second, [lines[1].clone()]);
    let others = audit(&system, &other, "").await;
    assert!(others.iter().all(|line| line["tenant"] == "other"), "{others:?}");
    // No value of a filter is anywhere.
    let stored: String = sqlx::query_scalar("SELECT string_agg(a::text, ' ') FROM polyglot.audit a")
        .fetch_one(&system.pool)
        .await
        .unwrap();
    let log = format!("{}{}", system.api.as_ref().unwrap().log(), system.workers[0].log());
    assert!(!stored.contains(SECRET_VALUE) && !log.contains(SECRET_VALUE));
    assert!(log.contains("action=\"export.download\""), "{log}");
    // What is there stays.
    for statement in ["UPDATE polyglot.audit SET caller = 'nobody'", "TRUNCATE polyglot.audit"] {
        let error = sqlx::raw_sql(statement).execute(&system.pool).await.unwrap_err().to_string();
        assert!(error.contains("rows of the audit are not changed"), "{statement}: {error}");
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    needs_servers!();
    let mut system = system_with(&[]).await;
    system.add_worker();
    let key = new_key(&system, "acme", EVERYTHING_OF_A_CLIENT);
    let id = submit(&system, &key, "csv").await;
    assert_eq!(get(&system, &format!("/exports/{id}/download"), &key).await.status(), StatusCode::OK);
    let mut lock = system.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE polyglot.audit IN EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let body = polyglot_test_kit::sample_request("csv", None);
    let (download_path, manifest_path) =
        (format!("/exports/{id}/download?delivery=proxy"), format!("/exports/{id}/manifest"));
    let (post, preview, download, manifest, delete) = tokio::join!(
        request(&system, Method::POST, "/exports", &key).json(&body).send(),
        request(&system, Method::POST, "/exports/preview", &key).json(&body).send(),
        get(&system, &download_path, &key),
        get(&system, &manifest_path, &key),
        request(&system, Method::DELETE, &format!("/exports/{id}"), &key).send(),
    );
    for answer in [post.unwrap(), preview.unwrap(), download, manifest, delete.unwrap()] {
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{}", answer.url());
    }
    lock.rollback().await.unwrap();
    let list: Value = get(&system, "/exports", &key).await.json().await.unwrap();
    assert_eq!(list["exports"].as_array().unwrap().len(), 1);
    assert_eq!(list["exports"][0]["status"], "completed");
    assert_eq!(get(&system, &format!("/exports/{id}/download"), &key).await.status(), StatusCode::OK);
}
