//! The `Accept-Encoding` header (RFC 9110, section 12.5.3): whether a client takes a content coding.

use axum::http::{HeaderMap, header};

/// Whether a client takes the coding, `gzip` or `zstd`. One that sends no header takes any.
pub(super) fn accepts(headers: &HeaderMap, coding: &str) -> bool {
    let mut values = headers.get_all(header::ACCEPT_ENCODING).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let (mut named, mut any) = (None, None);
    for text in values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')) {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        // A quality that cannot be read does not exclude the coding.
        let taken = quality.and_then(|quality| quality.trim().parse::<f32>().ok()).is_none_or(|quality| quality > 0.0);
        if name.eq_ignore_ascii_case(coding) || (coding == "gzip" && name.eq_ignore_ascii_case("x-gzip")) {
            named = Some(taken);
        } else if name == "*" {
            any = Some(taken);
        }
    }
    named.or(any).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read() {
        for (header, accepted) in [
            ("gzip", true),
            ("GZIP;q=0.5, identity", true),
            ("deflate, x-gzip", true),
            ("*", true),
            ("identity;q=0, *;q=0.1", true),
            ("gzip;q=soon", true),
            ("", false),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip; q=0.000, *", false),
            ("*;q=0", false),
            ("br, zstd", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, header.parse().unwrap())]);
            assert_eq!(accepts(&headers, "gzip"), accepted, "{header}");
        }
        assert!(accepts(&HeaderMap::new(), "gzip"));
    }
}
