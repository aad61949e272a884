//! The ledger by itself: who may claim, who may end, and what a claim that is no longer good can still do (nothing).

use std::time::Duration;

use polyglot_devstack::scratch_database::ScratchDatabase;
use polyglot_export::dataset::RelationName;
use polyglot_export::failure::{Failure, FailureKind};
use polyglot_export::format::Format;
use polyglot_export::ledger::{Claim, Claimed, Finished, Ledger, LedgerError, Renewal, RetryPolicy};
use polyglot_export::manifest::Manifest;
use polyglot_export::request::{ColumnMapping, ExportRequest};
use polyglot_export::status::Status;
use uuid::Uuid;

const LONG: Duration = Duration::from_mins(1);
/// Runs out at once: a worker that is dead before anybody looks.
const NONE: Duration = Duration::ZERO;

async fn ledger_with_export() -> (Ledger, Uuid) {
    let database = ScratchDatabase::for_test().await.unwrap_or_else(|error| panic!("{error}"));
    let ledger = Ledger::new(database.url(), 4, "ledger-test").unwrap();
    // Several processes migrate at once when a deployment starts.
    let (first, second) = tokio::join!(ledger.migrate(), ledger.migrate());
    first.unwrap();
    second.unwrap();
    let columns = vec![ColumnMapping { source: "id".to_owned(), target: "id".to_owned() }];
    let request = ExportRequest::new("records", RelationName::records(), Format::Csv, columns);
    let id = ledger.submit("default", &request).await.unwrap();
    (ledger, id)
}

async fn claim(ledger: &Ledger, id: Uuid, owner: &str, lease: Duration) -> Option<Claim> {
    match ledger.claim(id, owner, lease, None, RetryPolicy::new(3)).await.unwrap() {
        Claimed::Work(claim) => Some(*claim),
        Claimed::Nothing => None,
    }
}

fn finished() -> Finished {
    let object_key = "key".to_owned();
    let manifest = Manifest { rows: 1, bytes: 2, uncompressed_bytes: 2, ..Manifest::default() };
    Finished { object_key, etag: None, peak_memory_bytes: None, manifest }
}

#[expect(clippy::needless_pass_by_value, reason = "takes what a call gives")]
fn is_lost<T>(result: Result<T, LedgerError>) -> bool {
    matches!(result, Err(LedgerError::LeaseLost))
}

#[tokio::test]
async fn a_claim_that_was_taken_over_changes_nothing() {
    let (ledger, id) = ledger_with_export().await;
    let old = claim(&ledger, id, "first", NONE).await.unwrap();
    let new = claim(&ledger, id, "second", LONG).await.unwrap();
    assert!(new.fence > old.fence && new.attempt > old.attempt);
    assert!(claim(&ledger, id, "third", LONG).await.is_none(), "two hold the same work");

    let failure = Failure::new(FailureKind::Internal, "words", "detail");
    assert!(is_lost(ledger.renew(&old, LONG, 9, 9).await));
    assert!(is_lost(ledger.running(&old, None).await));
    assert!(is_lost(ledger.begin_upload(&old, "old").await));
    assert!(is_lost(ledger.finishing(&old).await));
    assert!(is_lost(ledger.complete(&old, &finished(), None).await));
    assert!(is_lost(ledger.fail(&old, &failure, RetryPolicy::new(3)).await));
    assert!(is_lost(ledger.cancelled(&old).await));
    assert!(is_lost(ledger.give_back(&old).await));
    let export = ledger.find(id).await.unwrap().unwrap();
    assert_eq!((export.status, export.attempt, export.rows), (Status::Planning, new.attempt, 0));

    assert_eq!(ledger.complete(&new, &finished(), None).await.unwrap(), Renewal::Held);
    assert!(is_lost(ledger.complete(&new, &finished(), None).await), "completed twice");
    let export = ledger.find(id).await.unwrap().unwrap();
    assert_eq!((export.status, export.object_key.as_deref()), (Status::Completed, Some("key")));
    assert!(claim(&ledger, id, "late", LONG).await.is_none(), "a completed export is claimed");
}

#[tokio::test]
async fn of_many_claims_at_once_one_wins() {
    let (ledger, id) = ledger_with_export().await;
    let claims = (0..12).map(|n| {
        let ledger = ledger.clone();
        tokio::spawn(async move { claim(&ledger, id, &format!("worker {n}"), LONG).await })
    });
    let mut winners = 0;
    for claim in claims.collect::<Vec<_>>() {
        winners += i32::from(claim.await.unwrap().is_some());
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn an_export_whose_workers_are_lost_again_and_again_fails() {
    let (ledger, id) = ledger_with_export().await;
    for _ in 0..3 {
        claim(&ledger, id, "doomed", NONE).await.unwrap();
    }
    assert!(claim(&ledger, id, "last", LONG).await.is_none());
    let export = ledger.find(id).await.unwrap().unwrap();
    assert_eq!((export.status, export.error_code.as_deref()), (Status::Failed, Some("worker_lost")));
}

#[tokio::test]
async fn a_passing_failure_is_tried_again_and_a_lasting_one_is_not() {
    let (ledger, id) = ledger_with_export().await;
    let policy = RetryPolicy::new(2);
    let passing = Failure::new(FailureKind::StorageUnavailable, "words", "detail");
    let first = claim(&ledger, id, "w", LONG).await.unwrap();
    assert!(ledger.fail(&first, &passing, policy).await.unwrap());
    assert_eq!(ledger.find(id).await.unwrap().unwrap().status, Status::Pending);
    let second = claim(&ledger, id, "w", LONG).await.unwrap();
    assert!(!ledger.fail(&second, &passing, policy).await.unwrap(), "more attempts than allowed");
    assert_eq!(ledger.find(id).await.unwrap().unwrap().status, Status::Failed);
}

#[tokio::test]
async fn the_sweep_announces_abandoned_work_once() {
    let (ledger, id) = ledger_with_export().await;
    let drained = ledger.relay::<LedgerError, _>(10, async |_| Ok(())).await.unwrap();
    assert_eq!(drained, 1);
    claim(&ledger, id, "doomed", NONE).await.unwrap();
    assert_eq!(ledger.sweep().await.unwrap().reissued, 1);
    assert_eq!(ledger.sweep().await.unwrap().reissued, 0, "announced twice");
    let mut announced = Vec::new();
    ledger
        .relay::<LedgerError, _>(10, async |ids| {
            announced = ids;
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(announced, [id]);
    // A publisher that fails keeps its messages.
    ledger.give_back(&claim(&ledger, id, "w", LONG).await.unwrap()).await.unwrap();
    assert!(ledger.relay(10, async |_| Err(LedgerError::LeaseLost)).await.is_err());
    assert_eq!(ledger.relay::<LedgerError, _>(10, async |_| Ok(())).await.unwrap(), 1);
}
