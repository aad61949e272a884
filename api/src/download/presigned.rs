//! Presigned URLs of objects. Whoever has such a URL can read the object until it expires, so URLs are never logged.

use axum::http::Method;
use chrono::{DateTime, Utc};
use polyglot_core::request::ObjectHeaders;
use polyglot_ledger::Export;
use polyglot_storage::{PresignedMethod, Storage, Validity};

use super::stored_file;
use crate::problem::RouteError;
use crate::state::AppState;

/// Signs URLs with one start time, so that all of them expire together.
pub(crate) struct Signer<'a> {
    storage: &'a Storage,
    validity: Validity,
}

impl<'a> Signer<'a> {
    pub(crate) fn new(app: &'a AppState) -> Self {
        Self { storage: &app.storage, validity: Validity::starting_now(app.download.presign_ttl) }
    }

    /// Time at which the URLs expire.
    pub(crate) fn expires_at(&self) -> DateTime<Utc> {
        self.validity.end().into()
    }

    /// URL of the file `name` under the export's prefix. The object is not looked up.
    pub(crate) async fn url_of_part(&self, export: &Export, prefix: &str, name: &str) -> Result<String, RouteError> {
        self.url(&Method::GET, &format!("{prefix}{name}"), &stored_file::headers_of(export, name)?).await
    }

    /// A signature is for one method, so a client that asked with HEAD gets a URL that it can follow with HEAD.
    pub(super) async fn url(&self, method: &Method, key: &str, headers: &ObjectHeaders) -> Result<String, RouteError> {
        let method = if method == Method::HEAD { PresignedMethod::Head } else { PresignedMethod::Get };
        Ok(self.storage.presign(method, key, headers, self.validity).await?.into_string())
    }
}
