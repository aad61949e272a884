//! Tokens and key sets of which bytes are changed, lost, doubled or cut off: parsing gives a value or an error, never a panic,
//! and no changed token is accepted. The seed is fixed, so that a failure can be repeated.

#[expect(unreachable_pub, reason = "it is public where it is shared")]
#[path = "../../../../fuzz/src/mutate.rs"]
mod mutate;

use chrono::DateTime;
use polyglot_runtime::config::Environment;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

use super::algorithm::Algorithm;
use super::jwk::KeySet;
use super::test_issuer::{AUDIENCE, ISSUER, NOW, SigningKey, base64url, claims};
use super::token::SignedToken;
use super::{JwtConfig, claims as verified_claims};
use mutate::mutate;

const ROUNDS: usize = 60_000;

/// Bytes that mean something in JSON or in a token, and some that never do.
const SPECIAL: &[u8] = b"\0{}[]\",:.-=\x7f\xff";

#[test]
fn no_bytes_make_the_parsers_panic_and_no_changed_token_is_accepted() {
    let key = SigningKey::p256();
    let env = Environment::fixed(&[
        ("JWT_ISSUER", ISSUER),
        ("JWT_AUDIENCE", AUDIENCE),
        ("JWT_JWKS_URL", "https://login.example.com/keys"),
    ]);
    let config = JwtConfig::from_environment(&env).unwrap().unwrap();
    let now = DateTime::from_timestamp(NOW, 0).unwrap();
    let allowed = Algorithm::ALL.map(|(_, algorithm)| algorithm);
    let set = json!({"keys": [key.jwk("a"), SigningKey::rsa().jwk("b"), SigningKey::ed25519().jwk("c")]}).to_string();
    let keys = KeySet::parse(set.as_bytes(), &allowed).unwrap();
    let token = key.token("a", json!({"nbf": NOW, "aud": [AUDIENCE]}));
    let (header, payload) =
        (json!({"alg": "ES256", "kid": "a", "typ": "JWT"}).to_string(), claims(json!({})).to_string());
    let mut rng = StdRng::seed_from_u64(20_260_718);
    let (mut parsed, mut accepted_claims, mut parsed_sets) = (0, 0, 0);
    for _ in 0..ROUNDS {
        // The token's text as a whole, then its parts before they are encoded, so that changes get behind base64.
        let mut text = token.clone().into_bytes();
        mutate(&mut text, SPECIAL, &mut rng);
        let (mut changed_header, mut changed_payload) = (header.clone().into_bytes(), payload.clone().into_bytes());
        mutate(&mut changed_header, SPECIAL, &mut rng);
        mutate(&mut changed_payload, SPECIAL, &mut rng);
        let inside = format!("{}.{}.AA", base64url(changed_header), base64url(&changed_payload));
        for text in [String::from_utf8_lossy(&text).into_owned(), inside] {
            let Ok(changed) = SignedToken::parse(&text) else { continue };
            parsed += 1;
            if text != token
                && let Some(algorithm) = Algorithm::named(&changed.algorithm)
            {
                let verified = keys.verify(changed.key_id.as_deref(), algorithm, changed.message, &changed.signature);
                assert!(verified.is_err(), "{text}");
            }
        }
        accepted_claims += usize::from(verified_claims::check(&changed_payload, &config, now).is_ok());
        let mut changed_set = set.clone().into_bytes();
        mutate(&mut changed_set, SPECIAL, &mut rng);
        parsed_sets += usize::from(KeySet::parse(&changed_set, &allowed).is_ok());
    }
    // Changes reach what is behind the parsers.
    assert!(parsed > ROUNDS / 20, "{parsed}");
    assert!(accepted_claims > ROUNDS / 100, "{accepted_claims}");
    assert!(parsed_sets > ROUNDS / 20, "{parsed_sets}");
}
