//! Delivery by the object store: a redirect to a URL that is signed for this one object and a short time. The
//! URL is as good as a password while it lives, so it is answered and never logged.

use aws_sdk_s3::presigning::PresigningConfig;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use polyglot_export::ledger::Export;
use polyglot_export::storage::StorageError;

use super::stored_file::{self, Description};
use crate::problem::RouteError;
use crate::server::App;

/// 302 to the file. The store is asked first: a client that is sent to a missing object or a dead server is told
/// so in the store's own words, which it cannot act on.
pub(super) async fn answer(app: &App, export: &Export, method: &Method) -> Result<Response, RouteError> {
    stored_file::head(app, export).await?;
    let signing = PresigningConfig::expires_in(app.download.presign_ttl)
        .map_err(|error| RouteError::Internal(Box::new(error)))?;
    let Description { media_type, disposition, encoding } = Description::of(export);
    let (bucket, key) = (&app.storage.bucket, stored_file::key(export)?);
    // A signature is for one method, so a client that asked with HEAD gets a URL that it can follow with HEAD.
    let signed = if method == Method::HEAD {
        app.storage
            .public_client
            .head_object()
            .bucket(bucket)
            .key(key)
            .response_content_type(media_type)
            .response_content_disposition(disposition)
            .set_response_content_encoding(encoding.map(str::to_owned))
            .presigned(signing)
            .await
            .map_err(|error| StorageError::new("signing HeadObject", error))?
    } else {
        app.storage
            .public_client
            .get_object()
            .bucket(bucket)
            .key(key)
            .response_content_type(media_type)
            .response_content_disposition(disposition)
            .set_response_content_encoding(encoding.map(str::to_owned))
            .presigned(signing)
            .await
            .map_err(|error| StorageError::new("signing GetObject", error))?
    };
    let location = HeaderValue::try_from(signed.uri()).map_err(|error| RouteError::Internal(Box::new(error)))?;
    let headers = [(header::LOCATION, location), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::FOUND, headers).into_response())
}
