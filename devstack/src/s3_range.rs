//! Ranges of objects in the embedded S3, as RFC 9110 has them and S3 does them: s3s refuses a `Range` that it cannot parse, does
//! not know `If-Range`, and s3s-fs fails where a suffix is longer than the object.

use hyper::header::{AUTHORIZATION, IF_RANGE, RANGE};
use hyper::{HeaderMap, Request};
use s3s::dto::{ETag, Range};

/// Removes a `Range` that is to be ignored: several ranges, another unit, a range that ends before it begins. One that is part
/// of the request's signature stays, for without it the signature would not match.
pub(crate) fn ignore_unusable<B>(request: &mut Request<B>) {
    let mut values = request.headers().get_all(RANGE).iter();
    let usable = match (values.next(), values.next()) {
        (None, _) => return,
        (Some(range), None) => range.to_str().is_ok_and(|range| Range::parse(range).is_ok()),
        _ => false,
    };
    if !usable && !is_signed(request) {
        request.headers_mut().remove(RANGE);
    }
}

fn is_signed<B>(request: &Request<B>) -> bool {
    let signed = |list: &str| list.split(';').any(|name| name.eq_ignore_ascii_case("range"));
    let in_header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value.split([' ', ',']).filter_map(|part| part.strip_prefix("SignedHeaders=")).any(signed)
    });
    let query = request.uri().query().unwrap_or_default();
    let in_query = query.split('&').filter_map(|pair| pair.strip_prefix("X-Amz-SignedHeaders="));
    in_header || in_query.map(|list| list.replace("%3B", ";").replace("%3b", ";")).any(|list| signed(&list))
}

/// The range as s3s-fs can read it: a suffix is counted from the start of the object. Of an empty object no suffix exists, which
/// a range behind the end says.
pub(crate) fn from_start(range: Range, size: u64) -> Range {
    match range {
        Range::Suffix { length } if length > 0 => Range::Int { first: size.saturating_sub(length), last: None },
        other => other,
    }
}

/// Whether `If-Range` allows a part: there is none, or it is the strong tag of the object. A date cannot prove that the object
/// is the same.
pub(crate) fn is_current(headers: &HeaderMap, etag: Option<&ETag>) -> bool {
    let Some(if_range) = headers.get(IF_RANGE) else { return true };
    matches!(etag, Some(ETag::Strong(tag)) if if_range.as_bytes() == format!("\"{tag}\"").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(request: hyper::http::request::Builder) -> bool {
        let mut request = request.body(()).unwrap();
        ignore_unusable(&mut request);
        request.headers().contains_key(RANGE)
    }

    #[test]
    fn ranges_that_cannot_be_used_are_ignored() {
        for (range, is_kept) in [
            ("bytes=0-1", true),
            ("bytes=5-", true),
            ("bytes=-5", true),
            ("bytes=5-2", false),
            ("bytes=0-1,4-5", false),
            ("rows=0-1", false),
            ("nonsense", false),
        ] {
            assert_eq!(kept(Request::get("/b/k").header(RANGE, range)), is_kept, "{range}");
        }
        assert!(!kept(Request::get("/b/k").header(RANGE, "bytes=0-1").header(RANGE, "bytes=4-5")));
    }

    #[test]
    fn what_is_signed_is_left_alone() {
        let header = "AWS4-HMAC-SHA256 Credential=k/20260101/r/s3/aws4_request, SignedHeaders=host;range, Signature=0";
        assert!(kept(Request::get("/b/k").header(RANGE, "rows=0-1").header(AUTHORIZATION, header)));
        let query = "/b/k?X-Amz-SignedHeaders=host%3Brange";
        assert!(kept(Request::get(query).header(RANGE, "rows=0-1")));
        assert!(!kept(Request::get("/b/k?X-Amz-SignedHeaders=host").header(RANGE, "rows=0-1")));
    }
}
