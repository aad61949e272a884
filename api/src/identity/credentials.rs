//! The credentials in the headers of a request: a bearer token, or the cookie of the page's session.

use axum::http::{HeaderMap, header};

use super::api_key::PresentedKey;
use super::cookie::session_token;
use crate::problem::RouteError;

/// Longest `Authorization` header that is looked at.
const MAX_BYTES: usize = 8192;

/// What a request presents, by its form alone.
pub(super) enum Credentials<'h> {
    None,
    ApiKey(PresentedKey),
    /// Something else in an `Authorization: Bearer`, such as a JWT.
    Token(&'h str),
    /// The token of a session.
    Session(&'h str),
}

impl<'h> Credentials<'h> {
    /// # Errors
    /// When there is an `Authorization` header that is no bearer token of a known form. The cookie does not count beside it.
    pub(super) fn of(headers: &'h HeaderMap, secure_cookies: bool) -> Result<Self, RouteError> {
        let refused = || RouteError::NotAuthenticated { presented: true };
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Ok(session_token(headers, secure_cookies).map_or(Self::None, Self::Session));
        };
        if values.next().is_some() || value.len() > MAX_BYTES {
            return Err(refused());
        }
        let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(refused)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused());
        }
        let token = token.trim();
        match PresentedKey::parse(token) {
            Some(key) => Ok(Self::ApiKey(key)),
            // One that is meant to be a key is not shown to anything that reads tokens.
            None if token.is_empty() || PresentedKey::is_meant_by(token) => Err(refused()),
            None => Ok(Self::Token(token)),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::identity::api_key::GeneratedKey;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_bearer_token_is_read_and_everything_else_refused() {
        let key = GeneratedKey::new();
        for good in [format!("Bearer {}", key.text), format!("bearer  {}", key.text)] {
            let headers = headers(&[&good]);
            assert!(
                matches!(Credentials::of(&headers, false), Ok(Credentials::ApiKey(found)) if found.id == key.id),
                "{good}"
            );
        }
        assert!(matches!(Credentials::of(&HeaderMap::new(), false), Ok(Credentials::None)));
        assert!(matches!(Credentials::of(&headers(&["Bearer a.b.c"]), false), Ok(Credentials::Token("a.b.c"))));
        let long = format!("Bearer {}{}", key.text, " ".repeat(MAX_BYTES));
        for bad in [
            "",
            "Bearer",
            "Bearer  ",
            &format!("Bearer {}", &key.text[..key.text.len() - 1]),
            &format!("Basic {}", key.text),
            &key.text,
            &long,
        ] {
            assert!(Credentials::of(&headers(&[bad]), false).is_err(), "{bad}");
        }
        let twice = format!("Bearer {}", key.text);
        assert!(Credentials::of(&headers(&[&twice, &twice]), false).is_err());
    }
}
