//! The service's part of a bucket: the keys of exports, and the removal of what belongs to one.

use std::ops::Deref;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use polyglot_core::request::{ExportRequest, Layout};
use polyglot_core::tenant::{BENCHMARK_TENANT, DEFAULT_TENANT};
use uuid::Uuid;

use crate::config::StorageConfig;
use crate::error::StorageError;
use crate::object_store::{MultipartUpload, ObjectStore, Result};
use crate::s3::S3Store;

/// Objects of a folder that are deleted at a time.
const CONCURRENT_DELETIONS: usize = 32;

/// The object store of the service. It dereferences to the [`ObjectStore`] for the calls themselves.
#[derive(Debug, Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    /// Name of the bucket, for log lines.
    pub bucket: String,
    prefix: String,
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

impl Deref for Storage {
    type Target = dyn ObjectStore;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

impl Storage {
    /// The S3 store that `config` names. Nothing is connected yet.
    pub async fn new(config: &StorageConfig) -> Self {
        Self::with_store(Arc::new(S3Store::new(config).await), config)
    }

    /// Another store in the place of the one that `config` names.
    pub fn with_store(store: Arc<dyn ObjectStore>, config: &StorageConfig) -> Self {
        Self { store, bucket: config.bucket.clone(), prefix: config.prefix.clone() }
    }

    /// The key of an attempt's object or, ending in a slash, the prefix of the keys of its objects. The attempt is part of
    /// the key, so a worker that was taken for dead and comes back writes beside its successor's file, not over it.
    ///
    /// The tenant is the first part of it, so that a policy of the store can be for one tenant; that of the default tenant and of
    /// benchmarks is left out.
    #[must_use]
    pub fn object_key(&self, tenant: &str, id: Uuid, attempt: i32, request: &ExportRequest, file_name: &str) -> String {
        let tenant = match tenant {
            DEFAULT_TENANT | BENCHMARK_TENANT => String::new(),
            tenant => format!("{tenant}/"),
        };
        let folder = format!("{}{tenant}{id}/{attempt}/", self.prefix);
        match request.layout {
            Layout::File => {
                let suffix = request.compression.map_or("", |_| ".gz");
                format!("{folder}{file_name}{suffix}")
            }
            Layout::Files => folder,
        }
    }

    /// Deletes what an export has in the store: the object of that key or, where the key ends in `/`, all objects under it.
    pub async fn delete_result(&self, object_key: &str) -> Result<()> {
        if is_folder(object_key) { self.delete_prefix(object_key).await } else { self.delete(object_key).await }
    }

    /// Deletes every object under a prefix. It has to end in `/`, because `1` is also the beginning of `10/`, and to be
    /// more than what every key of the service begins with. What was deleted before an error stays deleted.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<()> {
        if !is_folder(prefix) || prefix == self.prefix {
            let problem = format!("{prefix:?} is not the prefix of one export");
            return Err(StorageError::invalid("DeleteObject", problem));
        }
        let mut pages = self.list_keys(prefix);
        while let Some(keys) = pages.try_next().await? {
            // One call each: some stores have no DeleteObjects, and others want a checksum for it that the SDK does not
            // send.
            let keys = stream::iter(keys).map(Ok);
            keys.try_for_each_concurrent(CONCURRENT_DELETIONS, |key| async move { self.delete(&key).await }).await?;
        }
        Ok(())
    }

    /// Removes everything an attempt may have left: its uploads and, in case its Complete got through, its object,
    /// unless that is the export's file. Where the key ends in `/` that is all uploads and objects under it.
    pub async fn remove_orphaned(&self, orphaned: &OrphanedObject) -> Result<()> {
        if let Some(id) = orphaned.upload_id.clone() {
            self.abort_upload(&MultipartUpload { key: orphaned.upload_key.clone(), id }).await?;
        }
        // The ledger does not know an upload whose id never arrived: the attempt was stopped while Create was on its
        // way, or the client repeated a Create whose answer was lost.
        let prefix = orphaned.object_key.as_str();
        for upload in self.list_uploads(prefix).await?.unwrap_or_default() {
            if upload.key == prefix || is_folder(prefix) {
                self.abort_upload(&upload).await?;
            }
        }
        if orphaned.owned {
            return Ok(());
        }
        self.delete_result(prefix).await
    }
}

/// Whether a key of the ledger stands for all objects under it.
fn is_folder(object_key: &str) -> bool {
    object_key.ends_with('/')
}
