//! Tokens, their claims and key sets as functions of bytes, for the fuzz targets.

use chrono::DateTime;
use polyglot_runtime::config::Environment;

use super::algorithm::Algorithm;
use super::claims;
use super::config::JwtConfig;
use super::jwk::KeySet;
use super::token::SignedToken;

/// The keys of the examples in RFC 7515 (A.3) and RFC 8037 (A.2). What is fuzzed has no signature of theirs.
const KEYS: &[u8] = br#"{"keys": [
    {"kty": "EC", "kid": "a", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
    {"kty": "OKP", "kid": "b", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwaaPJHURo4"}]}"#;

/// A token. Its claims are read as if its signature were right; the result is whether they are accepted.
///
/// # Panics
/// If the signature is accepted.
#[must_use]
pub fn token(data: &[u8]) -> bool {
    let Ok(token) = std::str::from_utf8(data) else { return false };
    let Ok(token) = SignedToken::parse(token) else { return false };
    let keys = KeySet::parse(KEYS, &Algorithm::ALL.map(|(_, algorithm)| algorithm)).expect("the key set is one");
    if let Some(algorithm) = Algorithm::named(&token.algorithm) {
        let verified = keys.verify(token.key_id.as_deref(), algorithm, token.message, &token.signature);
        assert!(verified.is_err(), "a token that nobody signed is accepted");
    }
    claims::check(&token.payload, &config(), DateTime::UNIX_EPOCH).is_ok()
}

/// The key set of an issuer; the result is whether a key of it can be used.
#[must_use]
pub fn key_set(data: &[u8]) -> bool {
    KeySet::parse(data, &Algorithm::ALL.map(|(_, algorithm)| algorithm)).is_ok_and(|keys| keys.len() > 0)
}

fn config() -> JwtConfig {
    let variables = [("JWT_ISSUER", "i"), ("JWT_AUDIENCE", "a"), ("JWT_JWKS_URL", "https://i.example")];
    JwtConfig::from_environment(&Environment::fixed(&variables)).ok().flatten().expect("the variables are complete")
}
