//! The cookie of a session of the page, as a request has it.

use axum::http::{HeaderMap, header};

pub(crate) const COOKIE: &str = "polyglot_session";
/// Browsers keep a cookie with `__Host-` only from the host itself, over TLS.
pub(crate) const COOKIE_WITH_TLS: &str = "__Host-polyglot_session";

/// The token of the session's cookie.
pub(crate) fn session_token(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let cookies: Vec<(&str, &str)> =
        values.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('=')).collect();
    // The one with `__Host-` first: another page of the same domain cannot have set it.
    let named = |name: &str| cookies.iter().find(|(known, _)| *known == name).map(|(_, token)| *token);
    named(COOKIE_WITH_TLS).or_else(|| named(COOKIE)).filter(|token| !token.is_empty())
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
            (&["polyglot_session=planted; __Host-polyglot_session=own"], Some("own")),
            (&["polyglot_session="], None),
            (&["xpolyglot_session=abc"], None),
            (&["polyglot_session"], None),
            (&[], None),
        ] {
            let headers: HeaderMap =
                values.iter().map(|value| (header::COOKIE, HeaderValue::from_static(value))).collect();
            assert_eq!(session_token(&headers), expected, "{values:?}");
        }
    }
}
