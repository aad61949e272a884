//! What belongs to one tenant: lists, streams, idempotency keys, joined exports, and the keys of objects.

use std::time::Duration;

use futures_util::StreamExt;
use polyglot_test_servers::needs_servers;
use serde_json::json;

use super::*;

#[tokio::test]
async fn lists_keys_and_joined_exports_are_of_one_tenant() {
    needs_servers!();
    let mut system = system_with(&[]).await;
    let (ours, theirs) =
        (new_key(&system, "acme", EVERYTHING_OF_A_CLIENT), new_key(&system, "other", EVERYTHING_OF_A_CLIENT));
    let body = polyglot_test_kit::sample_request("csv", None);
    let submit_with_key = async |key: &str| {
        let post = request(&system, Method::POST, "/exports", key).header("idempotency-key", "same");
        let answer = post.json(&body).send().await.unwrap();
        let replayed = answer.headers().contains_key("idempotent-replayed");
        assert_eq!(answer.status(), StatusCode::CREATED);
        (answer.json::<Value>().await.unwrap()["exportId"].as_str().unwrap().to_owned(), replayed)
    };
    let (first, _) = submit_with_key(&ours).await;
    let (second, replayed) = submit_with_key(&theirs).await;
    assert!(first != second && !replayed, "the other tenant got the first one's export");
    assert_eq!(submit_with_key(&ours).await, (first.clone(), true));

    let mut joining = body.clone();
    joining["coalesce"] = json!(true);
    let join = async |key: &str| {
        let answer = request(&system, Method::POST, "/exports", key).json(&joining).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["exportId"].as_str().unwrap().to_owned()
    };
    assert_eq!(join(&ours).await, first);
    assert_eq!(join(&theirs).await, second);

    let listed = async |key: &str| -> Vec<String> {
        let list: Value = get(&system, "/exports?limit=1", key).await.json().await.unwrap();
        assert_eq!(list["nextCursor"], Value::Null);
        let exports = list["exports"].as_array().unwrap();
        exports.iter().map(|export| export["exportId"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed(&ours).await, std::slice::from_ref(&first));
    assert_eq!(listed(&theirs).await, std::slice::from_ref(&second));

    // The objects of a tenant have its name in front; those of the default tenant have none.
    let default = new_key(&system, "default", EVERYTHING_OF_A_CLIENT);
    let third = submit(&system, &default, "csv").await;
    system.add_worker();
    for (key, id, folder) in [(&ours, &first, "acme/"), (&theirs, &second, "other/"), (&default, &third, "")] {
        let file = get(&system, &format!("/exports/{id}/download"), key).await;
        assert_eq!(file.status(), StatusCode::OK);
        let object: String = sqlx::query_scalar("SELECT object_key FROM polyglot.exports WHERE id = $1::uuid")
            .bind(id)
            .fetch_one(&system.pool)
            .await
            .unwrap();
        assert!(object.contains(&format!("{folder}{id}/1/")), "{object}");
        assert_eq!(
            object.split('/').filter(|part| *part == "acme" || *part == "other").count(),
            usize::from(!folder.is_empty())
        );
    }
}

/// What a stream sends within some seconds.
async fn heard(answer: Response, time: Duration) -> String {
    let mut text = String::new();
    let mut body = answer.bytes_stream();
    let _ = tokio::time::timeout(time, async {
        while let Some(piece) = body.next().await {
            text.push_str(&String::from_utf8_lossy(&piece.unwrap()));
        }
    })
    .await;
    text
}

#[tokio::test]
async fn a_stream_tells_of_the_own_tenant_s_exports_alone() {
    needs_servers!();
    let mut system = system_with(&[]).await;
    let (ours, theirs) =
        (new_key(&system, "acme", EVERYTHING_OF_A_CLIENT), new_key(&system, "other", EVERYTHING_OF_A_CLIENT));
    let before = [submit(&system, &ours, "csv").await, submit(&system, &theirs, "csv").await];
    let streams = [get(&system, "/events", &ours).await, get(&system, "/events", &theirs).await];
    let after = [submit(&system, &ours, "json").await, submit(&system, &theirs, "json").await];
    system.add_worker();
    let [first, second] = streams.map(|stream| heard(stream, Duration::from_secs(6)));
    let heard_live = <[String; 2]>::from(tokio::join!(first, second));
    // And again from the ledger, as a client that comes back.
    let mut heard_later = Vec::new();
    for key in [&ours, &theirs] {
        let again = request(&system, Method::GET, "/events", key).header("last-event-id", "0").send().await.unwrap();
        heard_later.push(heard(again, Duration::from_secs(2)).await);
    }
    for (own, other) in [(0, 1), (1, 0)] {
        for text in [&heard_live[own], &heard_later[own]] {
            assert!(text.contains(&after[own]) && text.contains("completed"), "{text}");
            assert!(!text.contains(&after[other]) && !text.contains(&before[other]), "{text}");
        }
        assert!(heard_live[own].contains(&before[own]));
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_revoked() {
    needs_servers!();
    let system = system_with(&[]).await;
    let key = new_key(&system, "acme", "exports:read");
    let stream = get(&system, "/events", &key).await;
    assert_eq!(stream.status(), StatusCode::OK);
    keys(&system, &["revoke", &id_of(&key)]);
    let ended = tokio::time::timeout(Duration::from_mins(1), heard(stream, Duration::from_mins(2))).await;
    assert!(ended.is_ok(), "the stream goes on without a valid key");
}
