//! The body of a submission: limits of its content type, size, time and memory, and the JSON in it. The contents of the JSON
//! are checked in `validate`.

use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use serde_json::Value;

use super::body_budget::{BodyBudget, Share};
use super::limits::BODY_BYTES;
use super::strict_json;
use crate::problem::{RouteError, quoted};

/// Bytes of a body that is too large which are read before the answer. A client that is still sending when the connection is
/// closed often does not see the answer.
const MAX_READ_BYTES: usize = 16 * BODY_BYTES;

/// Time in which the whole body has to arrive.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

const BYTE_ORDER_MARK: &[u8] = "\u{FEFF}".as_bytes();

/// The body that a client has sent.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) json: Value,
    /// The bytes of the body. A `Value` loses the digits of large numbers.
    pub(super) text: Vec<u8>,
    /// What the body has of the memory for bodies, until the request is answered.
    _shares: Vec<Share>,
}

impl Body {
    /// A body that counts towards no budget, for tests and fuzzing.
    pub(super) fn parse(text: Vec<u8>) -> Result<Self, RouteError> {
        Self::parse_within(text, Vec::new())
    }

    fn parse_within(mut text: Vec<u8>, shares: Vec<Share>) -> Result<Self, RouteError> {
        // A byte order mark is not JSON, but a parser may ignore one (RFC 8259, section 8.1), and some programs always write it.
        if text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len());
        }
        let json = strict_json::parse(&text).map_err(|error| RouteError::Invalid(vec![error]))?;
        Ok(Self { json, text, _shares: shares })
    }
}

/// Reads and parses the body.
pub(super) async fn read(request: Request, budget: &BodyBudget) -> Result<Body, RouteError> {
    let (parts, body) = request.into_parts();
    check_content_type(&parts.headers)?;
    // A client with `Expect: 100-continue` waits for a first answer before it sends.
    let expects_continue = parts.headers.contains_key(header::EXPECT);
    let mut share = budget.text();
    let text = tokio::time::timeout(READ_TIMEOUT, collect(body, expects_continue, &mut share))
        .await
        .map_err(|_| RouteError::BodyTooSlow)??;
    if text.is_empty() {
        return Err(RouteError::invalid("body", "is empty; expected a JSON object"));
    }
    let parsed = budget.parsed(strict_json::memory_bound(&text)).await?;
    Body::parse_within(text, vec![share, parsed])
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

/// Collects the body. `share` grows with it.
async fn collect(body: axum::body::Body, expects_continue: bool, share: &mut Share) -> Result<Vec<u8>, RouteError> {
    let too_large = || RouteError::BodyTooLarge { limit: BODY_BYTES };
    if expects_continue && body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut received = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| RouteError::invalid("body", "ended before it was complete"))?;
        received += chunk.len();
        if received <= BODY_BYTES {
            share.grow_to(received).await?;
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = Vec::new();
            share.release();
            if received > MAX_READ_BYTES {
                break;
            }
        }
    }
    if received > BODY_BYTES { Err(too_large()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_in_front_is_ignored() {
        let body = Body::parse("\u{FEFF}{\"a\": 1}".into()).unwrap();
        assert_eq!((body.json["a"].as_u64(), &*body.text), (Some(1), &b"{\"a\": 1}"[..]));
        for bad in ["{\"a\": \u{FEFF}1}", "\u{FEFF}\u{FEFF}{}", "\u{FEFF}"] {
            assert!(Body::parse(bad.into()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn json_types_are_taken() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, good.parse().unwrap())]);
            assert!(check_content_type(&headers).is_ok(), "{good}");
        }
    }
}
