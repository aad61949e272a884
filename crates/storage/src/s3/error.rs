//! Errors of the AWS SDK as [`StorageError`]s: which of them may pass.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::error::StorageError;

/// Codes of errors that pass although their HTTP status does not say so.
const TRANSIENT_CODES: [&str; 8] = [
    // An upload that existed when the attempt began was removed, or the store lost it. A new attempt makes a new one.
    "NoSuchUpload",
    // A worker that was taken for dead has sent the part again, and it has another ETag.
    "InvalidPart",
    // A bucket may still be created after the store came up empty.
    "NoSuchBucket",
    "ExpiredToken",
    "SlowDown",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
];

/// Codes of a store that serves nobody at the moment.
const OUTAGE_CODES: [&str; 3] = ["SlowDown", "ServiceUnavailable", "ServerBusy"];

/// Converts the error of one operation, for `map_err`.
pub(super) fn failed<E>(operation: &'static str) -> impl Fn(SdkError<E>) -> StorageError
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    move |error| {
        let code = error.code().map(str::to_owned);
        let status = status(&error);
        let transient = match &error {
            SdkError::ConstructionFailure(_) => false,
            SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => true,
            _ => {
                status.is_none_or(|status| status >= 500 || status == 429 || status == 408)
                    || code.as_deref().is_some_and(|code| TRANSIENT_CODES.contains(&code))
            }
        };
        let outage = is_outage(&error, code.as_deref(), status);
        let error = StorageError::answered(operation, code, status, transient, error);
        if outage { error.of_outage() } else { error }
    }
}

/// Whether the store is away. Credentials that cannot be found also end before anything is sent, and are no outage; nor is an
/// answer that cannot be read.
fn is_outage<E>(error: &SdkError<E>, code: Option<&str>, status: Option<u16>) -> bool {
    match error {
        SdkError::TimeoutError(_) => true,
        SdkError::DispatchFailure(failure) => failure.is_io() || failure.is_timeout() || failure.as_other().is_some(),
        SdkError::ServiceError(_) => {
            code.is_some_and(|code| OUTAGE_CODES.contains(&code)) || matches!(status, Some(429 | 502 | 503 | 504))
        }
        _ => false,
    }
}

/// The HTTP status of the answer, if there was one.
pub(super) fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}
