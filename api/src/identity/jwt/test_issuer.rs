//! An issuer for tests: keys that sign tokens, and a server that publishes them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use polyglot_runtime::config::Environment;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
};
use serde_json::{Value, json};

use super::clock::Clock;
use super::{JwtConfig, Verifier};

pub(super) const ISSUER: &str = "https://login.example.com";
pub(super) const AUDIENCE: &str = "polyglot";

/// The time at which a test begins.
pub(super) const NOW: i64 = 1_800_000_000;

pub(super) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key of RFC 7515, A.2, because ring makes no RSA keys.
const RSA_MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-\
     yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-\
     KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_\
     h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RSA_PRIVATE: [&str; 6] = [
    "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395\
     IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV\
     _0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQ\
     yGWSeWjnczT0QU91p1DhOVRuOopznQ",
    "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7\
     ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
    "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wD\
     mpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
    "BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12S\
     k3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
    "h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd\
     2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
    "IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLE\
     dfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U",
];

/// A key that signs tokens.
pub(super) enum SigningKey {
    Rsa(rsa::KeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    pub(super) fn rsa() -> Self {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let [d, p, q, dp, dq, q_inv] = RSA_PRIVATE.map(decode);
        let public_key = rsa::PublicKeyComponents { n: decode(RSA_MODULUS), e: vec![1, 0, 1] };
        let components = rsa::KeyPairComponents { public_key, d, p, q, dP: dp, dQ: dq, qInv: q_inv };
        Self::Rsa(rsa::KeyPair::from_components(&components).unwrap())
    }

    fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap()
    }

    pub(super) fn p256() -> Self {
        Self::P256(Self::ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING))
    }

    pub(super) fn p384() -> Self {
        Self::P384(Self::ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING))
    }

    pub(super) fn ed25519() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    /// The algorithm that the key is used with, unless a test wants another one.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    /// The public key as a member of a key set.
    pub(super) fn jwk(&self, id: &str) -> Value {
        let point = |key: &EcdsaKeyPair, curve: &str| {
            let point = &key.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            json!({"kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y)})
        };
        let mut jwk = match self {
            Self::Rsa(_) => json!({"kty": "RSA", "n": RSA_MODULUS, "e": "AQAB"}),
            Self::P256(key) => point(key, "P-256"),
            Self::P384(key) => point(key, "P-384"),
            Self::Ed25519(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key())}),
        };
        jwk["kid"] = id.into();
        jwk
    }

    /// A token with these members; `alg` decides how an RSA key signs.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let encoding: &dyn ring::signature::RsaEncoding =
                    if header["alg"] == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                key.sign(encoding, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::P256(key) | Self::P384(key) => key.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", base64url(signature))
    }

    /// A token of the test's issuer that is in order, but for `changes` to its claims; `null` removes one.
    pub(super) fn token(&self, id: &str, changes: Value) -> String {
        self.sign(&json!({"alg": self.algorithm(), "typ": "JWT", "kid": id}), &claims(changes))
    }
}

/// Claims that are accepted at [`NOW`], with changes.
pub(super) fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "robot", "tenant": "acme", "scope": "exports:read exports:write",
        "exp": NOW + 300,
    });
    let Value::Object(changes) = changes else { panic!("{changes} is no object") };
    for (name, value) in changes {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(&name);
        } else {
            claims[name] = value;
        }
    }
    claims
}

/// How the server answers.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    pub(super) delay: Duration,
}

/// A server that publishes a key set, and counts how often it is asked.
pub(super) struct TestIssuer {
    address: SocketAddr,
    pub(super) answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
    now: Arc<AtomicI64>,
}

impl TestIssuer {
    pub(super) async fn start(keys: &[Value]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Answer { status: StatusCode::OK, headers: Vec::new(), body: String::new(), delay: Duration::ZERO };
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let (answers, counter) = (Arc::clone(&answer), Arc::clone(&asked));
        let handler = async move || {
            counter.fetch_add(1, Ordering::Relaxed);
            let (delay, response) = {
                let answer = answers.lock().unwrap();
                let mut response = (answer.status, answer.body.clone()).into_response();
                for (name, value) in &answer.headers {
                    response.headers_mut().insert(*name, value.parse().unwrap());
                }
                (answer.delay, response)
            };
            tokio::time::sleep(delay).await;
            response
        };
        let app = Router::new().route("/jwks.json", get(handler));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let issuer = Self { address, answer, asked, now: Arc::new(AtomicI64::new(NOW)) };
        issuer.publish(keys);
        issuer
    }

    pub(super) fn publish(&self, keys: &[Value]) {
        self.set(|answer| {
            answer.status = StatusCode::OK;
            answer.body = json!({"keys": keys}).to_string();
        });
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Answer)) {
        change(&mut self.answer.lock().unwrap());
    }

    /// Number of requests so far.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Advances the verifiers' clock.
    pub(super) fn pass(&self, seconds: i64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    pub(super) fn verifier(&self) -> Verifier {
        self.verifier_with(&[])
    }

    pub(super) fn verifier_with(&self, variables: &[(&str, &str)]) -> Verifier {
        let url = format!("http://{}/jwks.json", self.address);
        let standard = [("JWT_ISSUER", ISSUER), ("JWT_AUDIENCE", AUDIENCE), ("JWT_JWKS_URL", &url)];
        let config = JwtConfig::from_environment(&Environment::fixed(&[&standard[..], variables].concat()));
        let now = Arc::clone(&self.now);
        let clock = Clock::of(move || DateTime::from_timestamp(now.load(Ordering::Relaxed), 0).unwrap());
        Verifier::with_clock(config.unwrap().unwrap(), clock).unwrap()
    }
}
