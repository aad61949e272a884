//! The life of API keys, and what does not pass for one.

use std::time::Duration;

use polyglot_test_kit::wait_until;
use polyglot_test_servers::needs_servers;

use super::*;

#[tokio::test]
async fn a_key_is_shown_once_works_until_it_is_revoked_and_its_secret_is_nowhere() {
    needs_servers!();
    let system = system_with(&[]).await;
    assert!(system.api.as_ref().unwrap().log().contains("there is no valid API key"));
    let output = run_keys(&system, &["create", "--name", "nightly report", "--expires-in-days", "30"]);
    assert!(output.status.success());
    let key = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("nightly report") && said.contains("tenant default") && said.contains("expires"), "{said}");
    let secret = key.rsplit('_').next().unwrap();
    assert!(secret.len() == 64 && !said.contains(secret));
    assert_eq!(get(&system, "/exports", &key).await.status(), StatusCode::OK);
    let listed = keys(&system, &["list"]);
    assert!(
        listed.contains(&id_of(&key))
            && listed.contains("scopes exports:create,exports:read,exports:delete,datasets:read"),
        "{listed}"
    );
    assert!(!listed.contains(secret));
    keys(&system, &["revoke", &id_of(&key)]);
    wait_until("a revoked key is refused", async || {
        (get(&system, "/exports", &key).await.status() == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    let again = run_keys(&system, &["revoke", &id_of(&key)]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("no valid key"));
    // Neither the database nor the log has it.
    let stored: String = sqlx::query_scalar("SELECT string_agg(k::text, ' ') FROM polyglot.api_keys k")
        .fetch_one(&system.pool)
        .await
        .unwrap();
    let log = system.api.as_ref().unwrap().log();
    assert!(!stored.contains(secret) && !log.contains(secret) && log.contains("nightly report"), "{log}");
}

#[tokio::test]
async fn a_rotated_key_works_beside_the_new_one_for_a_while() {
    needs_servers!();
    let system = system_with(&[]).await;
    let old = new_key(&system, "acme", "exports:read");
    let new = keys(&system, &["rotate", &id_of(&old)]).trim().to_owned();
    assert_ne!(old, new);
    for key in [&old, &new] {
        assert_eq!(get(&system, "/exports", key).await.status(), StatusCode::OK);
        // The scopes are those of the old one.
        assert_eq!(get(&system, "/datasets", key).await.status(), StatusCode::FORBIDDEN);
    }
    let newest = keys(&system, &["rotate", &id_of(&new), "--grace-hours", "0"]).trim().to_owned();
    wait_until("a key whose time is over is refused", async || {
        (get(&system, "/exports", &new).await.status() == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    assert_eq!(get(&system, "/exports", &newest).await.status(), StatusCode::OK);
    assert!(!run_keys(&system, &["rotate", &id_of(&new)]).status.success(), "an expired key is not rotated");
}

#[tokio::test]
async fn nothing_else_passes_for_a_key() {
    needs_servers!();
    let system = system_with(&[]).await;
    let key = new_key(&system, "default", EVERYTHING_OF_A_CLIENT);
    let (start, secret) = key.rsplit_once('_').unwrap();
    let flipped = if secret.ends_with('0') { "1" } else { "0" };
    let other = new_key(&system, "default", "exports:read");
    // Known to the api from now on, which must not help the guesses.
    for key in [&key, &other] {
        assert_eq!(get(&system, "/exports", key).await.status(), StatusCode::OK);
    }
    let (_, other_secret) = other.rsplit_once('_').unwrap();
    for (what, wrong) in [
        ("one digit is wrong", format!("{start}_{}{flipped}", &secret[..63])),
        ("the secret of another key", format!("{start}_{other_secret}")),
        ("an id that does not exist", format!("polyglot_{}_{secret}", "0".repeat(32))),
        ("upper case", key.to_uppercase()),
        ("too short", key[..key.len() - 1].to_owned()),
        ("a quote", format!("{start}_{}'", &secret[..63])),
        ("a token without a signature", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.".to_owned()),
    ] {
        let answer = get(&system, "/exports", &wrong).await;
        assert_eq!(
            answer.headers()["www-authenticate"],
            "Bearer realm=\"polyglot\", error=\"invalid_token\"",
            "{what}"
        );
        assert_eq!(problem(answer).await, (StatusCode::UNAUTHORIZED, "not-authenticated".to_owned()), "{what}");
    }
    for (name, value) in [
        ("authorization", format!("Basic {key}")),
        ("authorization", key.clone()),
        ("x-api-key", key.clone()),
        ("cookie", format!("polyglot_session={key}")),
        ("cookie", format!("polyglot_session={secret}")),
    ] {
        let answer = system.request(Method::GET, "/exports").header(name, value).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{name}");
    }
    let in_query = system.get(&format!("/exports?key={key}&access_token={key}")).await;
    assert_eq!(in_query.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(get(&system, "/exports", &key).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn many_wrong_keys_do_not_shut_out_a_right_one() {
    needs_servers!();
    let system = system_with(&[]).await;
    let key = new_key(&system, "default", "exports:read");
    assert_eq!(get(&system, "/exports", &key).await.status(), StatusCode::OK);
    let guesses = (0..400).map(|number| {
        let guess = format!("polyglot_{number:032x}_{number:064x}");
        let system = &system;
        async move { get(system, "/exports", &guess).await.status() }
    });
    let right = async {
        for _ in 0..50 {
            assert_eq!(get(&system, "/exports", &key).await.status(), StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (guessed, ()) = tokio::join!(futures_util::future::join_all(guesses), right);
    for status in guessed {
        // 503 where more are looked up at a time than this server does.
        assert!([StatusCode::UNAUTHORIZED, StatusCode::SERVICE_UNAVAILABLE].contains(&status), "{status}");
    }
}

#[tokio::test]
async fn a_known_key_works_while_the_ledger_is_being_restarted() {
    needs_servers!();
    let system = system_with(&[]).await;
    let key = new_key(&system, "default", "datasets:read");
    assert_eq!(get(&system, "/datasets", &key).await.status(), StatusCode::OK);
    // The keys cannot be read for longer than one is remembered without asking.
    let mut lock = system.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE polyglot.api_keys IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(get(&system, "/datasets", &key).await.status(), StatusCode::OK);
    let unknown = get(&system, "/datasets", &format!("polyglot_{}_{}", "0".repeat(32), "0".repeat(64))).await;
    assert_eq!(unknown.status(), StatusCode::SERVICE_UNAVAILABLE);
    lock.rollback().await.unwrap();
}

#[tokio::test]
async fn without_authentication_the_api_starts_only_where_nobody_else_reaches_it() {
    needs_servers!();
    let mut system = system_with(&[]).await;
    system.set("AUTH", "off");
    system.set("LISTEN", "0.0.0.0");
    system.start_api();
    let mut api = system.api.take().unwrap();
    assert_eq!(api.wait_for_exit().await.code(), Some(2));
    assert!(api.log().contains("AUTH: is off, but LISTEN is 0.0.0.0"), "{}", api.log());
    system.set("AUTH", "off-on-any-address");
    system.start_api();
    system.wait_until_ok("/exports").await;
    assert!(system.api.as_ref().unwrap().log().contains("AUTH is off"));
    let session: Value = system.get("/session").await.json().await.unwrap();
    assert_eq!((session["auth"].as_str(), session["signedIn"].as_bool()), (Some("off"), Some(true)));
}
