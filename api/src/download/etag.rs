//! Entity tags: `If-None-Match` (RFC 9110, section 13.1.2), and the tag of a file that is unpacked on its way.

use axum::http::{HeaderMap, header};

/// Whether the client has this version of the file already. Tags are compared weakly, and `*` is any version.
pub(super) fn is_known(headers: &HeaderMap, etag: Option<&str>) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',').map(str::trim).collect::<Vec<_>>());
    tags.any(|tag| tag == "*" || etag.is_some_and(|etag| opaque(etag) == opaque(tag)))
}

/// The tag of the unpacked bytes of a compressed file: other bytes, so another tag.
pub(super) fn unpacked(etag: &str) -> String {
    match etag.strip_suffix('"') {
        Some(start) => format!("{start}-identity\""),
        None => etag.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_weakly() {
        for (header, known) in [
            ("\"a-2\"", true),
            ("W/\"a-2\"", true),
            ("\"x\", \"a-2\"", true),
            ("*", true),
            ("\"a\"", false),
            ("\"a-2-identity\"", false),
            ("a-2", false),
        ] {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, header.parse().unwrap())]);
            assert_eq!(is_known(&headers, Some("\"a-2\"")), known, "{header}");
        }
        assert!(!is_known(&HeaderMap::new(), Some("\"a-2\"")));
        assert_eq!(unpacked("\"a-2\""), "\"a-2-identity\"");
    }
}
