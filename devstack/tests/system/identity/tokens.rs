//! Tokens (JWT) of an issuer, on the real api: what is accepted, and what a forger tries.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use polyglot_test_kit::wait_until;
use polyglot_test_servers::needs_servers;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const ISSUER: &str = "https://login.example.com/";

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

struct SigningKey {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        Self { id, pair }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
               "x": encoded(&point[1..33]), "y": encoded(&point[33..])})
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.id, "typ": "JWT"});
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", encoded(signature))
    }
}

/// Answers every request with the key set, until the test ends. Returns its URL.
async fn publish(keys: Arc<Mutex<Value>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let body = keys.lock().unwrap().to_string();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

async fn now(system: &System) -> i64 {
    system.count("SELECT extract(epoch FROM now())::bigint").await
}

#[tokio::test]
async fn tokens_of_the_issuer_are_accepted_and_forged_ones_are_not() {
    needs_servers!();
    let (key, stranger) = (SigningKey::new("one"), SigningKey::new("one"));
    let published = Arc::new(Mutex::new(json!({"keys": [key.jwk()]})));
    let url = publish(Arc::clone(&published)).await;
    let mut system = system_with(&[("JWT_ISSUER", ISSUER), ("JWT_AUDIENCE", "polyglot"), ("JWT_JWKS_URL", &url)]).await;
    system.add_worker();
    assert!(!system.api.as_ref().unwrap().log().contains("there is no valid API key"));
    let now = now(&system).await;
    let claims = |change: Value| {
        let mut claims = json!({"iss": ISSUER, "aud": "polyglot", "sub": "ann", "tenant": "acme", "exp": now + 600,
                                "scope": "exports:create exports:read openid"});
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let token = key.sign(&claims(json!({})));
    let id = submit(&system, &token, "csv").await;
    assert_eq!(get(&system, &format!("/exports/{id}/download"), &token).await.status(), StatusCode::OK);
    // Scopes and tenant are those of the token.
    assert_eq!(problem(get(&system, "/datasets", &token).await).await.1, "missing-scope");
    let other_tenant = key.sign(&claims(json!({"tenant": "other"})));
    assert_eq!(problem(get(&system, &format!("/exports/{id}"), &other_tenant).await).await.1, "unknown-export");
    // An API key of the same tenant sees the export.
    let of_tenant = new_key(&system, "acme", "exports:read");
    assert_eq!(get(&system, &format!("/exports/{id}"), &of_tenant).await.status(), StatusCode::OK);

    let unsigned = |algorithm: &str, signature: &str| {
        let header = json!({"alg": algorithm, "kid": "one"});
        format!("{}.{}.{signature}", encoded(header.to_string()), encoded(claims(json!({})).to_string()))
    };
    let (start, signature) = token.rsplit_once('.').unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let changed = encoded(claims(json!({"tenant": "other"})).to_string());
    for (what, forged) in [
        ("alg none", unsigned("none", "")),
        ("alg none with the signature", unsigned("none", signature)),
        ("HS256", unsigned("HS256", signature)),
        ("a key of somebody else under the same id", stranger.sign(&claims(json!({})))),
        ("another audience", key.sign(&claims(json!({"aud": "other"})))),
        ("another issuer", key.sign(&claims(json!({"iss": "https://evil.example.com/"})))),
        ("expired", key.sign(&claims(json!({"exp": now - 120})))),
        ("not valid yet", key.sign(&claims(json!({"nbf": now + 3600})))),
        ("without an end", key.sign(&claims(json!({"exp": null})))),
        ("no tenant", key.sign(&claims(json!({"tenant": null})))),
        ("the tenant of the benchmark", key.sign(&claims(json!({"tenant": "polyglot benchmark"})))),
        ("a tenant that is a path", key.sign(&claims(json!({"tenant": "../acme"})))),
        ("another payload under the signature", format!("{}.{changed}.{}", parts[0], parts[2])),
        ("no signature", format!("{start}.")),
    ] {
        let answer = problem(get(&system, "/exports", &forged).await).await;
        assert_eq!(answer, (StatusCode::UNAUTHORIZED, "not-authenticated".to_owned()), "{what}");
    }
    assert_eq!(get(&system, "/exports", &token).await.status(), StatusCode::OK);
    // No token is in the log.
    let log = system.api.as_ref().unwrap().log();
    assert!(!log.contains(signature) && log.contains("a token is refused"), "{log}");
}

#[tokio::test]
async fn a_rotated_key_of_the_issuer_is_found() {
    needs_servers!();
    let (old, new) = (SigningKey::new("old"), SigningKey::new("new"));
    let published = Arc::new(Mutex::new(json!({"keys": [old.jwk()]})));
    let url = publish(Arc::clone(&published)).await;
    let system = system_with(&[("JWT_ISSUER", ISSUER), ("JWT_AUDIENCE", "polyglot"), ("JWT_JWKS_URL", &url)]).await;
    let claims = json!({"iss": ISSUER, "aud": ["other", "polyglot"], "sub": "ann", "tenant": "acme",
                        "exp": now(&system).await + 600, "scope": ["exports:read"]});
    assert_eq!(get(&system, "/exports", &old.sign(&claims)).await.status(), StatusCode::OK);
    *published.lock().unwrap() = json!({"keys": [new.jwk()]});
    wait_until("a token of the new key is accepted", async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        (get(&system, "/exports", &new.sign(&claims)).await.status() == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(get(&system, "/exports", &old.sign(&claims)).await.status(), StatusCode::UNAUTHORIZED);
}
