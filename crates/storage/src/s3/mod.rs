//! S3 and stores that speak its protocol, through the AWS SDK.

mod body;
mod client;
mod encryption;
mod error;
mod retries;

use std::ops::RangeInclusive;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::head_bucket::HeadBucketError;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use polyglot_core::request::ObjectHeaders;

use self::body::{answer_body, checksum_text, read_checksum, request_body};
use self::client::{COMPLETE_TIMEOUT, Clients, attempt_timeout, body_timeout, standard_retries};
use self::encryption::EncryptionHeaders;
use self::error::{failed, status};
use self::retries::CountRetries;
use crate::config::StorageConfig;
use crate::error::StorageError;
use crate::object_store::{
    ChecksumMode, CompletedPart, MultipartUpload, ObjectBody, ObjectInfo, ObjectStore, PresignedMethod, PresignedUrl,
    Result, StoredObject, Validity,
};

/// A bucket of S3 or of a store that speaks its protocol.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    /// Signs for the endpoint that clients can reach.
    public_client: Client,
    bucket: String,
    has_custom_endpoint: bool,
    encryption: EncryptionHeaders,
}

impl S3Store {
    /// A client for the bucket. Nothing is connected yet.
    pub async fn new(config: &StorageConfig) -> Self {
        Self::with_retries(config, standard_retries()).await
    }

    /// A client that sends every request once, for tests of faults.
    pub async fn without_retries(config: &StorageConfig) -> Self {
        Self::with_retries(config, RetryConfig::disabled()).await
    }

    async fn with_retries(config: &StorageConfig, retries: RetryConfig) -> Self {
        let Clients { service, public } = Clients::new(config, retries).await;
        Self {
            client: service,
            public_client: public,
            bucket: config.bucket.clone(),
            has_custom_endpoint: config.endpoint.is_some(),
            encryption: EncryptionHeaders::of(config.encryption.as_ref()),
        }
    }

    /// Deletes the bucket, which has to be empty. The service never does; tests clean up with it.
    pub async fn delete_bucket(&self) -> Result<()> {
        self.client.delete_bucket().bucket(&self.bucket).send().await.map_err(failed("DeleteBucket"))?;
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn check(&self) -> Result<()> {
        self.client.head_bucket().bucket(&self.bucket).send().await.map_err(failed("HeadBucket"))?;
        Ok(())
    }

    /// On AWS a bucket is the operator's to create.
    async fn ensure_bucket(&self) -> Result<()> {
        let Err(missing) = self.client.head_bucket().bucket(&self.bucket).send().await else { return Ok(()) };
        let is_not_found = missing.as_service_error().is_some_and(HeadBucketError::is_not_found);
        if !self.has_custom_endpoint || !is_not_found {
            return Err(failed("HeadBucket")(missing));
        }
        match self.client.create_bucket().bucket(&self.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code().is_some_and(|code| code.starts_with("BucketAlready")) => Ok(()),
            Err(error) => Err(failed("CreateBucket")(error)),
        }
    }

    async fn put(&self, key: &str, headers: &ObjectHeaders, body: &ObjectBody, crc32: u32) -> Result<Option<String>> {
        const OPERATION: &str = "PutObject";
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type(headers.content_type)
            .content_disposition(&headers.content_disposition)
            .set_content_encoding(headers.content_encoding.map(str::to_owned))
            .set_server_side_encryption(self.encryption.algorithm.clone())
            .set_ssekms_key_id(self.encryption.key_id.clone())
            .checksum_crc32(checksum_text(crc32))
            .body(request_body(OPERATION, body).await?)
            .customize()
            .interceptor(CountRetries::default())
            .config_override(body_timeout(body));
        let answer = put.send().await.map_err(failed(OPERATION))?;
        self.encryption.check(OPERATION, answer.server_side_encryption())?;
        Ok(answer.e_tag)
    }

    async fn create_upload(&self, key: &str, headers: &ObjectHeaders) -> Result<MultipartUpload> {
        const OPERATION: &str = "CreateMultipartUpload";
        let create = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .content_type(headers.content_type)
            .content_disposition(&headers.content_disposition)
            .set_content_encoding(headers.content_encoding.map(str::to_owned))
            // Every part is encrypted as the upload is.
            .set_server_side_encryption(self.encryption.algorithm.clone())
            .set_ssekms_key_id(self.encryption.key_id.clone())
            .checksum_algorithm(types::ChecksumAlgorithm::Crc32)
            // A store that knows it checks the whole object; one that does not checks the parts.
            .checksum_type(types::ChecksumType::FullObject);
        let answer = create.send().await.map_err(failed(OPERATION))?;
        let confirmed = self.encryption.check(OPERATION, answer.server_side_encryption());
        let id = answer.upload_id;
        let id = id.ok_or_else(|| StorageError::invalid(OPERATION, "the answer has no upload id"))?;
        let upload = MultipartUpload { key: key.to_owned(), id };
        if let Err(refused) = confirmed {
            // Nobody else knows the upload. Where this fails, it is found by its key; the refusal is the error that matters.
            let _ = self.abort_upload(&upload).await;
            return Err(refused);
        }
        Ok(upload)
    }

    async fn upload_part(
        &self,
        upload: &MultipartUpload,
        number: u32,
        body: &ObjectBody,
        crc32: u32,
    ) -> Result<CompletedPart> {
        const OPERATION: &str = "UploadPart";
        let part = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .part_number(part_number(number))
            .checksum_crc32(checksum_text(crc32))
            // The bytes, and with them their share of the budget, live until the answer.
            .body(request_body(OPERATION, body).await?)
            .customize()
            // The checksum shows whether all of it arrived; SHA-256 on top of it cost as much as the encoder.
            .disable_payload_signing()
            .interceptor(CountRetries::default())
            .config_override(body_timeout(body));
        let etag = part.send().await.map_err(failed(OPERATION))?.e_tag;
        Ok(CompletedPart { number, etag, crc32 })
    }

    async fn complete_upload(
        &self,
        upload: &MultipartUpload,
        parts: &[CompletedPart],
        crc32: Option<u32>,
    ) -> Result<Option<String>> {
        let parts = parts.iter().map(|part| {
            types::CompletedPart::builder()
                .part_number(part_number(part.number))
                .set_e_tag(part.etag.clone())
                .checksum_crc32(checksum_text(part.crc32))
                .build()
        });
        let complete = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .multipart_upload(types::CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build())
            .set_checksum_type(crc32.map(|_| types::ChecksumType::FullObject))
            .set_checksum_crc32(crc32.map(checksum_text))
            .customize()
            .config_override(attempt_timeout(COMPLETE_TIMEOUT));
        Ok(complete.send().await.map_err(failed("CompleteMultipartUpload"))?.e_tag)
    }

    async fn abort_upload(&self, upload: &MultipartUpload) -> Result<()> {
        let abort = self.client.abort_multipart_upload().bucket(&self.bucket);
        match abort.key(&upload.key).upload_id(&upload.id).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("NoSuchUpload") => Ok(()),
            Err(error) => Err(failed("AbortMultipartUpload")(error)),
        }
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Option<Vec<MultipartUpload>>> {
        let mut uploads = Vec::new();
        let mut next = (None, None);
        loop {
            let list = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(prefix);
            let listed = match list.set_key_marker(next.0.take()).set_upload_id_marker(next.1.take()).send().await {
                Ok(listed) => listed,
                Err(error) if matches!(status(&error), Some(403 | 405 | 501)) => {
                    return Ok((!uploads.is_empty()).then_some(uploads));
                }
                Err(error) => return Err(failed("ListMultipartUploads")(error)),
            };
            uploads.extend(listed.uploads().iter().filter_map(|upload| {
                Some(MultipartUpload { key: upload.key()?.to_owned(), id: upload.upload_id()?.to_owned() })
            }));
            // A store that says there is more and not from where would be asked the same for ever.
            if listed.is_truncated() != Some(true) || listed.next_key_marker().is_none() {
                return Ok(Some(uploads));
            }
            next = (listed.next_key_marker, listed.next_upload_id_marker);
        }
    }

    async fn head(&self, key: &str, checksum: ChecksumMode) -> Result<ObjectInfo> {
        const OPERATION: &str = "HeadObject";
        let mode = (checksum == ChecksumMode::Included).then_some(types::ChecksumMode::Enabled);
        let head = self.client.head_object().bucket(&self.bucket).key(key).set_checksum_mode(mode);
        let head = head.send().await.map_err(failed(OPERATION))?;
        let is_whole = head.checksum_type == Some(types::ChecksumType::FullObject);
        let crc32 = head.checksum_crc32.filter(|_| is_whole);
        Ok(ObjectInfo {
            bytes: head.content_length.and_then(|bytes| bytes.try_into().ok()),
            etag: head.e_tag,
            content_type: head.content_type,
            content_encoding: head.content_encoding,
            content_disposition: head.content_disposition,
            crc32: crc32.map(|text| read_checksum(OPERATION, &text)).transpose()?,
        })
    }

    async fn get(&self, key: &str, range: Option<RangeInclusive<u64>>) -> Result<StoredObject> {
        const OPERATION: &str = "GetObject";
        let range = range.map(|range| format!("bytes={}-{}", range.start(), range.end()));
        let get = self.client.get_object().bucket(&self.bucket).key(key).set_range(range);
        let object = get.send().await.map_err(failed(OPERATION))?;
        let info = ObjectInfo {
            bytes: object.content_length.and_then(|bytes| bytes.try_into().ok()),
            etag: object.e_tag,
            content_type: object.content_type,
            content_encoding: object.content_encoding,
            content_disposition: object.content_disposition,
            crc32: None,
        };
        Ok(StoredObject { info, content_range: object.content_range, body: answer_body(OPERATION, object.body) })
    }

    async fn presign(
        &self,
        method: PresignedMethod,
        key: &str,
        headers: &ObjectHeaders,
        validity: Validity,
    ) -> Result<PresignedUrl> {
        let operation = match method {
            PresignedMethod::Get => "signing GetObject",
            PresignedMethod::Head => "signing HeadObject",
        };
        let period = PresigningConfig::builder().start_time(validity.start).expires_in(validity.period).build();
        let period = period.map_err(|error| StorageError::invalid(operation, error))?;
        let encoding = headers.content_encoding.map(str::to_owned);
        let signed = match method {
            PresignedMethod::Get => {
                let get = self.public_client.get_object().bucket(&self.bucket).key(key);
                let get = get.response_content_type(headers.content_type).set_response_content_encoding(encoding);
                let get = get.response_content_disposition(&headers.content_disposition);
                get.presigned(period).await.map_err(failed(operation))?
            }
            PresignedMethod::Head => {
                let head = self.public_client.head_object().bucket(&self.bucket).key(key);
                let head = head.response_content_type(headers.content_type).set_response_content_encoding(encoding);
                let head = head.response_content_disposition(&headers.content_disposition);
                head.presigned(period).await.map_err(failed(operation))?
            }
        };
        Ok(PresignedUrl::new(signed.uri().to_owned()))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        match self.client.delete_object().bucket(&self.bucket).key(key).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("NoSuchKey") => Ok(()),
            Err(error) => Err(failed("DeleteObject")(error)),
        }
    }

    fn list_keys<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Vec<String>>> {
        let pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        stream::unfold(pages, async |mut pages| Some((pages.next().await?, pages)))
            .map_ok(|page| page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key).collect())
            .map_err(failed("ListObjectsV2"))
            .boxed()
    }
}

/// At most 10,000, so it fits.
fn part_number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
