//! How often the issuer is asked for its keys, and what happens while it is away.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;

use super::error::InvalidToken;
use super::test_issuer::{NOW, SigningKey, TestIssuer};
use super::tests::refusal;
use super::{JwtError, Verifier};

async fn is_unavailable(verifier: &Verifier, token: &str) -> bool {
    matches!(verifier.verify(token).await, Err(JwtError::Unavailable { retry_after }) if retry_after > Duration::ZERO)
}

#[tokio::test]
async fn a_new_key_is_found_and_a_removed_one_no_longer_accepted() {
    let (old, new) = (SigningKey::p256(), SigningKey::p256());
    let issuer = TestIssuer::start(&[old.jwk("old")]).await;
    let verifier = issuer.verifier();
    let (of_old, of_new) = (old.token("old", json!({"exp": NOW + 9000})), new.token("new", json!({"exp": NOW + 9000})));
    verifier.verify(&of_old).await.unwrap();
    issuer.publish(&[old.jwk("old"), new.jwk("new")]);
    // The keys were fetched a moment ago, and what strangers send must not have them fetched again and again.
    for _ in 0..50 {
        assert_eq!(refusal(&verifier, &of_new).await, InvalidToken::UnknownKey);
    }
    assert_eq!(issuer.asked(), 1);
    issuer.pass(30);
    verifier.verify(&of_new).await.unwrap();
    verifier.verify(&of_old).await.unwrap();
    assert_eq!(issuer.asked(), 2);
    issuer.publish(&[new.jwk("new")]);
    issuer.pass(600);
    // The lifetime has just ended: one more answer comes from memory, while the set is fetched.
    verifier.verify(&of_old).await.unwrap();
    while issuer.asked() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let removed = async {
        while verifier.verify(&of_old).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), removed).await.expect("the removed key is refused");
    verifier.verify(&of_new).await.unwrap();
    // After a longer pause nothing comes from memory.
    let third = SigningKey::p256();
    issuer.publish(&[third.jwk("third")]);
    issuer.pass(660);
    assert_eq!(refusal(&verifier, &of_new).await, InvalidToken::UnknownKey);
    verifier.verify(&third.token("third", json!({"exp": NOW + 9000}))).await.unwrap();
}

#[tokio::test]
async fn the_issuers_lifetime_of_the_keys_is_kept() {
    let key = SigningKey::p256();
    let issuer = TestIssuer::start(&[key.jwk("a")]).await;
    let token = key.token("a", json!({"exp": NOW + 90_000}));
    let verifier = issuer.verifier();
    issuer.set(|answer| answer.headers = vec![("cache-control", "max-age=1800".to_owned())]);
    verifier.verify(&token).await.unwrap();
    issuer.pass(1799);
    verifier.verify(&token).await.unwrap();
    assert_eq!(issuer.asked(), 1);
    issuer.pass(61);
    verifier.verify(&token).await.unwrap();
    assert_eq!(issuer.asked(), 2);
    // A clock that is set back does not make the keys last longer.
    issuer.pass(-7200);
    verifier.verify(&token).await.unwrap();
    assert_eq!(issuer.asked(), 3);
}

#[tokio::test]
async fn verifications_share_a_fetch_and_a_client_that_leaves_does_not_end_it() {
    let key = SigningKey::p256();
    let issuer = TestIssuer::start(&[key.jwk("a")]).await;
    issuer.set(|answer| answer.delay = Duration::from_millis(400));
    let verifier = std::sync::Arc::new(issuer.verifier());
    let token = key.token("a", json!({}));
    let left = tokio::time::timeout(Duration::from_millis(50), verifier.verify(&token)).await;
    assert!(left.is_err());
    let all: Vec<_> = (0..100)
        .map(|_| {
            let (verifier, token) = (std::sync::Arc::clone(&verifier), token.clone());
            tokio::spawn(async move { verifier.verify(&token).await.map(|token| token.subject) })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap().unwrap(), "robot");
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn the_last_keys_are_used_for_a_day_while_the_issuer_is_away() {
    let (key, stranger) = (SigningKey::p256(), SigningKey::p256());
    let issuer = TestIssuer::start(&[key.jwk("a")]).await;
    let verifier = issuer.verifier();
    let token = key.token("a", json!({"exp": NOW + 900_000}));
    verifier.verify(&token).await.unwrap();
    issuer.set(|answer| answer.status = StatusCode::BAD_GATEWAY);
    issuer.pass(3600);
    for _ in 0..20 {
        verifier.verify(&token).await.unwrap();
    }
    assert_eq!(issuer.asked(), 2, "every verification asks an issuer that is away");
    // Whether a new key exists cannot be known; that a known key has not signed can.
    assert!(is_unavailable(&verifier, &stranger.token("b", json!({}))).await);
    assert_eq!(refusal(&verifier, &stranger.token("a", json!({}))).await, InvalidToken::Signature);
    issuer.pass(82_799);
    verifier.verify(&token).await.unwrap();
    issuer.pass(1);
    assert!(is_unavailable(&verifier, &token).await);
    // It comes back.
    issuer.set(|answer| answer.status = StatusCode::OK);
    issuer.pass(30);
    verifier.verify(&token).await.unwrap();
}

#[tokio::test]
async fn without_any_keys_the_answer_is_to_try_again() {
    let key = SigningKey::p256();
    let issuer = TestIssuer::start(&[key.jwk("a")]).await;
    let token = key.token("a", json!({}));
    let verifier = issuer.verifier();
    let good = json!({"keys": [key.jwk("a")]}).to_string();
    let padded = |bytes: usize| {
        let padding = "x".repeat(bytes - good.len() - r#","padding":"""#.len());
        format!(r#"{},"padding":"{padding}"}}"#, &good[..good.len() - 1])
    };
    assert_eq!(padded(1000).len(), 1000);
    for body in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>", &good[..good.len() - 1], &padded((256 << 10) + 1)] {
        issuer.set(|answer| body.clone_into(&mut answer.body));
        assert!(is_unavailable(&verifier, &token).await, "{body:.80}");
        issuer.pass(5);
    }
    // A redirect is not followed.
    issuer.set(|answer| {
        answer.body.clone_from(&good);
        answer.status = StatusCode::FOUND;
        answer.headers = vec![("location", "http://localhost/jwks.json".to_owned())];
    });
    assert!(is_unavailable(&verifier, &token).await);
    let asked = issuer.asked();
    assert!(is_unavailable(&verifier, &token).await && issuer.asked() == asked, "asked again at once");
    issuer.pass(5);
    issuer.set(|answer| {
        answer.body = padded(256 << 10);
        answer.status = StatusCode::OK;
    });
    verifier.verify(&token).await.unwrap();
    // Nothing listens there.
    let nobody = issuer.verifier_with(&[("JWT_JWKS_URL", "http://127.0.0.1:1/jwks.json")]);
    assert!(is_unavailable(&nobody, &token).await);
}

#[tokio::test]
async fn a_silent_issuer_holds_nobody_for_long() {
    let key = SigningKey::p256();
    let issuer = TestIssuer::start(&[key.jwk("a")]).await;
    issuer.set(|answer| answer.delay = Duration::from_mins(1));
    let started = tokio::time::Instant::now();
    assert!(is_unavailable(&issuer.verifier(), &key.token("a", json!({}))).await);
    assert!((4..8).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}
