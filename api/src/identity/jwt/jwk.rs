//! The issuer's key set (RFC 7517). Keys that cannot verify a token of the configuration are left out: other types, keys for
//! encryption, keys that are too short, and what is no key at all. An issuer may add such keys at any time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::algorithm::{Algorithm, PublicKey};
use super::error::InvalidToken;

/// Smallest modulus of an RSA key, in bytes.
const MIN_RSA_BYTES: usize = 256;

/// The usable keys of an issuer.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    /// `kid`.
    id: Option<String>,
    /// `alg`: the only algorithm that the issuer uses the key with, if it says so.
    algorithm: Option<Algorithm>,
    public: PublicKey,
}

impl Key {
    fn admits(&self, algorithm: Algorithm) -> bool {
        self.public.admits(algorithm) && self.algorithm.is_none_or(|only| only == algorithm)
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a key set, of which keys are kept that verify one of `allowed`.
    pub(super) fn parse(document: &[u8], allowed: &[Algorithm]) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_slice(document)?;
        let keys = document.keys.into_iter().filter_map(parse_key);
        Ok(Self(keys.filter(|key| allowed.iter().any(|algorithm| key.admits(*algorithm))).collect()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a key has this id.
    pub(super) fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// Checks a signature with the key of this id, or with the only key if the token names none.
    pub(super) fn verify(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidToken> {
        let found: Vec<&Key> = match (id, self.0.as_slice()) {
            // Keys of several types may have the same id (RFC 7517, 4.5).
            (Some(id), keys) => keys.iter().filter(|key| key.id.as_deref() == Some(id)).collect(),
            (None, [only]) => vec![only],
            // With several keys the token would be tried with each, which is work that anybody could cause.
            (None, _) => return Err(InvalidToken::KeyIdMissing),
        };
        if found.is_empty() {
            return Err(InvalidToken::UnknownKey);
        }
        let admitting: Vec<&Key> = found.into_iter().filter(|key| key.admits(algorithm)).collect();
        if admitting.is_empty() {
            return Err(InvalidToken::Algorithm);
        }
        let verified = admitting.iter().any(|key| key.public.verifies(algorithm, message, signature));
        if verified { Ok(()) } else { Err(InvalidToken::Signature) }
    }
}

fn parse_key(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let is_for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
        && jwk.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
    if !is_for_signatures {
        return None;
    }
    let algorithm = match &jwk.alg {
        None => None,
        Some(name) => Some(Algorithm::named(name)?),
    };
    let public = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => PublicKey::Rsa {
            n: without_leading_zeros(decode(&jwk.n?)?, MIN_RSA_BYTES)?,
            e: without_leading_zeros(decode(&jwk.e?)?, 1)?,
        },
        ("EC", Some("P-256")) => PublicKey::P256(point(&jwk.x?, &jwk.y?, 32)?),
        ("EC", Some("P-384")) => PublicKey::P384(point(&jwk.x?, &jwk.y?, 48)?),
        ("OKP", Some("Ed25519")) => PublicKey::Ed25519(decode(&jwk.x?).filter(|key| key.len() == 32)?),
        _ => return None,
    };
    Some(Key { id: jwk.kid, algorithm, public })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// A number in its shortest form, in which ring wants it; `None` if it has fewer bytes than `min`.
fn without_leading_zeros(mut number: Vec<u8>, min: usize) -> Option<Vec<u8>> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    (number.len() >= min).then_some(number)
}

/// The uncompressed form of a point whose coordinates have `bytes` bytes each.
fn point(x: &str, y: &str, bytes: usize) -> Option<Vec<u8>> {
    let (x, y) = (decode(x)?, decode(y)?);
    (x.len() == bytes && y.len() == bytes).then(|| [&[4], &x[..], &y[..]].concat())
}
