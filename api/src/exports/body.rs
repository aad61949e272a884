//! The body of a submission: its content type, its size, its time, and the JSON in it. What the JSON says is
//! `validate`'s.

use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use serde_json::Value;

use super::limits::BODY_BYTES;
use super::strict_json;
use crate::problem::{RouteError, quoted};

/// A client that is still sending when it is refused often never sees the answer, so this much is read and
/// thrown away first.
const DISCARDED: usize = 16 * BODY_BYTES;

const PATIENCE: Duration = Duration::from_secs(15);

/// What a client sent.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) json: Value,
    /// As it came, for what a `Value` cannot hold.
    pub(super) text: Vec<u8>,
}

impl Body {
    pub(super) fn parse(text: Vec<u8>) -> Result<Self, RouteError> {
        let json = strict_json::parse(&text)
            .map_err(|error| RouteError::invalid("body", format!("is not usable JSON: {error}")))?;
        Ok(Self { json, text })
    }
}

/// The JSON of the body, or what is wrong with it.
pub(super) async fn read(request: Request) -> Result<Body, RouteError> {
    let (parts, body) = request.into_parts();
    check_content_type(&parts.headers)?;
    // Such a client asks before it sends.
    let asks_first = parts.headers.contains_key(header::EXPECT);
    let bytes =
        tokio::time::timeout(PATIENCE, collect(body, asks_first)).await.map_err(|_| RouteError::BodyTooSlow)??;
    if bytes.is_empty() {
        return Err(RouteError::invalid("body", "is empty; expected a JSON object"));
    }
    Body::parse(bytes)
}

fn check_content_type(headers: &HeaderMap) -> Result<(), RouteError> {
    const EXPECTED: &str = "expected application/json";
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(RouteError::invalid("Content-Type", format!("is missing; {EXPECTED}")));
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        Ok(())
    } else {
        Err(RouteError::invalid("Content-Type", format!("{EXPECTED}, but it is {}", quoted(&text))))
    }
}

async fn collect(body: axum::body::Body, asks_first: bool) -> Result<Vec<u8>, RouteError> {
    let too_large = || RouteError::BodyTooLarge { limit: BODY_BYTES };
    if asks_first && body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut seen = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| RouteError::invalid("body", "ended before it was complete"))?;
        seen += chunk.len();
        if seen <= BODY_BYTES {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = Vec::new();
            if seen > DISCARDED {
                break;
            }
        }
    }
    if seen > BODY_BYTES { Err(too_large()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_types_are_taken() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, good.parse().unwrap())]);
            assert!(check_content_type(&headers).is_ok(), "{good}");
        }
    }
}
