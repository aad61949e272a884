//! The cookie of a session of the page, as a request has it.

use axum::http::{HeaderMap, header};

pub(crate) const COOKIE: &str = "polyglot_session";
/// Browsers keep a cookie with `__Host-` only from the host itself, over TLS.
pub(crate) const COOKIE_WITH_TLS: &str = "__Host-polyglot_session";

/// The token of the session's cookie. Where cookies go over TLS alone (`secure`) it is the one that no other page of the same
/// domain can have set.
pub(crate) fn session_token(headers: &HeaderMap, secure: bool) -> Option<&str> {
    let name = if secure { COOKIE_WITH_TLS } else { COOKIE };
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = values.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.find(|(known, _)| *known == name).map(|(_, token)| token).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_token_is_found_among_other_cookies() {
        for (values, expected) in [
            (&["polyglot_session=abc"][..], Some("abc")),
            (&["a=b; polyglot_session=abc; c=d"], Some("abc")),
            (&["a=b", "polyglot_session=abc"], Some("abc")),
            (&["polyglot_session="], None),
            (&["xpolyglot_session=abc"], None),
            (&["polyglot_session"], None),
            (&[], None),
        ] {
            let headers: HeaderMap =
                values.iter().map(|value| (header::COOKIE, HeaderValue::from_static(value))).collect();
            assert_eq!(session_token(&headers, false), expected, "{values:?}");
        }
        let planted = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static("polyglot_session=planted"))]);
        assert_eq!(session_token(&planted, true), None);
        let both = HeaderValue::from_static("polyglot_session=planted; __Host-polyglot_session=own");
        assert_eq!(session_token(&HeaderMap::from_iter([(header::COOKIE, both)]), true), Some("own"));
    }
}
