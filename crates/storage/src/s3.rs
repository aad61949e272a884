//! The object store: one client for the service, one that signs URLs for clients, and the removals that both
//! processes do. Writing an object is the worker's, reading one the api's.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Credentials, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls;
use futures_util::{StreamExt, TryStreamExt, stream};

use polyglot_core::request::{ExportRequest, Layout};

use crate::StorageConfig;

/// Objects of a folder that are deleted at a time.
const DELETIONS: usize = 32;

/// A bucket, and the clients for it.
#[derive(Debug, Clone)]
pub struct Storage {
    pub client: Client,
    /// Signs for the endpoint that clients can reach.
    pub public_client: Client,
    pub bucket: String,
    prefix: String,
    custom_endpoint: bool,
}

/// What an attempt that has ended may have left in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrphanedObject {
    pub object_key: String,
    pub upload_id: Option<String>,
    /// The key of the multipart upload.
    pub upload_key: String,
    /// Whether the object is the export's file, so that only uploads of its key are orphaned.
    pub owned: bool,
}

/// A call to the object store that failed, and whether the same call may succeed later.
#[derive(Debug, thiserror::Error)]
#[error("the object store failed {operation}{}", code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
pub struct StorageError {
    pub operation: &'static str,
    /// The store's own error code, `NoSuchUpload`.
    pub code: Option<String>,
    pub transient: bool,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StorageError {
    pub fn new<E>(operation: &'static str, error: SdkError<E>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let code = error.code().map(str::to_owned);
        let status = error.raw_response().map(|response| response.status().as_u16());
        let transient = match &error {
            SdkError::ConstructionFailure(_) => false,
            SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => true,
            // 404 for an upload that was there when the attempt began: it was swept away or the store lost it,
            // and a new attempt makes a new one. A bucket may still be on its way after the store came up empty.
            _ => {
                status.is_none_or(|status| status >= 500 || status == 429 || status == 408)
                    || code.as_deref().is_some_and(|code| {
                        [
                            "NoSuchUpload",
                            // Somebody who was taken for dead has sent the part again, and it has another ETag.
                            "InvalidPart",
                            "NoSuchBucket",
                            "ExpiredToken",
                            "SlowDown",
                            "RequestTimeout",
                            "InternalError",
                            "ServiceUnavailable",
                        ]
                        .contains(&code)
                    })
            }
        };
        Self { operation, code, transient, source: Box::new(error) }
    }

    /// The body of a request could not be read, so that the store has not heard of it.
    pub fn not_sent(operation: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { operation, code: None, transient: true, source: error.into() }
    }
}

impl Storage {
    /// Clients from `config` and, where it says nothing, from the AWS chain (environment, profile, web identity,
    /// container, instance). Nothing is connected yet.
    pub async fn new(config: &StorageConfig) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
        if let Some(region) = &config.region {
            loader = loader.region(Region::new(region.clone()));
        } else if config.endpoint.is_some() {
            // A self-hosted store takes any region; asking the instance metadata for one would cost seconds.
            loader = loader.region(Region::new("us-east-1"));
        }
        if let Some((id, secret)) = &config.static_credentials {
            loader = loader.credentials_provider(Credentials::new(id, secret, None, None, "file"));
        }
        let shared = loader.load().await;
        let client = |endpoint: Option<&String>| {
            let mut builder = aws_sdk_s3::config::Builder::from(&shared)
                // Parts carry a checksum of our own; the SDK's default would wrap bodies in chunks with
                // trailers, which not every store understands.
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
                .retry_config(RetryConfig::standard().with_max_attempts(4).with_max_backoff(Duration::from_secs(5)))
                .timeout_config(
                    TimeoutConfig::builder()
                        .connect_timeout(Duration::from_secs(3))
                        .operation_attempt_timeout(Duration::from_mins(1))
                        .build(),
                );
            if let Some(endpoint) = endpoint {
                builder = builder.endpoint_url(endpoint).force_path_style(true);
            }
            Client::from_conf(builder.build())
        };
        Self {
            client: client(config.endpoint.as_ref()),
            public_client: client(config.public_endpoint.as_ref().or(config.endpoint.as_ref())),
            bucket: config.bucket.clone(),
            prefix: config.prefix.clone(),
            custom_endpoint: config.endpoint.is_some(),
        }
    }

    /// Where an attempt writes: the key of its object or, ending in a slash, what the keys of its objects begin with. The attempt is part of the key, so a worker that was taken for dead and comes
    /// back writes beside its successor's file, not over it.
    #[must_use]
    pub fn object_key(&self, id: uuid::Uuid, attempt: i32, request: &ExportRequest, file_name: &str) -> String {
        let folder = format!("{}{id}/{attempt}/", self.prefix);
        match request.layout {
            Layout::File => {
                let suffix = request.compression.map_or("", |_| ".gz");
                format!("{folder}{file_name}{suffix}")
            }
            Layout::Files => folder,
        }
    }

    /// Whether the bucket is there and may be used.
    pub async fn check(&self) -> Result<(), StorageError> {
        self.client.head_bucket().bucket(&self.bucket).send().await.map_err(|e| StorageError::new("HeadBucket", e))?;
        Ok(())
    }

    /// Makes the bucket on a self-hosted store that does not have it. On AWS a bucket is the operator's to make.
    pub async fn ensure_bucket(&self) -> Result<(), StorageError> {
        let Err(missing) = self.client.head_bucket().bucket(&self.bucket).send().await else { return Ok(()) };
        let not_found =
            missing.as_service_error().is_some_and(aws_sdk_s3::operation::head_bucket::HeadBucketError::is_not_found);
        if !self.custom_endpoint || !not_found {
            return Err(StorageError::new("HeadBucket", missing));
        }
        match self.client.create_bucket().bucket(&self.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code().is_some_and(|code| code.starts_with("BucketAlready")) => Ok(()),
            Err(error) => Err(StorageError::new("CreateBucket", error)),
        }
    }

    /// Deletes an object; one that is not there is fine.
    pub async fn delete_object(&self, key: &str) -> Result<(), StorageError> {
        match self.client.delete_object().bucket(&self.bucket).key(key).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("NoSuchKey") => Ok(()),
            Err(error) => Err(StorageError::new("DeleteObject", error)),
        }
    }

    /// Deletes what an export has in the store: the object of that key or, where the key ends in `/`, all objects under it.
    pub async fn delete_result(&self, object_key: &str) -> Result<(), StorageError> {
        if is_folder(object_key) { self.delete_prefix(object_key).await } else { self.delete_object(object_key).await }
    }

    /// Deletes every object under a prefix. It has to end in `/`, because `1` is also the beginning of `10/`, and to be
    /// more than what every key of the service begins with. What was deleted before an error stays deleted.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<(), StorageError> {
        if !is_folder(prefix) || prefix == self.prefix {
            return Err(StorageError {
                operation: "DeleteObject",
                code: None,
                transient: false,
                source: format!("{prefix:?} is not the prefix of one export").into(),
            });
        }
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| StorageError::new("ListObjectsV2", error))?;
            // One call each: some stores have no DeleteObjects, and others want a checksum for it that the SDK does not
            // send.
            stream::iter(page.contents())
                .filter_map(async |object| object.key().map(Ok))
                .try_for_each_concurrent(DELETIONS, |key| self.delete_object(key))
                .await?;
        }
        Ok(())
    }

    /// Aborts a multipart upload; one that is not there is fine.
    pub async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<(), StorageError> {
        let abort = self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload_id);
        match abort.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("NoSuchUpload") => Ok(()),
            Err(error) => Err(StorageError::new("AbortMultipartUpload", error)),
        }
    }

    /// Removes everything an attempt may have left: its uploads and, in case its Complete got through, its object,
    /// unless that is the export's file. Where the key ends in `/` that is all uploads and objects under it.
    pub async fn remove_orphaned(&self, orphaned: &OrphanedObject) -> Result<(), StorageError> {
        if let Some(upload_id) = &orphaned.upload_id {
            self.abort_upload(&orphaned.upload_key, upload_id).await?;
        }
        // The ledger does not know an upload whose id never arrived: the attempt was stopped while Create was on its
        // way, or the SDK repeated a Create whose answer was lost.
        for (key, upload_id) in self.uploads_of(&orphaned.object_key).await? {
            self.abort_upload(&key, &upload_id).await?;
        }
        if orphaned.owned {
            return Ok(());
        }
        self.delete_result(&orphaned.object_key).await
    }

    /// Keys and ids of the unfinished uploads of a key or, where it ends in `/`, of all keys under it. None on a store that
    /// cannot list them, or not for us.
    async fn uploads_of(&self, object_key: &str) -> Result<Vec<(String, String)>, StorageError> {
        let mut uploads = Vec::new();
        let mut next = (None, None);
        loop {
            let list = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(object_key);
            let listed = match list.set_key_marker(next.0.take()).set_upload_id_marker(next.1.take()).send().await {
                Ok(listed) => listed,
                Err(error)
                    if error
                        .raw_response()
                        .is_some_and(|answer| [403, 405, 501].contains(&answer.status().as_u16())) =>
                {
                    return Ok(uploads);
                }
                Err(error) => return Err(StorageError::new("ListMultipartUploads", error)),
            };
            let found = listed.uploads().iter().filter_map(|upload| Some((upload.key()?, upload.upload_id()?)));
            let wanted = found.filter(|(key, _)| *key == object_key || is_folder(object_key));
            uploads.extend(wanted.map(|(key, id)| (key.to_owned(), id.to_owned())));
            // A store that says there is more and not from where would be asked the same for ever.
            if listed.is_truncated() != Some(true) || listed.next_key_marker().is_none() {
                return Ok(uploads);
            }
            next = (listed.next_key_marker, listed.next_upload_id_marker);
        }
    }
}

/// Whether a key of the ledger stands for all objects under it.
fn is_folder(object_key: &str) -> bool {
    object_key.ends_with('/')
}
