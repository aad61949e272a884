//! The bucket of a system, as the tests see it: directly, past any proxy between the services and the object store.

use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_ledger::Connections;
use polyglot_runtime::config::Environment;
use polyglot_storage::Storage;

/// Access to one bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    storage: Storage,
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
        Self { storage: Storage::new(&connections.storage).await }
    }

    /// Keys of all objects, in their order.
    pub async fn objects(&self) -> Vec<String> {
        let (client, bucket) = (&self.storage.client, &self.storage.bucket);
        let listed = client.list_objects_v2().bucket(bucket).send().await.unwrap();
        let mut keys: Vec<String> = listed.contents().iter().filter_map(|it| it.key().map(str::to_owned)).collect();
        keys.sort_unstable();
        keys
    }

    /// Key and id of every multipart upload that was neither completed nor aborted.
    pub async fn uploads(&self) -> Vec<(String, String)> {
        let (client, bucket) = (&self.storage.client, &self.storage.bucket);
        let listed = client.list_multipart_uploads().bucket(bucket).send().await.unwrap();
        let text = |value: Option<&str>| value.unwrap_or("?").to_owned();
        listed.uploads().iter().map(|it| (text(it.key()), text(it.upload_id()))).collect()
    }

    /// Whether the store still knows the multipart upload.
    pub async fn has_upload(&self, key: &str, id: &str) -> bool {
        let (client, bucket) = (&self.storage.client, &self.storage.bucket);
        client.list_parts().bucket(bucket).key(key).upload_id(id).send().await.is_ok()
    }

    /// Length and CRC-32 of an object, read in pieces, for objects that are too large for memory.
    pub async fn length_and_crc32(&self, key: &str) -> (u64, u32) {
        let (client, bucket) = (&self.storage.client, &self.storage.bucket);
        let mut body = client.get_object().bucket(bucket).key(key).send().await.unwrap().body;
        let (mut length, mut crc) = (0, crc32fast::Hasher::new());
        while let Some(piece) = body.try_next().await.unwrap() {
            length += u64::try_from(piece.len()).unwrap();
            crc.update(&piece);
        }
        (length, crc.finalize())
    }

    /// Deletes the bucket and every object in it.
    pub async fn remove(&self) {
        let (client, bucket) = (&self.storage.client, &self.storage.bucket);
        for key in self.objects().await {
            client.delete_object().bucket(bucket).key(key).send().await.unwrap();
        }
        client.delete_bucket().bucket(bucket).send().await.ok();
    }
}
