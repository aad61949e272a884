//! The limit of begun exports: in the ledger, where workers claim at the same time, and on real workers.

use std::time::Duration;

use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_ledger::{Claimed, Turn, WaitReason};

use super::*;
use crate::ledger::{finished, ledger_with_pool, request, terms};

const LEASE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn exports_over_the_limit_wait_and_the_next_one_is_announced() {
    needs_servers!();
    let (ledger, pool, id) = ledger_with_pool().await;
    sqlx::query("DELETE FROM exports WHERE id = $1").bind(id).execute(&pool).await.unwrap();
    ledger.set_running_limits(&[("a".to_owned(), 1)], Some(2)).await.unwrap();
    let submit = async |tenant: &str| ledger.submit(tenant, &request("id")).await.unwrap();
    let next = async || ledger.claim_next("worker", &terms(LEASE), Turn::Waiting).await.unwrap();
    let (first, second, of_other) = (submit("a").await, submit("a").await, submit("b").await);
    let claim = next().await.unwrap();
    assert_eq!(claim.export_id, first);
    assert_eq!(next().await.unwrap().export_id, of_other);
    assert!(next().await.is_none(), "the tenant has as many begun as it may");
    // More workers would not help, so it is no work that waits for one.
    let ready = async || {
        let backlog = ledger.backlog_stats().await.unwrap();
        (backlog.ready, backlog.ready_for_seconds > 0.0)
    };
    assert_eq!(ready().await, (0, false));
    let of_third = submit("c").await;
    assert_eq!(ready().await, (1, true));
    sqlx::query("DELETE FROM exports WHERE id = $1").bind(of_third).execute(&pool).await.unwrap();
    assert!(matches!(ledger.claim(second, "worker", &terms(LEASE)).await.unwrap(), Claimed::Nothing));
    let waiting = ledger.find(second).await.unwrap().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason, WaitReason::TenantLimit);
    sqlx::query("DELETE FROM outbox").execute(&pool).await.unwrap();
    ledger.streaming(&claim, None, SingleStreamReason::Small).await.unwrap();
    ledger.complete(&claim, &finished(), None).await.unwrap();
    let announced: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT export_id FROM outbox").fetch_all(&pool).await.unwrap();
    assert_eq!(announced, [second]);
    assert_eq!(next().await.unwrap().export_id, second);
    // A change takes effect with the next claim.
    let third = submit("a").await;
    assert!(next().await.is_none());
    ledger.set_running_limits(&[("a".to_owned(), 2)], None).await.unwrap();
    assert_eq!(ready().await, (1, true));
    ledger.set_running_limits(&[], None).await.unwrap();
    assert_eq!(ready().await, (1, true));
    assert_eq!(next().await.unwrap().export_id, third);
}

#[tokio::test]
async fn claims_at_the_same_time_begin_no_more_than_the_limit() {
    needs_servers!();
    let (ledger, pool, id) = ledger_with_pool().await;
    sqlx::query("DELETE FROM exports WHERE id = $1").bind(id).execute(&pool).await.unwrap();
    ledger.set_running_limits(&[], Some(3)).await.unwrap();
    for _ in 0..5 {
        let mut ids = Vec::new();
        for _ in 0..10 {
            ids.push(ledger.submit("a", &request("id")).await.unwrap());
        }
        let terms = terms(LEASE);
        let claims = futures_util::future::join_all(ids.iter().map(|id| ledger.claim(*id, "worker", &terms))).await;
        let begun = claims.into_iter().filter(|claim| matches!(claim, Ok(Claimed::Work(_)))).count();
        assert_eq!(begun, 3);
        sqlx::query("DELETE FROM exports").execute(&pool).await.unwrap();
    }
}

#[tokio::test]
async fn workers_begin_one_export_of_a_tenant_after_the_other() {
    needs_servers!();
    let (mut system, ours, theirs) = limited(2000, "[tenants.acme]\nrunning = 1", &[("WORKER_SLOTS", "4")]).await;
    let mut ids = Vec::new();
    for key in [&ours, &ours, &ours, &ours, &ours, &ours, &theirs, &theirs] {
        ids.push((key, accepted(&system, key).await));
    }
    system.add_worker();
    system.add_worker();
    for (key, id) in &ids {
        completed(&system, key, id).await;
    }
    let overlaps = system
        .count(
            "WITH spans AS (
                 SELECT export_id, min(s.at) FILTER (WHERE s.state = 'planning') AS begun, max(s.at) FILTER (WHERE s.state = 'completed') AS ended
                 FROM polyglot.state_changes s JOIN polyglot.exports e ON e.id = s.export_id WHERE e.tenant = 'acme' GROUP BY export_id)
             SELECT count(*) FROM spans a JOIN spans b ON a.export_id <> b.export_id AND a.begun < b.begun AND b.begun < a.ended",
        )
        .await;
    assert_eq!(overlaps, 0);
}

#[tokio::test]
async fn what_is_kept_of_tenants_that_make_no_requests_is_deleted() {
    needs_servers!();
    let (ledger, pool, _) = ledger_with_pool().await;
    sqlx::raw_sql(
        "INSERT INTO request_buckets VALUES ('gone', 1, 1, now() - interval '25 hours'), ('here', 1, 1, now() - interval '23 hours');
         INSERT INTO open_streams VALUES (gen_random_uuid(), 'gone', now() - interval '25 hours'), (gen_random_uuid(), 'here', now())",
    )
    .execute(&pool)
    .await
    .unwrap();
    assert_eq!(ledger.forget_tenants().await.unwrap(), 2);
    for table in ["request_buckets", "open_streams"] {
        let tenants: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT tenant FROM {table}")))
            .fetch_all(&pool)
            .await
            .unwrap();
        assert_eq!(tenants, ["here"], "{table}");
    }
}
