//! The check of the object store: an object is stored, read and deleted, and an upload in parts begun and given up.

use bytes::Bytes;
use futures_util::TryStreamExt;
use polyglot_core::failure::chain;
use polyglot_core::request::ObjectHeaders;
use polyglot_storage::{ObjectBody, Storage, StorageError};
use uuid::Uuid;

use super::finding::Findings;
use crate::config::Config;

const CONTENT: &[u8] = b"polyglot-api check: this object may be deleted.\n";

pub(super) async fn check(config: &Config, findings: &mut Findings) {
    let settings = &config.connections.storage;
    let storage = Storage::new(settings).await;
    if let Err(error) = storage.check().await {
        // The api creates it when it starts; on AWS that is the operator's.
        if error.is_not_found() && settings.endpoint.is_some() {
            return findings
                .right(format!("the bucket {:?} is not there yet; the api makes it when it starts", settings.bucket));
        }
        return findings.missing(format!("the bucket {:?} cannot be used: {}", settings.bucket, chain(&error)));
    }
    let key = format!("{}polyglot-check-{}", settings.prefix, Uuid::new_v4());
    match probe(&storage, &key).await {
        Ok(()) => findings.right(format!(
            "the bucket {:?} takes an object, gives it back and deletes it, and takes uploads in parts",
            settings.bucket
        )),
        Err((what, error)) => findings.missing(format!(
            "the bucket {:?} does not let the service {what}: {} (docs/how-to/s3-permissions.md)",
            settings.bucket,
            chain(&error)
        )),
    }
    match storage.list_uploads(&key).await {
        Ok(Some(_)) => {}
        Ok(None) => findings.note(
            "uploads cannot be listed: what a killed worker has begun is found only by the ledger, not in the bucket",
        ),
        Err(error) => findings.missing(format!("uploads cannot be listed: {}", chain(&error))),
    }
}

/// The step that failed, in words, and why.
type Failed = (&'static str, StorageError);

async fn probe(storage: &Storage, key: &str) -> Result<(), Failed> {
    let headers = ObjectHeaders {
        content_type: "text/plain",
        content_encoding: None,
        content_disposition: "attachment".to_owned(),
    };
    let step = |what: &'static str| move |error: StorageError| (what, error);
    let body = ObjectBody::Memory(Bytes::from_static(CONTENT));
    let put = storage.put(key, &headers, &body, crc32fast::hash(CONTENT)).await;
    // Deleted whatever storing and reading it come to: it may be there although it was not encrypted.
    let read = async { storage.get(key, None).await?.body.try_collect::<Vec<Bytes>>().await }.await;
    let deleted = storage.delete(key).await;
    put.map_err(step("store an object"))?;
    deleted.map_err(step("delete an object"))?;
    read.map_err(step("read an object"))?;
    let upload = storage.create_upload(key, &headers).await.map_err(step("begin an upload in parts"))?;
    storage.abort_upload(&upload).await.map_err(step("give an upload up"))
}
