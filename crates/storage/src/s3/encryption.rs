//! Encryption at rest, as it is asked for with an object and confirmed by the store.

use aws_sdk_s3::types::ServerSideEncryption;

use crate::config::Encryption;
use crate::error::StorageError;
use crate::object_store::Result;

/// What is said with each object; nothing if the bucket's own setting is to count.
#[derive(Debug, Clone)]
pub(super) struct EncryptionHeaders {
    pub(super) algorithm: Option<ServerSideEncryption>,
    pub(super) key_id: Option<String>,
}

impl EncryptionHeaders {
    pub(super) fn of(encryption: Option<&Encryption>) -> Self {
        match encryption {
            None => Self { algorithm: None, key_id: None },
            Some(Encryption::StoreKeys) => Self { algorithm: Some(ServerSideEncryption::Aes256), key_id: None },
            Some(Encryption::Kms { key_id }) => {
                Self { algorithm: Some(ServerSideEncryption::AwsKms), key_id: key_id.clone() }
            }
        }
    }

    /// Fails unless the store says that it does what was asked for. A store that does not know the headers ignores them, and
    /// an operator who asks for encryption must not get files without it.
    pub(super) fn check(&self, operation: &'static str, answer: Option<&ServerSideEncryption>) -> Result<()> {
        match &self.algorithm {
            Some(asked) if answer != Some(asked) => Err(StorageError::invalid(
                operation,
                format!("the store does not encrypt by {} (S3_SSE)", asked.as_str()),
            )),
            _ => Ok(()),
        }
    }
}
