//! The rules that the service relies on, as test functions over any object store. Each gets a bucket of its own.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use polyglot_core::request::ObjectHeaders;
use polyglot_storage::{
    ChecksumMode, CompletedPart, MultipartUpload, ObjectBody, ObjectInfo, ObjectStore, OrphanedObject, PresignedMethod,
    Result, Storage, StorageError, Validity,
};
use reqwest::Client;

use super::behaviour::Behaviour;

/// The smallest part that may be followed by another.
const PART: usize = 5 << 20;
const KEY: &str = "exports/1/1/file.csv";
const WRONG_CRC32: u32 = 0xdead_beef;

fn headers() -> ObjectHeaders {
    ObjectHeaders {
        content_type: "text/csv; charset=utf-8",
        content_encoding: Some("gzip"),
        content_disposition: "attachment; filename=\"export.csv\"".to_owned(),
    }
}

fn assert_headers(info: &ObjectInfo) {
    let ObjectHeaders { content_type, content_encoding, content_disposition } = headers();
    assert_eq!(info.content_type.as_deref(), Some(content_type));
    assert_eq!(info.content_encoding.as_deref(), content_encoding);
    assert_eq!(info.content_disposition.as_deref(), Some(content_disposition.as_str()));
}

async fn put(store: &dyn ObjectStore, key: &str, bytes: &[u8]) -> Option<String> {
    let body = ObjectBody::from(Bytes::copy_from_slice(bytes));
    store.put(key, &headers(), &body, crc32fast::hash(bytes)).await.unwrap()
}

async fn send(store: &dyn ObjectStore, upload: &MultipartUpload, number: u32, bytes: &[u8]) -> Result<CompletedPart> {
    let body = ObjectBody::from(Bytes::copy_from_slice(bytes));
    store.upload_part(upload, number, &body, crc32fast::hash(bytes)).await
}

/// Begins an upload and sends these parts, with numbers from 1.
async fn upload(store: &dyn ObjectStore, parts: &[&[u8]]) -> (MultipartUpload, Vec<CompletedPart>) {
    let upload = store.create_upload(KEY, &headers()).await.unwrap();
    let mut completed = Vec::new();
    for (number, part) in (1..).zip(parts) {
        completed.push(send(store, &upload, number, part).await.unwrap());
    }
    (upload, completed)
}

async fn read(store: &dyn ObjectStore, key: &str) -> Vec<u8> {
    let object = store.get(key, None).await.unwrap();
    assert_eq!(object.content_range, None);
    let pieces: Vec<Bytes> = object.body.try_collect().await.unwrap();
    pieces.concat()
}

async fn keys(store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    let mut keys = store.list_keys(prefix).try_concat().await.unwrap();
    keys.sort_unstable();
    keys
}

async fn head_error(store: &dyn ObjectStore, key: &str) -> StorageError {
    store.head(key, ChecksumMode::Omitted).await.unwrap_err()
}

/// Deletes every object and every unfinished upload.
pub(crate) async fn empty(storage: &Storage) {
    for upload in storage.list_uploads("").await.unwrap().unwrap_or_default() {
        storage.abort_upload(&upload).await.unwrap();
    }
    for key in keys(&**storage, "").await {
        storage.delete(&key).await.unwrap();
    }
}

pub(crate) async fn a_bucket_is_created_once_and_checked(store: &Storage, _: &Behaviour) {
    store.ensure_bucket().await.unwrap();
    store.ensure_bucket().await.unwrap();
    store.check().await.unwrap();
}

pub(crate) async fn an_object_keeps_its_bytes_and_headers(store: &Storage, _: &Behaviour) {
    let put_etag = put(&**store, KEY, b"a,b\n").await;
    for mode in [ChecksumMode::Omitted, ChecksumMode::Included] {
        let info = store.head(KEY, mode).await.unwrap();
        assert_eq!(info.bytes, Some(4));
        assert!(info.etag.as_deref().is_some_and(|etag| etag.starts_with('"')), "{info:?}");
        assert!(put_etag.is_none() || info.etag == put_etag, "{info:?}, {put_etag:?}");
        assert!(info.crc32.is_none() || info.crc32 == Some(crc32fast::hash(b"a,b\n")), "{info:?}");
        assert_headers(&info);
    }
    let object = store.get(KEY, None).await.unwrap();
    assert_eq!(object.info.bytes, Some(4));
    assert_headers(&object.info);
    assert_eq!(read(&**store, KEY).await, b"a,b\n");
    // A later object of the same key replaces it; an empty one is an object too.
    put(&**store, KEY, b"").await;
    assert_eq!(store.head(KEY, ChecksumMode::Omitted).await.unwrap().bytes, Some(0));
    assert_eq!(read(&**store, KEY).await, b"");
}

pub(crate) async fn a_missing_object_is_not_found(store: &Storage, _: &Behaviour) {
    let error = head_error(&**store, "exports/missing").await;
    assert!(error.is_not_found() && !error.transient, "{error:?}");
    let error = store.get("exports/missing", None).await.err().unwrap();
    assert!(error.is_not_found() && error.has_code("NoSuchKey") && !error.transient, "{error:?}");
}

pub(crate) async fn bytes_that_differ_from_their_checksum_are_refused(store: &Storage, behaviour: &Behaviour) {
    let body = ObjectBody::from(Bytes::from_static(b"a,b\n"));
    let error = store.put(KEY, &headers(), &body, WRONG_CRC32).await.unwrap_err();
    assert!(!error.is_not_found(), "{error:?}");
    let head = store.head(KEY, ChecksumMode::Omitted).await;
    assert_eq!(head.is_err_and(|error| error.is_not_found()), behaviour.discards_refused_objects);
}

pub(crate) async fn a_multipart_upload_becomes_one_object(store: &Storage, behaviour: &Behaviour) {
    let bytes = [vec![b'a'; PART], vec![b'b'; 1000]];
    let (upload, parts) = upload(&**store, &[&bytes[0], &bytes[1]]).await;
    assert!(parts.iter().all(|part| part.etag.is_some()), "{parts:?}");
    assert!(head_error(&**store, KEY).await.is_not_found(), "it is visible before it is complete");
    let whole = bytes.concat();
    let crc32 = crc32fast::hash(&whole);
    let etag = store.complete_upload(&upload, &parts, Some(crc32)).await.unwrap();
    let info = store.head(KEY, ChecksumMode::Included).await.unwrap();
    assert_eq!(info.bytes, Some(whole.len() as u64));
    assert!(info.etag.is_some() && (etag.is_none() || info.etag == etag), "{info:?}, {etag:?}");
    assert_eq!(info.crc32, behaviour.keeps_whole_checksums.then_some(crc32));
    assert_headers(&info);
    assert!(read(&**store, KEY).await == whole);
}

pub(crate) async fn a_file_is_a_body_too(store: &Storage, _: &Behaviour) {
    let bytes = vec![b'f'; PART];
    let body = || {
        let path = std::env::temp_dir().join(format!("conformance-{}", uuid::Uuid::new_v4()));
        let mut file = std::fs::File::create_new(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(&bytes).unwrap();
        // Where the file is read from does not depend on the position of its descriptor.
        ObjectBody::File { file, bytes: bytes.len() as u64 }
    };
    let crc32 = crc32fast::hash(&bytes);
    store.put("exports/1/1/put.csv", &headers(), &body(), crc32).await.unwrap();
    let upload = store.create_upload(KEY, &headers()).await.unwrap();
    let part = store.upload_part(&upload, 1, &body(), crc32).await.unwrap();
    store.complete_upload(&upload, &[part], Some(crc32)).await.unwrap();
    for key in ["exports/1/1/put.csv", KEY] {
        assert!(read(&**store, key).await == bytes, "{key}");
    }
}

pub(crate) async fn a_part_that_differs_from_its_checksum_is_refused(store: &Storage, behaviour: &Behaviour) {
    let upload = store.create_upload(KEY, &headers()).await.unwrap();
    let body = ObjectBody::from(Bytes::from_static(b"a,b\n"));
    let sent = store.upload_part(&upload, 1, &body, WRONG_CRC32).await;
    assert_eq!(sent.is_err(), behaviour.checks_part_checksums, "{sent:?}");
    assert!(!sent.is_err_and(|error| error.is_not_found()));
    // The upload goes on.
    let part = send(&**store, &upload, 1, b"c,d\n").await.unwrap();
    store.complete_upload(&upload, &[part], None).await.unwrap();
    assert_eq!(read(&**store, KEY).await, b"c,d\n");
}

pub(crate) async fn a_part_can_be_sent_again(store: &Storage, behaviour: &Behaviour) {
    let (upload, first) = upload(&**store, &[b"first"]).await;
    let second = send(&**store, &upload, 1, b"second").await.unwrap();
    assert_ne!(first[0].etag, second.etag);
    if behaviour.checks_etags {
        let error = store.complete_upload(&upload, &first, None).await.unwrap_err();
        assert!(error.has_code("InvalidPart") && error.transient, "{error:?}");
    }
    store.complete_upload(&upload, &[second], None).await.unwrap();
    assert_eq!(read(&**store, KEY).await, b"second");
}

pub(crate) async fn an_upload_without_one_of_its_parts_is_not_completed(store: &Storage, behaviour: &Behaviour) {
    let (upload, mut parts) = upload(&**store, &[&vec![b'a'; PART]]).await;
    parts.push(CompletedPart { number: 2, ..parts[0].clone() });
    let error = store.complete_upload(&upload, &parts, None).await.unwrap_err();
    assert_eq!(error.has_code("InvalidPart") && error.transient, behaviour.names_missing_parts, "{error:?}");
    assert!(head_error(&**store, KEY).await.is_not_found());
}

pub(crate) async fn a_small_part_before_the_last_is_refused(store: &Storage, behaviour: &Behaviour) {
    let (upload, parts) = upload(&**store, &[&vec![b'a'; PART - 1], b"b"]).await;
    let completed = store.complete_upload(&upload, &parts, None).await;
    assert_eq!(completed.is_err(), behaviour.checks_part_sizes, "{completed:?}");
}

pub(crate) async fn an_unknown_upload_is_not_completed(store: &Storage, behaviour: &Behaviour) {
    let (known, parts) = upload(&**store, &[b"a"]).await;
    let unknown = MultipartUpload { id: uuid::Uuid::new_v4().to_string(), ..known };
    assert_unknown(store.complete_upload(&unknown, &parts, None).await.unwrap_err(), behaviour);
    assert_unknown(send(&**store, &unknown, 1, b"a").await.unwrap_err(), behaviour);
    abort_unknown(&**store, &unknown, behaviour).await;
}

/// Abort succeeds, for there is nothing to discard, where the store says that there is no such upload.
async fn abort_unknown(store: &dyn ObjectStore, upload: &MultipartUpload, behaviour: &Behaviour) {
    match store.abort_upload(upload).await {
        Ok(()) => assert!(behaviour.names_unknown_uploads),
        Err(error) => assert_unknown(error, behaviour),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the callers have no other use for the error")]
fn assert_unknown(error: StorageError, behaviour: &Behaviour) {
    assert_eq!(error.has_code("NoSuchUpload") && error.transient, behaviour.names_unknown_uploads, "{error:?}");
}

pub(crate) async fn a_completed_upload_no_longer_exists(store: &Storage, behaviour: &Behaviour) {
    let (upload, parts) = upload(&**store, &[b"a"]).await;
    store.complete_upload(&upload, &parts, None).await.unwrap();
    // A store may answer a repeated Complete as it did the first.
    if let Err(error) = store.complete_upload(&upload, &parts, None).await {
        assert_unknown(error, behaviour);
    }
    abort_unknown(&**store, &upload, behaviour).await;
    assert_eq!(read(&**store, KEY).await, b"a");
}

pub(crate) async fn an_aborted_upload_no_longer_exists(store: &Storage, behaviour: &Behaviour) {
    let (upload, parts) = upload(&**store, &[b"a"]).await;
    store.abort_upload(&upload).await.unwrap();
    abort_unknown(&**store, &upload, behaviour).await;
    assert_unknown(store.complete_upload(&upload, &parts, None).await.unwrap_err(), behaviour);
    assert!(head_error(&**store, KEY).await.is_not_found());
    assert_eq!(keys(&**store, "").await, Vec::<String>::new());
}

pub(crate) async fn unfinished_uploads_are_listed(store: &Storage, behaviour: &Behaviour) {
    let mut uploads = Vec::new();
    for key in ["exports/1/1/a", "exports/1/1/b", "exports/1/10/a"] {
        uploads.push(store.create_upload(key, &headers()).await.unwrap());
    }
    let listed = store.list_uploads("exports/1/1/").await.unwrap();
    assert_eq!(listed.is_some(), behaviour.lists_uploads);
    let Some(mut listed) = listed else { return };
    listed.sort_by(|one, other| one.key.cmp(&other.key));
    assert_eq!(listed, uploads[..2]);
    store.abort_upload(&uploads[0]).await.unwrap();
    assert_eq!(store.list_uploads("exports/1/1/").await.unwrap().unwrap(), uploads[1..2]);
}

pub(crate) async fn a_range_is_read(store: &Storage, _: &Behaviour) {
    put(&**store, KEY, b"0123456789").await;
    for (range, wanted, content_range) in
        [(0..=0, "0", "bytes 0-0/10"), (2..=5, "2345", "bytes 2-5/10"), (7..=9, "789", "bytes 7-9/10")]
    {
        let object = store.get(KEY, Some(range)).await.unwrap();
        assert_eq!(object.content_range.as_deref(), Some(content_range));
        assert_eq!(object.info.bytes, Some(wanted.len() as u64));
        assert!(object.info.etag.is_some());
        let pieces: Vec<Bytes> = object.body.try_collect().await.unwrap();
        assert_eq!(pieces.concat(), wanted.as_bytes());
    }
}

/// A client that has no credentials, and leaves bodies as they are.
fn http() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

pub(crate) async fn a_presigned_url_needs_no_credentials(store: &Storage, behaviour: &Behaviour) {
    put(&**store, KEY, b"a,b\n").await;
    let asked = ObjectHeaders {
        content_type: "application/json",
        content_encoding: Some("zstd"),
        content_disposition: "attachment; filename=\"other.json\"".to_owned(),
    };
    let validity = Validity::starting_now(Duration::from_mins(5));
    let get = store.presign(PresignedMethod::Get, KEY, &asked, validity).await.unwrap().into_string();
    let head = store.presign(PresignedMethod::Head, KEY, &asked, validity).await.unwrap().into_string();
    let answers = [http().get(&get).send().await.unwrap(), http().head(&head).send().await.unwrap()];
    let stored = headers();
    let of_head = if behaviour.overrides_headers_of_head { &asked } else { &stored };
    for (answer, expected) in answers.iter().zip([&asked, of_head]) {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], expected.content_type);
        assert_eq!(answer.headers()["content-encoding"], expected.content_encoding.unwrap());
        assert_eq!(answer.headers()["content-disposition"], expected.content_disposition.as_str());
        assert_eq!(answer.headers()["content-length"], "4");
    }
    let [answer, _] = answers;
    assert_eq!(answer.bytes().await.unwrap(), "a,b\n");
    // The store is not asked whether the object exists.
    let missing = store.presign(PresignedMethod::Get, "exports/missing", &asked, validity).await.unwrap();
    assert_eq!(http().get(missing.into_string()).send().await.unwrap().status(), 404);
}

pub(crate) async fn a_presigned_url_does_ranges(store: &Storage, behaviour: &Behaviour) {
    put(&**store, KEY, b"0123456789").await;
    put(&**store, "exports/1/1/empty", b"").await;
    let validity = Validity::starting_now(Duration::from_mins(5));
    let url = store.presign(PresignedMethod::Get, KEY, &headers(), validity).await.unwrap().into_string();
    let etag = http().get(&url).send().await.unwrap().headers()["etag"].clone();
    let cases = [
        ("bytes=2-5", None, 206, "2345"),
        ("bytes=8-", None, 206, "89"),
        ("bytes=-3", None, 206, "789"),
        // polars asks for this much of the end of any Parquet file.
        ("bytes=-262144", None, 206, "0123456789"),
        ("bytes=0-999", None, 206, "0123456789"),
        ("bytes=-0", None, 416, ""),
        ("bytes=10-", None, 416, ""),
        ("bytes=5-2", None, 200, "0123456789"),
        ("bytes=0-1,4-5", None, 200, "0123456789"),
        ("rows=0-1", None, 200, "0123456789"),
        ("bytes=2-5", Some(etag), 206, "2345"),
        ("bytes=2-5", Some("\"other\"".parse().unwrap()), 200, "0123456789"),
        ("bytes=10-", Some("\"other\"".parse().unwrap()), 200, "0123456789"),
    ];
    for (range, if_range, status, body) in cases {
        if !behaviour.does_ranges_as_s3_does {
            break;
        }
        let mut request = http().get(&url).header("range", range);
        if let Some(if_range) = &if_range {
            request = request.header("if-range", if_range);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{range} {if_range:?}");
        if status != 416 {
            assert_eq!(answer.headers()["content-length"], body.len().to_string(), "{range} {if_range:?}");
            assert_eq!(answer.headers().contains_key("content-range"), status == 206, "{range} {if_range:?}");
            assert_eq!(answer.text().await.unwrap(), body, "{range} {if_range:?}");
        }
    }
    let empty = store.presign(PresignedMethod::Get, "exports/1/1/empty", &headers(), validity).await.unwrap();
    let answer = http().get(empty.into_string()).header("range", "bytes=-5").send().await.unwrap();
    assert!(!answer.status().is_server_error(), "{answer:?}");
}

pub(crate) async fn a_presigned_url_works_as_it_was_signed_and_for_its_time(store: &Storage, _: &Behaviour) {
    put(&**store, KEY, b"a,b\n").await;
    put(&**store, "exports/1/1/other.csv", b"secret").await;
    let validity = Validity::starting_now(Duration::from_mins(5));
    let url = store.presign(PresignedMethod::Get, KEY, &headers(), validity).await.unwrap().into_string();
    let (address, query) = url.split_once('?').unwrap();
    let status = async |url: &str| http().get(url).send().await.unwrap().status();
    assert_eq!(status(&url).await, 200);
    assert_eq!(status(address).await, 403, "without a signature");
    assert_eq!(status(&url.replace("file.csv?", "other.csv?")).await, 403, "another object");
    assert_eq!(status(&format!("{address}?{}", query.replace("X-Amz-Expires=300", "X-Amz-Expires=301"))).await, 403);
    assert_eq!(http().put(&url).body("x").send().await.unwrap().status(), 403, "another method");
    let past = Validity { start: validity.start - Duration::from_mins(10), ..validity };
    let url = store.presign(PresignedMethod::Get, KEY, &headers(), past).await.unwrap().into_string();
    assert_eq!(status(&url).await, 403, "expired");
    // S3 allows seven days at most.
    let long = Validity::starting_now(Duration::from_hours(7 * 24 + 1));
    assert!(!store.presign(PresignedMethod::Get, KEY, &headers(), long).await.unwrap_err().transient);
}

pub(crate) async fn deletion_of_a_missing_object_succeeds(store: &Storage, _: &Behaviour) {
    put(&**store, KEY, b"x").await;
    for _ in 0..2 {
        store.delete(KEY).await.unwrap();
        assert!(head_error(&**store, KEY).await.is_not_found());
    }
    store.delete("exports/never/there").await.unwrap();
}

pub(crate) async fn a_folder_is_deleted_and_nothing_beside_it(store: &Storage, _: &Behaviour) {
    // More than one page of the list.
    stream::iter(0..1005)
        .for_each_concurrent(16, async |number| {
            put(&**store, &format!("exports/x/1/part-{number:05}.csv"), b"x").await;
        })
        .await;
    let neighbours = ["exports/x/10/part-00001.csv", "exports/x/2/part-00001.csv"];
    for key in neighbours {
        put(&**store, key, b"x").await;
    }
    assert_eq!(keys(&**store, "exports/x/1/").await.len(), 1005);
    // A repeat finds nothing to do.
    for _ in 0..2 {
        store.delete_result("exports/x/1/").await.unwrap();
        assert_eq!(keys(&**store, "exports/").await, neighbours);
    }
    for refused in ["exports/x/1", "exports/", ""] {
        assert!(!store.delete_prefix(refused).await.unwrap_err().transient, "{refused:?}");
    }
    store.delete_result("exports/x/2/part-00001.csv").await.unwrap();
    assert_eq!(keys(&**store, "exports/").await, neighbours[..1]);
}

pub(crate) async fn an_orphaned_attempt_is_removed(store: &Storage, behaviour: &Behaviour) {
    let (mine, other) = ("exports/x/1/part-00001.csv", "exports/x/10/part-00001.csv");
    let mut uploads = Vec::new();
    for key in [mine, other] {
        put(&**store, key, b"x").await;
        uploads.push(store.create_upload(key, &headers()).await.unwrap());
    }
    let orphaned = |owned| OrphanedObject {
        object_key: "exports/x/1/".to_owned(),
        // The ledger does not know every upload; those are found where the store can list them.
        upload_id: (!behaviour.lists_uploads).then(|| uploads[0].id.clone()),
        upload_key: mine.to_owned(),
        owned,
    };
    if behaviour.lists_uploads {
        store.create_upload("exports/x/1/part-00002.csv", &headers()).await.unwrap();
    }
    // Of files that are the export's only the unfinished uploads are removed.
    store.remove_orphaned(&orphaned(true)).await.unwrap();
    assert_eq!(keys(&**store, "").await, [mine, other]);
    if behaviour.lists_uploads {
        assert_eq!(store.list_uploads("").await.unwrap().unwrap(), uploads[1..]);
    }
    store.remove_orphaned(&orphaned(false)).await.unwrap();
    assert_eq!(keys(&**store, "").await, [other]);
    if behaviour.lists_uploads {
        assert_eq!(store.list_uploads("").await.unwrap().unwrap(), uploads[1..]);
    }
}
