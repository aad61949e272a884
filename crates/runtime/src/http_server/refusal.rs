//! Answers that the server gives by itself, without the service behind it: problem documents (RFC 9457) for clients that a
//! limit of connections, of time or of memory refuses.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::quota::QuotaExceeded;

/// Seconds after which a client may try again.
const RETRY_SECONDS: &str = "5";

/// Why a client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There are too many connections.
    Connections(QuotaExceeded),
    /// The head of a request did not arrive in time.
    HeadTooSlow,
    /// Answers that their clients have not read yet take all the memory that there is for them.
    UnreadAnswers(QuotaExceeded),
}

/// The parts of the problem document.
struct Problem {
    status: StatusCode,
    slug: &'static str,
    title: &'static str,
    detail: &'static str,
}

impl Refusal {
    fn problem(self) -> Problem {
        match self {
            Self::Connections(exceeded) => Problem {
                status: exceeded.status(),
                slug: "too-many-connections",
                title: "There are too many connections",
                detail: match exceeded {
                    QuotaExceeded::Peer => {
                        "Your address has as many connections as one may have. Close some, then try again."
                    }
                    QuotaExceeded::Total => "This server has as many connections as it takes. Try again.",
                },
            },
            Self::HeadTooSlow => Problem {
                status: StatusCode::REQUEST_TIMEOUT,
                slug: "head-too-slow",
                title: "The request did not arrive in time",
                detail: "Send the request line and all headers without long pauses.",
            },
            Self::UnreadAnswers(exceeded) => Problem {
                status: exceeded.status(),
                slug: "too-many-unread-answers",
                title: "Too many answers are not read yet",
                detail: match exceeded {
                    QuotaExceeded::Peer => "Read the answers to your earlier requests, then try again.",
                    QuotaExceeded::Total => "This server holds as many answers as it has memory for. Try again.",
                },
            },
        }
    }

    /// The answer to a request. The connection is closed after it.
    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let Problem { status, slug, title, detail } = self.problem();
        let document = json!({
            "type": format!("urn:polyglot:problem:{slug}"), "title": title, "status": status.as_u16(),
            "detail": detail, "error": detail,
        });
        let mut response = Response::new(Full::from(document.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        for (name, value) in [
            (CONTENT_TYPE, "application/problem+json"),
            (RETRY_AFTER, RETRY_SECONDS),
            (CACHE_CONTROL, "no-store"),
            // As every other answer of the api has them.
            (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (CONNECTION, "close"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// The same answer as the bytes to send, for a connection on which hyper has no request to answer.
    pub(super) fn bytes(self) -> Vec<u8> {
        let (head, body) = self.response().into_parts();
        let body = body.into_inner().unwrap_or_default();
        let mut bytes = format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n", head.status, body.len()).into_bytes();
        for (name, value) in &head.headers {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&body);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_a_whole_answer() {
        let bytes = String::from_utf8(Refusal::Connections(QuotaExceeded::Total).bytes()).unwrap();
        let (head, body) = bytes.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        for line in ["retry-after: 5", "connection: close", &format!("content-length: {}", body.len())] {
            assert!(head.lines().any(|found| found == line), "{head}");
        }
        let document: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(document["type"], "urn:polyglot:problem:too-many-connections");
        assert_eq!(document["status"], 503);
    }
}
