//! The file of a completed export in the object store: its headers, and asking the store about it.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use axum::http::{HeaderMap, HeaderValue, header};
use polyglot_formats::{Format, ObjectHeaders, UnknownFormat};
use polyglot_ledger::Export;
use polyglot_storage::StorageError;

use crate::patience;
use crate::problem::RouteError;
use crate::server::App;

/// What a file is called and how it is to be read. It follows from the request alone, so that both deliveries
/// say the same, whatever the store has kept of the headers that the worker gave it.
pub(super) struct Description {
    pub(super) media_type: &'static str,
    pub(super) disposition: String,
    pub(super) encoding: Option<&'static str>,
}

impl Description {
    pub(super) fn of(export: &Export) -> Result<Self, UnknownFormat> {
        Self::named(export, &Format::of(&export.request)?.file_name(export.id))
    }

    /// Of one of the files of a result that is several.
    pub(super) fn named(export: &Export, name: &str) -> Result<Self, UnknownFormat> {
        let ObjectHeaders { content_type, content_encoding, content_disposition } =
            Format::of(&export.request)?.object_headers(&export.request, name);
        Ok(Self { media_type: content_type, disposition: content_disposition, encoding: content_encoding })
    }

    pub(super) fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        let disposition = HeaderValue::try_from(self.disposition).expect("a UUID and a format are ASCII");
        headers.insert(header::CONTENT_DISPOSITION, disposition);
        if let Some(encoding) = self.encoding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        headers
    }
}

/// The key of a completed export's object.
pub(super) fn key(export: &Export) -> Result<&str, RouteError> {
    export.object_key.as_deref().ok_or(RouteError::FileMissing { id: export.id })
}

/// What the store knows of the object; a completed export without one is a `FileMissing`.
pub(super) async fn head(app: &App, export: &Export) -> Result<HeadObjectOutput, RouteError> {
    let call = app.storage.client.head_object().bucket(&app.storage.bucket).key(key(export)?);
    patience::store_answer(call.send()).await?.map_err(|error| lost_or_failed("HeadObject", error, export))
}

/// Tells a lost file from a store that does not work.
pub(super) fn lost_or_failed<E>(operation: &'static str, error: SdkError<E>, export: &Export) -> RouteError
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match error.raw_response().map(|response| response.status().as_u16()) {
        Some(404) => RouteError::FileMissing { id: export.id },
        _ => StorageError::new(operation, error).into(),
    }
}
