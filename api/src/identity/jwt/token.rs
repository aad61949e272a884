//! The compact form of a signed token (RFC 7515, 7.1): header, payload and signature, each in base64url. Nothing of it is to
//! be trusted before the signature is verified.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::error::InvalidToken;

/// Largest token. A head of a request may have twice as much.
pub(super) const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Types (`typ`) that an access token may have, in small letters. Others are made for other purposes, such as a logout.
const ACCESS_TOKEN_TYPES: [&str; 2] = ["jwt", "at+jwt"];

pub(super) struct SignedToken<'a> {
    /// `alg`.
    pub(super) algorithm: String,
    /// `kid`.
    pub(super) key_id: Option<String>,
    /// The text that is signed.
    pub(super) message: &'a [u8],
    pub(super) signature: Vec<u8>,
    /// JSON, if the token is one.
    pub(super) payload: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    /// Whether there is a `crit`: the names of extensions without which the token must not be accepted. None is known here.
    #[serde(default, rename = "crit", deserialize_with = "is_present")]
    has_crit: bool,
}

fn is_present<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

impl<'a> SignedToken<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, InvalidToken> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(InvalidToken::TooLarge);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(InvalidToken::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(InvalidToken::Malformed)?;
        // A dot more is no base64url.
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidToken::Malformed);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| InvalidToken::Malformed)?;
        if header.has_crit {
            return Err(InvalidToken::CriticalExtension);
        }
        if !header.typ.as_deref().is_none_or(is_access_token) {
            return Err(InvalidToken::Type);
        }
        Ok(Self {
            algorithm: header.alg,
            key_id: header.kid,
            message: message.as_bytes(),
            signature: decode(signature)?,
            payload: decode(payload)?,
        })
    }
}

/// Whether a `typ` is that of an access token. It is a media type, whose `application/` may be left out.
fn is_access_token(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    ACCESS_TOKEN_TYPES.contains(&typ.strip_prefix("application/").unwrap_or(&typ))
}
