//! The S3 faults in front of the embedded S3, which checks signatures. The client is the one that the service uses.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use polyglot_core::request::ObjectHeaders;
use polyglot_devstack::S3Faults;
use polyglot_devstack::embedded_s3::{EmbeddedS3, S3Keys, make_bucket};
use polyglot_devstack::s3_faults::{ErrorResponse, Forward, Side};
use polyglot_devstack::s3_operation::Operation;
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_devstack::wait::wait_until_within;
use polyglot_storage::{
    ChecksumMode, CompletedPart, MultipartUpload, ObjectBody, ObjectStore, S3Store, StorageConfig, StorageError,
};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);
const PART: usize = 5 << 20;
const BUCKET: &str = "files";

struct Store {
    _dir: ScratchDir,
    _s3: EmbeddedS3,
    faults: S3Faults,
    client: S3Store,
}

fn headers() -> ObjectHeaders {
    ObjectHeaders { content_type: "text/csv", content_encoding: None, content_disposition: "attachment".to_owned() }
}

fn code(error: StorageError) -> String {
    error.code.unwrap_or_else(|| "none".to_owned())
}

impl Store {
    async fn start() -> Self {
        let dir = ScratchDir::new("s3-faults").unwrap();
        make_bucket(dir.path(), BUCKET).unwrap();
        let keys = S3Keys { access_key: "key".into(), secret_key: "secret".into() };
        let s3 = EmbeddedS3::start(dir.path(), 0, Some(keys)).await.unwrap();
        let faults = S3Faults::start(s3.endpoint()).await.unwrap();
        let config = StorageConfig {
            endpoint: Some(faults.endpoint().clone()),
            public_endpoint: None,
            bucket: BUCKET.to_owned(),
            prefix: String::new(),
            region: None,
            static_credentials: Some(("key".to_owned(), "secret".to_owned()).into()),
            authorities: None,
            encryption: None,
        };
        let client = S3Store::without_retries(&config).await;
        Self { _dir: dir, _s3: s3, faults, client }
    }

    async fn put(&self, key: &str, bytes: &'static [u8]) -> Result<(), String> {
        let body = ObjectBody::from(Bytes::from_static(bytes));
        self.client.put(key, &headers(), &body, crc32fast::hash(bytes)).await.map(drop).map_err(code)
    }

    async fn is_there(&self, key: &str) -> bool {
        self.client.head(key, ChecksumMode::Omitted).await.is_ok()
    }

    async fn create(&self) -> MultipartUpload {
        self.client.create_upload("m", &headers()).await.unwrap()
    }

    async fn part(&self, upload: &MultipartUpload, number: u32) -> CompletedPart {
        let bytes = Bytes::from(vec![b'x'; PART]);
        let crc32 = crc32fast::hash(&bytes);
        self.client.upload_part(upload, number, &ObjectBody::from(bytes), crc32).await.unwrap()
    }

    async fn complete(&self, upload: &MultipartUpload, parts: &[CompletedPart]) -> Result<(), String> {
        self.client.complete_upload(upload, parts, None).await.map(drop).map_err(code)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_requests_pass_untouched() {
    let store = Store::start().await;
    let upload = store.create().await;
    let parts = vec![store.part(&upload, 1).await, store.part(&upload, 2).await];
    store.complete(&upload, &parts).await.unwrap();
    let pieces: Vec<Bytes> = store.client.get("m", None).await.unwrap().body.try_collect().await.unwrap();
    assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), 2 * PART);
    assert_eq!(store.faults.seen(Operation::UploadPart), 2);
    assert_eq!(store.faults.seen(Operation::CompleteMultipartUpload), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_holds_a_request_before_the_store() {
    let store = Store::start().await;
    let gate = store.faults.gate(Operation::PutObject, Side::Request);
    let putting = store.put("held", b"x");
    tokio::pin!(putting);
    tokio::select! {
        done = &mut putting => panic!("{done:?}"),
        () = gate.reached() => {}
    }
    // Only the first one is held.
    store.put("other", b"x").await.unwrap();
    assert!(!store.is_there("held").await);
    assert!(timeout(SHORT, &mut putting).await.is_err());
    gate.open();
    timeout(LONG, putting).await.unwrap().unwrap();
    assert!(store.is_there("held").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_arrives_after_its_client_is_closed() {
    let store = Store::start().await;
    let gate = store.faults.gate(Operation::PutObject, Side::Request);
    {
        let putting = store.put("late", b"x");
        tokio::pin!(putting);
        tokio::select! {
            done = &mut putting => panic!("{done:?}"),
            () = gate.reached() => {}
        }
    }
    // Long enough for a request that is not held to arrive.
    tokio::time::sleep(SHORT).await;
    assert!(!store.is_there("late").await);
    gate.open();
    wait_until_within(LONG, "the request has arrived", async || store.is_there("late").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_holds_the_response_of_a_completed_operation() {
    let store = Store::start().await;
    let upload = store.create().await;
    let first = store.part(&upload, 1).await;
    let gate = store.faults.gate_part(2, Side::Response);
    let sending = store.part(&upload, 2);
    tokio::pin!(sending);
    tokio::select! {
        _ = &mut sending => panic!("not held"),
        () = gate.reached() => {}
    }
    assert!(timeout(SHORT, &mut sending).await.is_err());
    gate.open();
    let second = timeout(LONG, sending).await.unwrap();

    let gate = store.faults.gate(Operation::CompleteMultipartUpload, Side::Response);
    let parts = [first, second];
    let completing = store.complete(&upload, &parts);
    tokio::pin!(completing);
    tokio::select! {
        _ = &mut completing => panic!("not held"),
        () = gate.reached() => {}
    }
    assert!(store.is_there("m").await);
    drop(gate);
    timeout(LONG, completing).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_replace_responses_until_they_are_lifted() {
    let store = Store::start().await;
    store.faults.respond(None, ErrorResponse::SlowDown, Forward::No, Some(1));
    assert_eq!(store.put("a", b"x").await.unwrap_err(), "SlowDown");
    store.put("a", b"x").await.unwrap();
    store.faults.respond(Some(Operation::ListMultipartUploads), ErrorResponse::NotImplemented, Forward::No, None);
    for _ in 0..2 {
        // The service's client takes 501 for a store that cannot list them.
        assert_eq!(store.client.list_uploads("").await.unwrap(), None);
    }
    store.put("b", b"x").await.unwrap();
    store.faults.restore();
    assert_eq!(store.client.list_uploads("").await.unwrap(), Some(Vec::new()));
    store.faults.respond(Some(Operation::PutObject), ErrorResponse::InternalError, Forward::Yes, Some(1));
    assert_eq!(store.put("done", b"x").await.unwrap_err(), "InternalError");
    assert!(store.is_there("done").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_may_fail_within_a_200_with_and_without_being_done() {
    let store = Store::start().await;
    let upload = store.create().await;
    let parts = vec![store.part(&upload, 1).await];
    let complete = Some(Operation::CompleteMultipartUpload);
    store.faults.respond(complete, ErrorResponse::ErrorWithin200, Forward::No, Some(1));
    assert_eq!(store.complete(&upload, &parts).await.unwrap_err(), "InternalError");
    assert!(!store.is_there("m").await);
    store.faults.respond(complete, ErrorResponse::ErrorWithin200, Forward::Yes, Some(1));
    assert_eq!(store.complete(&upload, &parts).await.unwrap_err(), "InternalError");
    assert!(store.is_there("m").await);
}

/// An answer that was held when the store began to fail is an error too, though the store has done what was asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_answer_shares_the_fate_of_the_store() {
    let store = Store::start().await;
    let gate = store.faults.gate(Operation::PutObject, Side::Response);
    let putting = store.put("held", b"x");
    tokio::pin!(putting);
    tokio::select! {
        done = &mut putting => panic!("{done:?}"),
        () = gate.reached() => {}
    }
    store.faults.respond(None, ErrorResponse::InternalError, Forward::No, None);
    gate.open();
    assert_eq!(timeout(LONG, putting).await.unwrap().unwrap_err(), "InternalError");
    store.faults.restore();
    assert!(store.is_there("held").await);
}
