//! Runs the conformance suite of object stores against every store of the tests. A new store is a new module here.

mod behaviour;
mod suite;

use polyglot_devstack::embedded_s3::{EmbeddedS3, S3Keys, make_bucket};
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_storage::{S3Store, Storage, StorageConfig};
use polyglot_test_servers::TestServers;

use self::behaviour::Behaviour;

/// A store, its bucket, and what else has to live as long.
struct Store {
    storage: Storage,
    behaviour: &'static Behaviour,
    bucket: S3Store,
    embedded: Option<(EmbeddedS3, ScratchDir)>,
}

impl Store {
    async fn new(endpoint: &str, access_key: &str, secret_key: &str, behaviour: &'static Behaviour) -> Self {
        let config = StorageConfig {
            endpoint: Some(endpoint.to_owned()),
            public_endpoint: None,
            bucket: format!("conformance-{}", uuid::Uuid::new_v4().simple()),
            prefix: "exports/".to_owned(),
            region: None,
            static_credentials: Some((access_key.to_owned(), secret_key.to_owned()).into()),
            authorities: None,
            encryption: None,
        };
        let (storage, bucket) = (Storage::new(&config).await, S3Store::new(&config).await);
        Self { storage, behaviour, bucket, embedded: None }
    }

    /// The embedded store, in a folder of its own.
    async fn embedded() -> Self {
        let dir = ScratchDir::new("conformance").unwrap();
        let keys = S3Keys { access_key: "key".into(), secret_key: "secret".into() };
        let s3 = EmbeddedS3::start(dir.path(), 0, Some(keys)).await.unwrap();
        let store = Self::new(s3.endpoint(), "key", "secret", &behaviour::EMBEDDED).await;
        make_bucket(dir.path(), &store.storage.bucket).unwrap();
        Self { embedded: Some((s3, dir)), ..store }
    }

    /// The SeaweedFS of `devstack with-servers`.
    async fn seaweedfs(servers: &TestServers) -> Self {
        let TestServers { s3_endpoint, s3_access_key, s3_secret_key, .. } = servers;
        Self::new(s3_endpoint, s3_access_key, s3_secret_key, &behaviour::SEAWEEDFS).await
    }

    /// Deletes the bucket with all that is in it.
    async fn remove(self) {
        suite::empty(&self.storage).await;
        // A store in a folder of its own goes with the folder.
        if self.embedded.is_none() {
            self.bucket.delete_bucket().await.unwrap();
        }
    }
}

/// One test for each case of the suite, in a module for each store.
macro_rules! every_store {
    ($($case:ident)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let store = super::Store::embedded().await;
                super::suite::$case(&store.storage, store.behaviour).await;
                store.remove().await;
            })*
        }

        mod seaweedfs {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let store = super::Store::seaweedfs(&polyglot_test_servers::needs_servers!()).await;
                store.storage.ensure_bucket().await.unwrap();
                super::suite::$case(&store.storage, store.behaviour).await;
                store.remove().await;
            })*
        }
    };
}

every_store! {
    a_bucket_is_created_once_and_checked
    an_object_keeps_its_bytes_and_headers
    a_missing_object_is_not_found
    bytes_that_differ_from_their_checksum_are_refused
    a_multipart_upload_becomes_one_object
    a_file_is_a_body_too
    a_part_that_differs_from_its_checksum_is_refused
    a_part_can_be_sent_again
    an_upload_without_one_of_its_parts_is_not_completed
    a_small_part_before_the_last_is_refused
    an_unknown_upload_is_not_completed
    a_completed_upload_no_longer_exists
    an_aborted_upload_no_longer_exists
    unfinished_uploads_are_listed
    a_range_is_read
    a_presigned_url_does_ranges
    a_presigned_url_needs_no_credentials
    a_presigned_url_works_as_it_was_signed_and_for_its_time
    deletion_of_a_missing_object_succeeds
    a_folder_is_deleted_and_nothing_beside_it
    an_orphaned_attempt_is_removed
}
