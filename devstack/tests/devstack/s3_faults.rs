//! The S3 faults in front of the embedded S3, which checks signatures. The client is the SDK that the service uses.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use polyglot_devstack::S3Faults;
use polyglot_devstack::embedded_s3::{EmbeddedS3, S3Keys, make_bucket};
use polyglot_devstack::s3_faults::{ErrorResponse, Forward, Side};
use polyglot_devstack::s3_operation::Operation;
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_devstack::wait::wait_until_within;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);
const PART: usize = 5 << 20;
const BUCKET: &str = "files";

struct Store {
    _dir: ScratchDir,
    _s3: EmbeddedS3,
    faults: S3Faults,
    client: Client,
}

impl Store {
    async fn start() -> Self {
        let dir = ScratchDir::new("s3-faults").unwrap();
        make_bucket(dir.path(), BUCKET).unwrap();
        let keys = S3Keys { access_key: "key".into(), secret_key: "secret".into() };
        let s3 = EmbeddedS3::start(dir.path(), 0, Some(keys)).await.unwrap();
        let faults = S3Faults::start(s3.endpoint()).await.unwrap();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .endpoint_url(faults.endpoint())
            .force_path_style(true)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .retry_config(RetryConfig::disabled())
            .build();
        Self { _dir: dir, _s3: s3, faults, client: Client::from_conf(config) }
    }

    async fn put(&self, key: &str, bytes: &'static [u8]) -> Result<(), String> {
        let put = self.client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(bytes)).send().await;
        put.map(drop).map_err(|error| error.code().unwrap_or("none").to_owned())
    }

    async fn is_there(&self, key: &str) -> bool {
        self.client.head_object().bucket(BUCKET).key(key).send().await.is_ok()
    }

    async fn create(&self) -> String {
        let created = self.client.create_multipart_upload().bucket(BUCKET).key("m").send().await.unwrap();
        created.upload_id.unwrap()
    }

    async fn part(&self, upload: &str, number: i32) -> CompletedPart {
        let bytes = ByteStream::from(vec![b'x'; PART]);
        let part = self.client.upload_part().bucket(BUCKET).key("m").upload_id(upload).part_number(number).body(bytes);
        CompletedPart::builder().part_number(number).set_e_tag(part.send().await.unwrap().e_tag).build()
    }

    async fn complete(&self, upload: &str, parts: Vec<CompletedPart>) -> Result<(), String> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = self.client.complete_multipart_upload().bucket(BUCKET).key("m").upload_id(upload);
        let done = complete.multipart_upload(parts).send().await;
        done.map(drop).map_err(|error| error.code().unwrap_or("none").to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_requests_pass_untouched() {
    let store = Store::start().await;
    let upload = store.create().await;
    let parts = vec![store.part(&upload, 1).await, store.part(&upload, 2).await];
    store.complete(&upload, parts).await.unwrap();
    let object = store.client.get_object().bucket(BUCKET).key("m").send().await.unwrap();
    assert_eq!(object.body.collect().await.unwrap().into_bytes().len(), 2 * PART);
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
    let completing = store.complete(&upload, vec![first, second]);
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
        let listed = store.client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap_err();
        assert_eq!(listed.raw_response().unwrap().status().as_u16(), 501);
    }
    store.put("b", b"x").await.unwrap();
    store.faults.restore();
    store.client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
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
    assert_eq!(store.complete(&upload, parts.clone()).await.unwrap_err(), "InternalError");
    assert!(!store.is_there("m").await);
    store.faults.respond(complete, ErrorResponse::ErrorWithin200, Forward::Yes, Some(1));
    assert_eq!(store.complete(&upload, parts).await.unwrap_err(), "InternalError");
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
