//! URLs that are signed for one object and a short time. One is as good as a password while it lives, so it is answered
//! and never logged.

use aws_sdk_s3::presigning::PresigningConfig;
use axum::http::Method;
use chrono::{DateTime, Utc};
use polyglot_ledger::Export;
use polyglot_storage::{Storage, StorageError};

use super::stored_file::Description;
use crate::problem::RouteError;
use crate::server::App;

/// Signs for one moment, so that all its URLs end together.
pub(crate) struct Signer<'a> {
    storage: &'a Storage,
    period: PresigningConfig,
}

impl<'a> Signer<'a> {
    pub(crate) fn new(app: &'a App) -> Result<Self, RouteError> {
        let period = PresigningConfig::expires_in(app.download.presign_ttl)
            .map_err(|error| RouteError::Internal(Box::new(error)))?;
        Ok(Self { storage: &app.storage, period })
    }

    /// When the URLs cease to work.
    pub(crate) fn expires_at(&self) -> DateTime<Utc> {
        (self.period.start_time() + self.period.expires()).into()
    }

    /// Of the file `name` under the export's prefix. The store is not asked whether it is there.
    pub(crate) async fn one_of_several(&self, export: &Export, prefix: &str, name: &str) -> Result<String, RouteError> {
        self.url(&Method::GET, &format!("{prefix}{name}"), Description::named(export, name)?).await
    }

    /// A signature is for one method, so a client that asked with HEAD gets a URL that it can follow with HEAD.
    pub(super) async fn url(
        &self,
        method: &Method,
        key: &str,
        Description { media_type, disposition, encoding }: Description,
    ) -> Result<String, RouteError> {
        let (client, bucket) = (&self.storage.public_client, &self.storage.bucket);
        let encoding = encoding.map(str::to_owned);
        let signed = if method == Method::HEAD {
            let head = client.head_object().bucket(bucket).key(key).response_content_type(media_type);
            let head = head.response_content_disposition(disposition).set_response_content_encoding(encoding);
            head.presigned(self.period.clone()).await.map_err(|error| StorageError::new("signing HeadObject", error))?
        } else {
            let get = client.get_object().bucket(bucket).key(key).response_content_type(media_type);
            let get = get.response_content_disposition(disposition).set_response_content_encoding(encoding);
            get.presigned(self.period.clone()).await.map_err(|error| StorageError::new("signing GetObject", error))?
        };
        Ok(signed.uri().to_owned())
    }
}
