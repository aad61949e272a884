//! The object store. The AWS SDK is named nowhere else.

mod config;
mod s3;

pub use config::StorageConfig;
pub use s3::{OrphanedObject, Storage, StorageError};
