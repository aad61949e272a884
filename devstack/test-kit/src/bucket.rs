//! The bucket of a system, as the tests see it: directly, past any proxy between the services and the object store.

use futures_util::TryStreamExt;
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_ledger::Connections;
use polyglot_runtime::config::Environment;
use polyglot_storage::{ObjectStore, S3Store};

/// Access to one bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    store: S3Store,
}

impl Bucket {
    /// The bucket that the variables of a service name.
    pub(crate) async fn of_service(env: &[(String, String)]) -> Self {
        let mut variables = env.to_vec();
        // The client prefers keys in files to those in this process's own environment.
        let keys = ScratchDir::new("keys").unwrap();
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            let value = &variables.iter().find(|(known, _)| known == name).unwrap().1;
            let path = keys.path().join(name);
            std::fs::write(&path, value).unwrap();
            variables.push((format!("{name}_FILE"), path.to_str().unwrap().to_owned()));
        }
        let pairs: Vec<(&str, &str)> = variables.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let connections = Connections::from_environment(&Environment::fixed(&pairs)).unwrap();
        Self { store: S3Store::new(&connections.storage).await }
    }

    /// Keys of all objects, in their order.
    pub async fn objects(&self) -> Vec<String> {
        let mut keys = self.store.list_keys("").try_concat().await.unwrap();
        keys.sort_unstable();
        keys
    }

    /// Key and id of every multipart upload that was neither completed nor aborted.
    pub async fn uploads(&self) -> Vec<(String, String)> {
        let uploads = self.store.list_uploads("").await.unwrap().unwrap();
        uploads.into_iter().map(|upload| (upload.key, upload.id)).collect()
    }

    /// Whether the store still knows the multipart upload.
    pub async fn has_upload(&self, key: &str, id: &str) -> bool {
        let uploads = self.store.list_uploads(key).await.unwrap().unwrap();
        uploads.iter().any(|upload| upload.key == key && upload.id == id)
    }

    /// Length and CRC-32 of an object, read in pieces, for objects that are too large for memory.
    pub async fn length_and_crc32(&self, key: &str) -> (u64, u32) {
        let mut body = self.store.get(key, None).await.unwrap().body;
        let (mut length, mut crc) = (0, crc32fast::Hasher::new());
        while let Some(piece) = body.try_next().await.unwrap() {
            length += u64::try_from(piece.len()).unwrap();
            crc.update(&piece);
        }
        (length, crc.finalize())
    }

    /// Deletes the bucket and every object in it.
    pub async fn remove(&self) {
        for key in self.objects().await {
            self.store.delete(&key).await.unwrap();
        }
        self.store.delete_bucket().await.ok();
    }
}
