//! The page's sessions: signing in and out, what the cookie is like, and what a foreign page cannot do with it.

use polyglot_test_kit::wait_until;
use polyglot_test_servers::needs_servers;
use serde_json::json;

use super::*;

async fn sign_in(system: &System, key: &str) -> Response {
    let post = system.request(Method::POST, "/session").header("x-polyglot-request", "page");
    post.json(&json!({ "key": key })).send().await.unwrap()
}

/// The cookie that an answer sets, as a browser sends it back.
fn cookie_of(answer: &Response) -> String {
    let set = answer.headers()["set-cookie"].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_has_the_rights_of_its_key_and_ends_with_it() {
    needs_servers!();
    let system = system_with(&[]).await;
    let key = new_key(&system, "acme", "exports:read,datasets:read");
    let answer = sign_in(&system, &key).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    for attribute in ["polyglot_session=", "; Path=/", "; HttpOnly", "; SameSite=Strict", "; Max-Age=43200"] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(!set.contains("Secure") && !set.contains(&key));
    let cookie = cookie_of(&answer);
    let signed_in: Value = answer.json().await.unwrap();
    assert_eq!((signed_in["auth"].as_str(), signed_in["tenant"].as_str()), (Some("on"), Some("acme")));
    assert_eq!(signed_in["scopes"], json!(["exports:read", "datasets:read"]));
    let with_cookie = |method: Method, path: &str| system.request(method, path).header("cookie", &cookie);
    assert_eq!(with_cookie(Method::GET, "/exports").send().await.unwrap().status(), StatusCode::OK);
    let body = polyglot_test_kit::sample_request("csv", None);
    let post = with_cookie(Method::POST, "/exports").header("x-polyglot-request", "page").json(&body);
    assert_eq!(problem(post.send().await.unwrap()).await.1, "missing-scope");
    // The token itself is not stored.
    let token = cookie.split('=').nth(1).unwrap();
    let stored: String = sqlx::query_scalar("SELECT string_agg(s::text, ' ') FROM polyglot.sessions s")
        .fetch_one(&system.pool)
        .await
        .unwrap();
    assert!(!stored.contains(token));

    let out = with_cookie(Method::DELETE, "/session").header("x-polyglot-request", "page").send().await.unwrap();
    assert_eq!(out.status(), StatusCode::NO_CONTENT);
    assert!(out.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(with_cookie(Method::GET, "/exports").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let nobody: Value = with_cookie(Method::GET, "/session").send().await.unwrap().json().await.unwrap();
    assert_eq!((nobody["signedIn"].as_bool(), &nobody["scopes"]), (Some(false), &json!([])));

    let cookie = cookie_of(&sign_in(&system, &key).await);
    keys(&system, &["revoke", &id_of(&key)]);
    wait_until("the session of a revoked key is refused", async || {
        let answer = system.request(Method::GET, "/exports").header("cookie", &cookie).send().await.unwrap();
        (answer.status() == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_foreign_page_can_do_nothing_with_the_cookie() {
    needs_servers!();
    let system = system_with(&[]).await;
    let key = new_key(&system, "acme", EVERYTHING_OF_A_CLIENT);
    let id = submit(&system, &key, "csv").await;
    let cookie = cookie_of(&sign_in(&system, &key).await);
    let body = polyglot_test_kit::sample_request("csv", None);
    for (method, path) in
        [(Method::POST, "/exports"), (Method::POST, "/exports/preview"), (Method::DELETE, &format!("/exports/{id}"))]
    {
        let send = system.request(method.clone(), path).header("cookie", &cookie).json(&body).send();
        let refused = problem(send.await.unwrap()).await;
        assert_eq!(refused, (StatusCode::FORBIDDEN, "no-request-header".to_owned()), "{method} {path}");
    }
    // A form can send neither the header nor JSON; a page of another site can sign nobody in.
    let without = system.request(Method::POST, "/session").json(&json!({ "key": key })).send().await.unwrap();
    assert_eq!(problem(without).await.1, "no-request-header");
    let foreign = system
        .request(Method::POST, "/session")
        .header("x-polyglot-request", "page")
        .header("sec-fetch-site", "cross-site")
        .json(&json!({ "key": key }))
        .send()
        .await
        .unwrap();
    assert_eq!(problem(foreign).await.1, "cross-site");
    // A key needs no such header: no browser sends it by itself.
    let own = request(&system, Method::POST, "/exports", &key).json(&body).send().await.unwrap();
    assert_eq!(own.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn wrong_keys_and_bodies_are_told_apart() {
    needs_servers!();
    let system = system_with(&[("SECURE_COOKIES", "on")]).await;
    let key = new_key(&system, "acme", "exports:read");
    let wrong = sign_in(&system, &format!("polyglot_{}_{}", "0".repeat(32), "0".repeat(64))).await;
    assert_eq!(problem(wrong).await, (StatusCode::UNAUTHORIZED, "not-authenticated".to_owned()));
    assert_eq!(problem(sign_in(&system, "hunter2").await).await.0, StatusCode::UNAUTHORIZED);
    for body in [json!({}), json!({"key": 7}), json!([])] {
        let post = system.request(Method::POST, "/session").header("x-polyglot-request", "page").json(&body);
        assert_eq!(problem(post.send().await.unwrap()).await, (StatusCode::BAD_REQUEST, "invalid-request".to_owned()));
    }
    let answer = sign_in(&system, &format!(" {key} ")).await;
    let set = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(set.starts_with("__Host-polyglot_session=") && set.ends_with("; Secure"), "{set}");
    let cookie = cookie_of(&answer);
    // What another page of the domain could have set is not looked at.
    let plain = cookie.trim_start_matches("__Host-").to_owned();
    let planted = system.request(Method::GET, "/exports").header("cookie", plain).send().await.unwrap();
    assert_eq!(planted.status(), StatusCode::UNAUTHORIZED);
    let list = system.request(Method::GET, "/exports").header("cookie", cookie).send().await.unwrap();
    assert_eq!(list.status(), StatusCode::OK);
}
