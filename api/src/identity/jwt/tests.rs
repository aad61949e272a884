//! The verifier against an issuer with a server: which tokens are accepted, and which are refused and why.

use ring::hmac;
use serde_json::{Value, json};

use super::error::InvalidToken;
use super::error::StandardClaim;
use super::test_issuer::{AUDIENCE, ISSUER, NOW, SigningKey, TestIssuer, base64url, claims};
use super::{JwtError, Verifier};

/// The reason for which a token is refused.
pub(super) async fn refusal(verifier: &Verifier, token: &str) -> InvalidToken {
    match verifier.verify(token).await {
        Err(JwtError::Invalid(reason)) => reason,
        other => panic!("{other:?} for {token}"),
    }
}

/// The tokens of RFC 7515, A.2 and A.3, and of RFC 8037, A.4, each with its key: signatures that others have made.
#[test]
fn the_examples_of_the_standards_are_verified() {
    use super::algorithm::Algorithm;
    use super::jwk::KeySet;
    use super::token::SignedToken;
    const PAYLOAD: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let rsa = format!(
        "eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_\
         lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L\
         07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9\
         Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
    );
    let ecdsa = format!(
        "eyJhbGciOiJFUzI1NiJ9.{PAYLOAD}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3\
         -Kg6NU1Q"
    );
    let ed25519 = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6\
                   dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let keys = [
        SigningKey::rsa().jwk("rsa"),
        json!({
            "kty": "EC", "crv": "P-256", "kid": "ecdsa",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }),
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
    ];
    let allowed = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
    let keys = KeySet::parse(json!({"keys": keys}).to_string().as_bytes(), &allowed).unwrap();
    assert_eq!(keys.len(), 3);
    for (id, text) in [("rsa", rsa.as_str()), ("ecdsa", &ecdsa), ("ed25519", ed25519)] {
        let token = SignedToken::parse(text).unwrap();
        let algorithm = Algorithm::named(&token.algorithm).unwrap();
        assert_eq!(keys.verify(Some(id), algorithm, token.message, &token.signature), Ok(()), "{id}");
        let other = [token.message, b"x"].concat();
        assert_eq!(keys.verify(Some(id), algorithm, &other, &token.signature), Err(InvalidToken::Signature), "{id}");
    }
}

#[tokio::test]
async fn a_token_in_order_says_who_it_is_for() {
    let key = SigningKey::p256();
    let issuer = TestIssuer::start(&[key.jwk("a")]).await;
    let verifier = issuer.verifier();
    let token = verifier.verify(&key.token("a", json!({"group": 7}))).await.unwrap();
    assert_eq!((token.subject.as_str(), token.tenant.as_str()), ("robot", "acme"));
    assert_eq!(token.scopes, ["exports:read", "exports:write"]);
    // And the leeway.
    assert_eq!(token.expires_at.timestamp(), NOW + 300 + 30);
    assert_eq!(token.claims["group"], 7);
    // Other forms of the same.
    for (changes, scopes) in [
        (json!({"aud": ["other", AUDIENCE], "exp": 1_800_000_000.5, "nbf": NOW + 30}), 2),
        (json!({"scope": ["a", "b", "c"], "exp": NOW - 29}), 3),
        (json!({"scope": null}), 0),
        (json!({"scope": " "}), 0),
    ] {
        let token = verifier.verify(&key.token("a", changes.clone())).await;
        assert_eq!(token.unwrap_or_else(|error| panic!("{changes}: {error}")).scopes.len(), scopes, "{changes}");
    }
    for typ in [json!(null), json!("JWT"), json!("at+jwt"), json!("application/AT+JWT")] {
        let mut header = json!({"alg": "ES256", "kid": "a", "typ": typ});
        header.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        verifier.verify(&key.sign(&header, &claims(json!({})))).await.unwrap();
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn claims_of_the_operators_choice_hold_tenant_and_scopes() {
    let key = SigningKey::ed25519();
    let issuer = TestIssuer::start(&[key.jwk("a")]).await;
    let verifier = issuer.verifier_with(&[
        ("JWT_ALGORITHMS", "EdDSA"),
        ("JWT_TENANT_CLAIM", "https://example.com/org"),
        ("JWT_SCOPE_CLAIM", "permissions"),
    ]);
    let changes = json!({"tenant": null, "https://example.com/org": "acme", "scope": 1, "permissions": ["read"]});
    let token = verifier.verify(&key.token("a", changes)).await.unwrap();
    assert_eq!((token.tenant.as_str(), token.scopes), ("acme", vec!["read".to_owned()]));
}

#[tokio::test]
async fn every_kind_of_key_verifies_its_own_algorithms_alone() {
    let keys = [SigningKey::rsa(), SigningKey::p256(), SigningKey::p384(), SigningKey::ed25519()];
    let names = ["rsa", "p256", "p384", "ed25519"];
    let published: Vec<Value> = keys.iter().zip(names).map(|(key, name)| key.jwk(name)).collect();
    let issuer = TestIssuer::start(&published).await;
    let verifier = issuer.verifier_with(&[("JWT_ALGORITHMS", "RS256,PS256,ES256,ES384,EdDSA")]);
    for (key, name) in keys.iter().zip(names) {
        verifier.verify(&key.token(name, json!({}))).await.unwrap();
        for algorithm in ["RS256", "PS256", "ES256", "ES384", "EdDSA"] {
            let token = key.sign(&json!({"alg": algorithm, "kid": name}), &claims(json!({})));
            if algorithm == key.algorithm() || (name == "rsa" && algorithm == "PS256") {
                verifier.verify(&token).await.unwrap();
            } else {
                assert_eq!(refusal(&verifier, &token).await, InvalidToken::Algorithm, "{name} {algorithm}");
            }
        }
        // With the id of another key: it is of another type.
        let other = names.into_iter().find(|other| *other != name).unwrap();
        assert_eq!(refusal(&verifier, &key.token(other, json!({}))).await, InvalidToken::Algorithm);
    }
    // Algorithms that are not configured.
    let strict = issuer.verifier_with(&[("JWT_ALGORITHMS", "RS256")]);
    let token = keys[0].sign(&json!({"alg": "PS256", "kid": "rsa"}), &claims(json!({})));
    assert_eq!(refusal(&strict, &token).await, InvalidToken::Algorithm);
    assert_eq!(refusal(&strict, &keys[1].token("p256", json!({}))).await, InvalidToken::Algorithm);
}

#[tokio::test]
async fn a_key_is_used_as_the_issuer_says() {
    let (rsa, key) = (SigningKey::rsa(), SigningKey::p256());
    let mut only_pss = rsa.jwk("pss");
    only_pss["alg"] = "PS256".into();
    let changed = |name: &str, value: Value| {
        let mut jwk = key.jwk("a");
        jwk[name] = value;
        jwk
    };
    let issuer = TestIssuer::start(&[only_pss.clone()]).await;
    let verifier = issuer.verifier_with(&[("JWT_ALGORITHMS", "RS256,PS256,ES256")]);
    let token = rsa.sign(&json!({"alg": "PS256", "kid": "pss"}), &claims(json!({})));
    verifier.verify(&token).await.unwrap();
    assert_eq!(refusal(&verifier, &rsa.token("pss", json!({}))).await, InvalidToken::Algorithm);
    // What is not for signatures, or not a usable key, is as if it were not there, and does no harm to the others.
    for unusable in [
        changed("use", "enc".into()),
        changed("key_ops", json!(["sign"])),
        changed("alg", "ES512".into()),
        changed("crv", "P-521".into()),
        changed("kty", "oct".into()),
        changed("x", "AA".into()),
        changed("y", "not base64!".into()),
        changed("kid", 7.into()),
        json!("key"),
        json!({"kty": "RSA", "kid": "a", "e": "AQAB", "n": base64url([255; 128])}),
        json!({"kty": "oct", "kid": "a", "k": base64url(b"secret")}),
    ] {
        issuer.publish(&[unusable.clone(), only_pss.clone()]);
        let verifier = issuer.verifier_with(&[("JWT_ALGORITHMS", "PS256,ES256")]);
        verifier.verify(&token).await.unwrap();
        assert_eq!(refusal(&verifier, &key.token("a", json!({}))).await, InvalidToken::UnknownKey, "{unusable}");
    }
    issuer.publish(&[changed("use", "sig".into()), only_pss]);
    issuer.verifier().verify(&key.token("a", json!({}))).await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_not_signed_by_the_issuer_is_refused() {
    let (rsa, key) = (SigningKey::rsa(), SigningKey::p256());
    let issuer = TestIssuer::start(&[rsa.jwk("rsa"), key.jwk("ec")]).await;
    let verifier = issuer.verifier();
    let (header, payload) = (|header: Value| base64url(header.to_string()), base64url(claims(json!({})).to_string()));
    // No signature.
    for algorithm in ["none", "None", "NONE", ""] {
        for signature in ["", "AA"] {
            let token = format!("{}.{payload}.{signature}", header(json!({"alg": algorithm, "kid": "rsa"})));
            assert_eq!(refusal(&verifier, &token).await, InvalidToken::Algorithm, "{algorithm}");
        }
    }
    // The public key as a shared secret, in the forms that libraries have fallen for.
    let SigningKey::Rsa(pair) = &rsa else { unreachable!() };
    for secret in [pair.public().as_ref().to_vec(), rsa.jwk("rsa")["n"].as_str().unwrap().as_bytes().to_vec()] {
        let message = format!("{}.{payload}", header(json!({"alg": "HS256", "kid": "rsa"})));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
        let token = format!("{message}.{}", base64url(tag));
        assert_eq!(refusal(&verifier, &token).await, InvalidToken::Algorithm);
    }
    assert_eq!(issuer.asked(), 0, "a token that cannot be accepted has caused a fetch");
    // Another key under the same id, a key that the token brings, changed bytes, a signature that is cut off.
    let stranger = SigningKey::p256();
    assert_eq!(refusal(&verifier, &stranger.token("ec", json!({}))).await, InvalidToken::Signature);
    let brought = json!({"alg": "ES256", "kid": "ec", "jwk": stranger.jwk("ec"), "jku": "https://evil.example/keys"});
    assert_eq!(refusal(&verifier, &stranger.sign(&brought, &claims(json!({})))).await, InvalidToken::Signature);
    let good = key.token("ec", json!({}));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (head, _) = message.split_once('.').unwrap();
    let other = base64url(claims(json!({"tenant": "other"})).to_string());
    assert_eq!(refusal(&verifier, &format!("{head}.{other}.{signature}")).await, InvalidToken::Signature);
    assert_eq!(refusal(&verifier, &format!("{message}.{}", &signature[..64])).await, InvalidToken::Signature);
    assert_eq!(refusal(&verifier, &format!("{message}.")).await, InvalidToken::Signature);
    // The zero signature, which a faulty verifier of ECDSA takes.
    assert_eq!(refusal(&verifier, &format!("{message}.{}", base64url([0; 64]))).await, InvalidToken::Signature);
    verifier.verify(&good).await.unwrap();
}

#[tokio::test]
async fn claims_that_are_not_in_order_are_refused() {
    use InvalidToken::{Audience, Claim, Expired, Issuer, NotYetValid, Scopes, Tenant};
    let key = SigningKey::p256();
    let issuer = TestIssuer::start(&[key.jwk("a")]).await;
    let verifier = issuer.verifier();
    for (changes, reason) in [
        (json!({"iss": null}), Issuer),
        (json!({"iss": format!("{ISSUER}/")}), Issuer),
        (json!({"iss": "HTTPS://login.example.com"}), Issuer),
        (json!({"iss": [ISSUER]}), Issuer),
        (json!({"aud": null}), Audience),
        (json!({"aud": "Polyglot"}), Audience),
        (json!({"aud": ["other"]}), Audience),
        (json!({"aud": []}), Audience),
        (json!({"aud": {"polyglot": 1}}), Audience),
        (json!({"exp": null}), Claim(StandardClaim::Exp)),
        (json!({"exp": (NOW + 300).to_string()}), Claim(StandardClaim::Exp)),
        (json!({"exp": 1e300}), Claim(StandardClaim::Exp)),
        (json!({"exp": i64::MAX}), Claim(StandardClaim::Exp)),
        (json!({"exp": true}), Claim(StandardClaim::Exp)),
        (json!({"exp": NOW - 30}), Expired),
        (json!({"exp": 0}), Expired),
        (json!({"exp": -1.5}), Expired),
        (json!({"nbf": NOW + 31}), NotYetValid),
        (json!({"nbf": "now"}), Claim(StandardClaim::Nbf)),
        (json!({"sub": null}), Claim(StandardClaim::Sub)),
        (json!({"sub": " "}), Claim(StandardClaim::Sub)),
        (json!({"sub": "a\nb"}), Claim(StandardClaim::Sub)),
        (json!({"sub": "x".repeat(256)}), Claim(StandardClaim::Sub)),
        (json!({"tenant": null}), Tenant),
        (json!({"tenant": ""}), Tenant),
        (json!({"tenant": 7}), Tenant),
        (json!({"tenant": ["acme"]}), Tenant),
        (json!({"scope": 7}), Scopes),
        (json!({"scope": ["a", 7]}), Scopes),
    ] {
        let reason_found = refusal(&verifier, &key.token("a", changes.clone())).await;
        assert_eq!(reason_found, reason, "{changes}");
    }
    // Time passes.
    let token = key.token("a", json!({}));
    issuer.pass(329);
    verifier.verify(&token).await.unwrap();
    issuer.pass(1);
    assert_eq!(refusal(&verifier, &token).await, Expired);
    let strict = issuer.verifier_with(&[("JWT_LEEWAY_SECONDS", "0")]);
    assert_eq!(refusal(&strict, &key.token("a", json!({"exp": issuer.now()}))).await, Expired);
    strict.verify(&key.token("a", json!({"exp": issuer.now() + 1, "nbf": issuer.now()}))).await.unwrap();
}

#[tokio::test]
async fn what_is_no_token_is_refused_before_anything_is_fetched() {
    let key = SigningKey::p256();
    let issuer = TestIssuer::start(&[key.jwk("a")]).await;
    let verifier = issuer.verifier();
    let good = key.token("a", json!({}));
    let [head, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { unreachable!() };
    let header = |text: &str| format!("{}.{payload}.{signature}", base64url(text));
    for malformed in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "a.b".to_owned(),
        format!("{head}.{payload}"),
        format!("{good}."),
        format!("{good}.AA"),
        format!("{head}.{payload}.{signature}=="),
        format!("{head}=.{payload}.{signature}"),
        format!(" {good}"),
        format!("{head}.{payload}.é"),
        format!("{head}.{payload}.+/"),
        header(""),
        header("[]"),
        header("null"),
        header("{}"),
        header(r#"{"alg":7}"#),
        header(r#"{"alg":"ES256","alg":"ES256"}"#),
        header(r#"{"alg":"ES256","kid":7}"#),
        header(r#"{"alg":"ES256"} x"#),
    ] {
        assert_eq!(refusal(&verifier, &malformed).await, InvalidToken::Malformed, "{malformed}");
    }
    for crit in [r#"["exp"]"#, "[]", "null", r#""x""#] {
        let token = header(&format!(r#"{{"alg":"ES256","kid":"a","crit":{crit}}}"#));
        assert_eq!(refusal(&verifier, &token).await, InvalidToken::CriticalExtension, "{crit}");
    }
    for typ in ["logout+jwt", "dpop+jwt", ""] {
        let token = header(&json!({"alg": "ES256", "kid": "a", "typ": typ}).to_string());
        assert_eq!(refusal(&verifier, &token).await, InvalidToken::Type, "{typ}");
    }
    let large = key.token("a", json!({"padding": "x".repeat(8 << 10)}));
    assert_eq!(refusal(&verifier, &large).await, InvalidToken::TooLarge);
    assert_eq!(issuer.asked(), 0);
    // A payload that the issuer has signed, but is none.
    let deep = (0..1000).fold(json!(1), |inner, _| json!([inner]));
    for claims in [json!([]), json!("x"), json!(null), json!({ "x": deep })] {
        let token = key.sign(&json!({"alg": "ES256", "kid": "a"}), &claims);
        assert_eq!(refusal(&verifier, &token).await, InvalidToken::Malformed);
    }
}

#[tokio::test]
async fn a_token_without_key_id_needs_an_issuer_with_one_key() {
    let (key, other) = (SigningKey::p256(), SigningKey::rsa());
    let issuer = TestIssuer::start(&[key.jwk("a")]).await;
    let token = key.sign(&json!({"alg": "ES256"}), &claims(json!({})));
    issuer.verifier().verify(&token).await.unwrap();
    issuer.publish(&[key.jwk("a"), other.jwk("b")]);
    assert_eq!(refusal(&issuer.verifier(), &token).await, InvalidToken::KeyIdMissing);
    // Keys that are of no use do not count.
    issuer.verifier_with(&[("JWT_ALGORITHMS", "ES256")]).verify(&token).await.unwrap();
    issuer.publish(&[]);
    assert_eq!(refusal(&issuer.verifier(), &token).await, InvalidToken::KeyIdMissing);
    assert_eq!(refusal(&issuer.verifier(), &key.token("a", json!({}))).await, InvalidToken::UnknownKey);
}
