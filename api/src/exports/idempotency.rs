//! The header `Idempotency-Key` of a submission: a client that does not know whether its request arrived sends it again, and
//! gets the first answer instead of a second export. The ledger stores the keys.

use axum::http::HeaderMap;

use crate::problem::RouteError;

const HEADER: &str = "Idempotency-Key";
const MAX_BYTES: usize = 255;

/// The key, byte for byte: quotes are part of it.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, RouteError> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(RouteError::invalid(HEADER, "is there more than once"));
    }
    match value.to_str() {
        Ok(key) if (1..=MAX_BYTES).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(RouteError::invalid(HEADER, format!("expected 1 to {MAX_BYTES} printable ASCII characters"))),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let pair = |value: &&[u8]| (HEADER.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value).unwrap());
        values.iter().map(pair).collect()
    }

    #[test]
    fn keys_are_taken_as_they_are_and_nonsense_is_named() {
        assert_eq!(key(&headers(&[])).unwrap(), None);
        let quoted = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"";
        assert_eq!(key(&headers(&[quoted.as_bytes()])).unwrap().as_deref(), Some(quoted));
        let long = [b'k'; MAX_BYTES + 1];
        for bad in [vec![&b""[..]], vec![b"\xff"], vec![&long], vec![b"a", b"a"]] {
            let Err(RouteError::Invalid(errors)) = key(&headers(&bad)) else { panic!("{bad:?} was taken") };
            assert_eq!(errors[0].field, HEADER);
        }
    }
}
