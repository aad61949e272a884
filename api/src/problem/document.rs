//! A `RouteError` as an HTTP response, as a problem document (RFC 9457), and as a line of the log.

use std::sync::Arc;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use polyglot_core::failure::chain;
use polyglot_core::tenant_limits::LimitReached;
use serde::Serialize;
use tracing::Level;
use utoipa::ToSchema;

use super::answer::Answer;
use super::field_error::FieldError;
use super::help::link;
use super::route_error::RouteError;

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem<'a> {
    /// `urn:polyglot:problem:` and a name that stays the same.
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    /// What happened, in words.
    detail: &'a str,
    /// The path that was asked for.
    instance: &'a str,
    /// As in the header X-Request-Id, and in the server's log.
    request_id: &'a str,
    /// The same words as `detail`, for clients that were written before there was a problem document.
    error: &'a str,
    /// Each mistake of a request that is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    errors: Option<&'a [FieldError]>,
    /// Of an export that has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    error_code: Option<&'a str>,
    /// The limit of the tenant that is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    limit: Option<ReachedLimit>,
}

/// A limit, and what the tenant has of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReachedLimit {
    /// As in the file that the operator names in TENANT_LIMITS.
    #[schema(example = "queued")]
    name: &'static str,
    max: u64,
    used: u64,
}

impl Answer<'_> {
    /// The problem document. `instance` is the path of the request.
    pub(crate) fn document(&self, instance: &str, request_id: &str) -> serde_json::Value {
        let document = Problem {
            kind: format!("urn:polyglot:problem:{}", self.slug),
            title: self.title,
            status: self.status.as_u16(),
            error: &self.detail,
            detail: &self.detail,
            instance,
            request_id,
            errors: self.errors,
            error_code: self.error_code,
            limit: self.limit.map(|LimitReached { limit, max, used, .. }| ReachedLimit {
                name: limit.name(),
                max,
                used,
            }),
        };
        serde_json::to_value(document).expect("a struct of strings serializes")
    }
}

impl RouteError {
    /// Logs the error if the operator can do something about it.
    pub(crate) fn log(&self) {
        match Answer::to(self).log_level {
            Some(Level::ERROR) => tracing::error!(error = chain(self), "request failed"),
            Some(_) => tracing::warn!(error = chain(self), "request failed"),
            None => {}
        }
    }
}

/// The head of the response. The outermost layer (`request_layer`) adds the document: only it knows the path and the
/// request id.
impl IntoResponse for RouteError {
    fn into_response(self) -> Response {
        let answer = Answer::to(&self);
        let mut response = answer.status.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::LINK, link(answer.slug));
        if let Some(seconds) = answer.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(size) = answer.file_size {
            let range = HeaderValue::try_from(format!("bytes */{size}")).expect("digits and ASCII are a header value");
            headers.insert(header::CONTENT_RANGE, range);
        }
        if let Some(challenge) = answer.challenge {
            let challenge = HeaderValue::try_from(challenge).expect("the names of scopes are ASCII");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use polyglot_core::status::Status;

    use super::*;

    #[test]
    fn an_export_that_is_under_way_says_when_to_come_back() {
        let response = RouteError::ExportNotFinished { status: Status::Running, retry_after: 7 }.into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
    }

    #[test]
    fn a_range_that_cannot_be_had_says_the_size() {
        let response = RouteError::RangeOutside { size: 17 }.into_response();
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(response.headers()[header::CONTENT_RANGE], "bytes */17");
    }
}
