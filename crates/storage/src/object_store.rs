//! The trait of an object store, one bucket of it, and the plain types of its calls. No client library is named here.

use std::fmt;
use std::fs::File;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use polyglot_core::request::ObjectHeaders;

use crate::error::StorageError;

pub type Result<T> = std::result::Result<T, StorageError>;

/// The bytes of an object as they arrive.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// One bucket of an object store. An implementation retries transient errors by itself and bounds every attempt in time.
///
/// Parts and objects carry the CRC-32 of their bytes, and a store refuses bytes that do not match it.
#[async_trait]
pub trait ObjectStore: fmt::Debug + Send + Sync {
    /// Fails unless the bucket exists and may be used.
    async fn check(&self) -> Result<()>;

    /// Creates the bucket if it is missing, where that is the service's task.
    async fn ensure_bucket(&self) -> Result<()>;

    /// Writes an object in one request and returns its `ETag`.
    async fn put(&self, key: &str, headers: &ObjectHeaders, body: &ObjectBody, crc32: u32) -> Result<Option<String>>;

    /// Begins a multipart upload. Its object is invisible until the upload is completed.
    async fn create_upload(&self, key: &str, headers: &ObjectHeaders) -> Result<MultipartUpload>;

    /// Sends a part. A part of the same number that was sent before is replaced.
    ///
    /// Numbers are from 1 to 10,000; every part but the last has at least 5 MiB.
    async fn upload_part(
        &self,
        upload: &MultipartUpload,
        number: u32,
        body: &ObjectBody,
        crc32: u32,
    ) -> Result<CompletedPart>;

    /// Makes the object of these parts, in ascending order of their numbers, and returns its `ETag`. `crc32` is the checksum
    /// of the whole object.
    ///
    /// An unknown upload fails with `NoSuchUpload`, a part that the store does not have with `InvalidPart`.
    async fn complete_upload(
        &self,
        upload: &MultipartUpload,
        parts: &[CompletedPart],
        crc32: Option<u32>,
    ) -> Result<Option<String>>;

    /// Discards an upload and its parts; succeeds if it does not exist.
    async fn abort_upload(&self, upload: &MultipartUpload) -> Result<()>;

    /// Lists the uploads, neither completed nor aborted, of all keys that begin with `prefix`. `None`: the store cannot list
    /// them, or does not allow it.
    async fn list_uploads(&self, prefix: &str) -> Result<Option<Vec<MultipartUpload>>>;

    /// Returns what the store knows of an object, without its bytes. See [`StorageError::is_not_found`].
    async fn head(&self, key: &str, checksum: ChecksumMode) -> Result<ObjectInfo>;

    /// Begins to read an object or a range of its bytes. A store without ranges sends the whole object.
    async fn get(&self, key: &str, range: Option<RangeInclusive<u64>>) -> Result<StoredObject>;

    /// Signs a URL of the public endpoint, whose answer has the given headers. Does not ask the store whether the object exists.
    async fn presign(
        &self,
        method: PresignedMethod,
        key: &str,
        headers: &ObjectHeaders,
        validity: Validity,
    ) -> Result<PresignedUrl>;

    /// Deletes an object; succeeds if it does not exist.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Lists the keys that begin with `prefix`, one page after the other.
    fn list_keys<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Vec<String>>>;
}

/// The bytes of a part or an object, which can be sent again without a copy.
#[derive(Debug)]
pub enum ObjectBody {
    Memory(Bytes),
    File { file: File, bytes: u64 },
}

impl From<Bytes> for ObjectBody {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

impl ObjectBody {
    /// Length in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::File { bytes, .. } => *bytes,
        }
    }
}

/// A multipart upload, as the store names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartUpload {
    pub key: String,
    pub id: String,
}

/// A part that the store has, as completing the upload names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedPart {
    pub number: u32,
    pub etag: Option<String>,
    pub crc32: u32,
}

/// Whether [`ObjectStore::head`] asks for the object's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumMode {
    Included,
    Omitted,
}

/// Metadata of an object. A store may leave out any of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Length of the answer's body: of the object, or of the range that was asked for.
    pub bytes: Option<u64>,
    /// With its quotation marks.
    pub etag: Option<String>,
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub content_disposition: Option<String>,
    /// CRC-32 of the whole object.
    pub crc32: Option<u32>,
}

/// An object that is being read.
pub struct StoredObject {
    pub info: ObjectInfo,
    /// `bytes 0-9/100`, where the store sends a range.
    pub content_range: Option<String>,
    pub body: ByteStream,
}

/// The HTTP method that a presigned URL allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresignedMethod {
    Get,
    Head,
}

/// The time in which a presigned URL works: at most seven days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub start: SystemTime,
    pub period: Duration,
}

impl Validity {
    #[expect(
        clippy::disallowed_methods,
        reason = "a signature has the signer's clock, which the store compares to its own"
    )]
    pub fn starting_now(period: Duration) -> Self {
        Self { start: SystemTime::now(), period }
    }

    pub fn end(&self) -> SystemTime {
        self.start + self.period
    }
}

/// A URL that works without credentials. It is as good as a password while it is valid, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedUrl(String);

impl PresignedUrl {
    pub fn new(url: String) -> Self {
        Self(url)
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Debug for PresignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresignedUrl(..)")
    }
}
