//! The refusal of a role that may do more than read.

use polyglot_devstack::wait::wait_until;
use polyglot_test_kit::sample_request;
use polyglot_test_servers::needs_servers;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::Trial;

#[tokio::test]
async fn nothing_is_exported_with_a_role_that_may_do_more_than_read() {
    needs_servers!();
    let mut trial = Trial::prepare(&[]).await;
    let grant = |sql: &str| {
        let sql = sql.replace("READER", &trial.reader);
        let admin = trial.admin.clone();
        async move { sqlx::raw_sql(AssertSqlSafe(sql)).execute(&admin).await.unwrap() }
    };
    grant("GRANT INSERT ON public.records TO READER").await;
    trial.system.start_api();
    trial.system.wait_until_ready().await;
    for path in ["/exports", "/exports/preview"] {
        let answer =
            trial.system.request(reqwest::Method::POST, path).json(&sample_request("csv", None)).send().await.unwrap();
        let status = answer.status().as_u16();
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(status, 503, "{problem:#}");
        assert!(problem["type"].as_str().unwrap().ends_with("source-role-refused"), "{problem:#}");
        // What the role may do is for the operator.
        assert!(!problem.to_string().contains(&trial.reader), "{problem:#}");
    }
    let ready: Value = trial.system.get("/health/ready").await.json().await.unwrap();
    assert_eq!((&ready["status"], &ready["checks"]["source"]), (&json!("ready"), &json!("refused")), "{ready:#}");
    let log = trial.system.api.as_ref().unwrap().log();
    for words in
        [&trial.reader, "has INSERT on public.records", "SOURCE_ALLOW_PRIVILEGED=on", "docs/operations/source-role.md"]
    {
        assert!(log.contains(words), "{words} is not in\n{log}");
    }

    // What was accepted before waits for a role that is not refused.
    grant("REVOKE INSERT ON public.records FROM READER").await;
    let accepted = wait_until("the api accepts the role", async || {
        let answer = trial.system.post(&sample_request("csv", None)).await;
        let document: Value = answer.json().await.unwrap();
        document["exportId"].as_str().map(str::to_owned).ok_or_else(|| document.to_string())
    })
    .await;
    grant("ALTER ROLE READER BYPASSRLS").await;
    trial.system.add_worker();
    wait_until("the worker refuses the role", async || {
        let log = trial.system.workers[0].log();
        if log.contains("has the attribute BYPASSRLS") { Ok(()) } else { Err(log) }
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(trial.system.state(&accepted).await["status"], "pending");
    grant("ALTER ROLE READER NOBYPASSRLS").await;
    trial.system.wait_until_completed(&accepted).await;
    trial.end().await;
}

#[tokio::test]
async fn an_operator_may_accept_a_role_that_may_do_more() {
    needs_servers!();
    let mut trial = Trial::prepare(&[("SOURCE_ALLOW_PRIVILEGED", "on")]).await;
    let sql = format!("ALTER ROLE {} BYPASSRLS", trial.reader);
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&trial.admin).await.unwrap();
    trial.system.start_api();
    trial.system.wait_until_ready().await;
    trial.system.add_worker();
    let id = trial.system.submit("csv", None).await;
    trial.system.wait_until_completed(&id).await;
    trial.end().await;
}
