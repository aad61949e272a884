//! Deletion of objects and uploads by the service, with the embedded S3 as the store.

use aws_sdk_s3::primitives::ByteStream;
use polyglot_devstack::embedded_s3::{EmbeddedS3, S3Keys, make_bucket};
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_storage::StorageConfig;
use polyglot_storage::{OrphanedObject, Storage};

const BUCKET: &str = "files";

struct Store {
    _dir: ScratchDir,
    _s3: EmbeddedS3,
    storage: Storage,
}

impl Store {
    async fn start() -> Self {
        let dir = ScratchDir::new("storage").unwrap();
        make_bucket(dir.path(), BUCKET).unwrap();
        let keys = S3Keys { access_key: "key".into(), secret_key: "secret".into() };
        let s3 = EmbeddedS3::start(dir.path(), 0, Some(keys)).await.unwrap();
        let storage = Storage::new(&StorageConfig {
            endpoint: Some(s3.endpoint().to_owned()),
            public_endpoint: None,
            bucket: BUCKET.to_owned(),
            prefix: "all/".to_owned(),
            region: None,
            static_credentials: Some(("key".to_owned(), "secret".to_owned())),
        })
        .await;
        Self { _dir: dir, _s3: s3, storage }
    }

    async fn put(&self, key: &str) {
        let put = self.storage.client.put_object().bucket(BUCKET).key(key).body(ByteStream::from_static(b"x"));
        put.send().await.unwrap();
    }

    async fn begin(&self, key: &str) {
        self.storage.client.create_multipart_upload().bucket(BUCKET).key(key).send().await.unwrap();
    }

    /// The keys of all objects, and of all unfinished uploads.
    async fn keys(&self) -> (Vec<String>, Vec<String>) {
        let objects = self.storage.client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
        let uploads = self.storage.client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
        let objects = objects.contents().iter().filter_map(|object| object.key().map(str::to_owned));
        let uploads = uploads.uploads().iter().filter_map(|upload| upload.key().map(str::to_owned));
        (objects.collect(), uploads.collect())
    }
}

fn leftover(object_key: &str, owned: bool) -> OrphanedObject {
    let object_key = object_key.to_owned();
    OrphanedObject { upload_key: object_key.clone(), object_key, upload_id: None, owned }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_prefix_goes_and_nothing_beside_it() {
    let store = Store::start().await;
    // More than one page of the list.
    for number in 0..1005 {
        store.put(&format!("all/x/1/part-{number:05}.csv")).await;
    }
    for key in ["all/x/10/part-00001.csv", "all/x/2/part-00001.csv"] {
        store.put(key).await;
    }
    store.storage.delete_result("all/x/1/").await.unwrap();
    assert_eq!(store.keys().await.0, ["all/x/10/part-00001.csv", "all/x/2/part-00001.csv"]);
    // A repeat finds nothing to do.
    store.storage.delete_result("all/x/1/").await.unwrap();
    for refused in ["all/x/1", "all/", ""] {
        assert!(!store.storage.delete_prefix(refused).await.unwrap_err().transient, "{refused:?}");
    }
    store.storage.delete_result("all/x/2/part-00001.csv").await.unwrap();
    assert_eq!(store.keys().await.0, ["all/x/10/part-00001.csv"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_attempt_at_several_files_has_left_is_removed() {
    let store = Store::start().await;
    let (mine, other) = ("all/x/1/part-00001.csv", "all/x/10/part-00001.csv");
    for key in [mine, other] {
        store.put(key).await;
        store.begin(key).await;
    }
    store.begin("all/x/1/part-00002.csv").await;
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    // Of files that are the export's only the unfinished uploads are left over.
    store.storage.remove_orphaned(&leftover("all/x/1/", true)).await.unwrap();
    assert_eq!(store.keys().await, (keys(&[mine, other]), keys(&[other])));
    store.storage.remove_orphaned(&leftover("all/x/1/", false)).await.unwrap();
    assert_eq!(store.keys().await, (keys(&[other]), keys(&[other])));
}
