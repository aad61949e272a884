//! The object store: the trait that a store implements, the S3 client that implements it, and the layout of a bucket. The
//! AWS SDK is named in `s3` alone.

mod config;
mod error;
mod object_store;
mod s3;
mod storage;

pub use config::{Encryption, StorageConfig};
pub use error::StorageError;
pub use object_store::{
    ByteStream, ChecksumMode, CompletedPart, MultipartUpload, ObjectBody, ObjectInfo, ObjectStore, PresignedMethod,
    PresignedUrl, Result, StoredObject, Validity,
};
pub use s3::S3Store;
pub use storage::{OrphanedObject, Storage};
