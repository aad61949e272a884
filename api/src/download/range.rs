//! The `Range` and `If-Range` headers (RFC 9110, sections 13.1.5 and 14). One range is enough to resume a
//! download; a request for several gets the whole file, which the RFC allows.

use axum::http::{HeaderMap, HeaderValue, header};

/// The part of a file of known size that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// Both positions are inclusive and inside of the file.
    Bytes {
        first: u64,
        last: u64,
    },
    /// No byte of the range is in the file.
    Outside,
}

/// The part that `headers` ask for: the whole file if there is no range, or one that cannot be parsed.
pub(super) fn requested(headers: &HeaderMap, size: u64) -> Part {
    let mut values = headers.get_all(header::RANGE).iter();
    match (values.next(), values.next()) {
        (Some(range), None) => range.to_str().ok().and_then(|range| parse(range, size)).unwrap_or(Part::Whole),
        _ => Part::Whole,
    }
}

/// Whether the client's partial copy is of this version of the file. A date or a weak tag cannot prove that.
pub(super) fn is_current(if_range: &HeaderValue, etag: Option<&str>) -> bool {
    etag.is_some_and(|etag| etag.starts_with('"') && if_range.as_bytes() == etag.as_bytes())
}

fn parse(range: &str, size: u64) -> Option<Part> {
    let (unit, spec) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = spec.split_once('-')?;
    let part = match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix)? {
            0 => Part::Outside,
            _ if size == 0 => Part::Outside,
            suffix => Part::Bytes { first: size.saturating_sub(suffix), last: size - 1 },
        },
        (first, last) => {
            let first = number(first)?;
            let last = if last.is_empty() { u64::MAX } else { number(last)? };
            if last < first {
                return None;
            }
            if first >= size { Part::Outside } else { Part::Bytes { first, last: last.min(size - 1) } }
        }
    };
    Some(part)
}

/// Parses digits. A number that does not fit is past the end of any file.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let bytes = |first, last| Part::Bytes { first, last };
        for (range, size, part) in [
            ("bytes=0-0", 10, bytes(0, 0)),
            ("bytes=2-5", 10, bytes(2, 5)),
            ("Bytes = 2 - 5", 10, bytes(2, 5)),
            ("bytes=2-", 10, bytes(2, 9)),
            ("bytes=2-99999999999999999999999", 10, bytes(2, 9)),
            ("bytes=-3", 10, bytes(7, 9)),
            ("bytes=-30", 10, bytes(0, 9)),
            ("bytes=10-", 10, Part::Outside),
            ("bytes=99999999999999999999999-", 10, Part::Outside),
            ("bytes=-0", 10, Part::Outside),
            ("bytes=0-", 0, Part::Outside),
            ("bytes=-1", 0, Part::Outside),
            ("bytes=5-2", 10, Part::Whole),
            ("bytes=0-1,4-5", 10, Part::Whole),
            ("bytes=-", 10, Part::Whole),
            ("bytes=", 10, Part::Whole),
            ("bytes=+1-2", 10, Part::Whole),
            ("bytes=a-b", 10, Part::Whole),
            ("rows=0-1", 10, Part::Whole),
            ("nonsense", 10, Part::Whole),
        ] {
            let headers = HeaderMap::from_iter([(header::RANGE, range.parse().unwrap())]);
            assert_eq!(requested(&headers, size), part, "{range} of {size}");
        }
        assert_eq!(requested(&HeaderMap::new(), 10), Part::Whole);
    }

    #[test]
    fn only_the_same_strong_tag_is_current() {
        let current = |value: &str, etag| is_current(&value.parse().unwrap(), etag);
        assert!(current("\"abc-2\"", Some("\"abc-2\"")));
        assert!(!current("\"abc-2\"", Some("\"abc-3\"")));
        assert!(!current("W/\"abc-2\"", Some("W/\"abc-2\"")));
        assert!(!current("Wed, 21 Oct 2015 07:28:00 GMT", Some("\"abc-2\"")));
        assert!(!current("\"abc-2\"", None));
    }
}
