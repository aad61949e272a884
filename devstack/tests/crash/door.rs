//! The api as a patient client sees it: whatever it is asked, it is asked again while the api or what it needs is away.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::service::PATIENCE;

/// The way to one api, wherever it is in its life.
#[derive(Clone)]
pub(crate) struct Door {
    client: Client,
    port: u16,
}

impl Door {
    pub(crate) fn new(port: u16) -> Self {
        Self { client: Client::builder().timeout(Duration::from_mins(1)).build().unwrap(), port }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Waits until `path` is answered with 200.
    pub(crate) async fn answers(&self, path: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.client.get(self.url(path)).timeout(Duration::from_secs(5)).send().await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            assert!(Instant::now() < deadline, "the api never answers {path}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Submits `request`, under a key, so that it is one export however often it is sent.
    pub(crate) async fn submit(&self, request: &Value) -> String {
        let key = uuid::Uuid::new_v4().to_string();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let post = self.client.post(self.url("/exports")).header("idempotency-key", &key);
            let sent = post.json(request).send().await;
            if let Ok(answer) = sent {
                let status = answer.status();
                let text = answer.text().await.unwrap_or_default();
                if status == StatusCode::CREATED
                    && let Ok(body) = serde_json::from_str::<Value>(&text)
                {
                    return body["exportId"].as_str().unwrap().to_owned();
                }
                // In progress: an api that was killed in the middle of it is taken for dead after a minute.
                let passing = status.is_server_error() || status == StatusCode::CONFLICT;
                assert!(status == StatusCode::CREATED || passing, "{status}: {text}");
            }
            assert!(Instant::now() < deadline, "the api never accepts an export");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Asks for the deletion of an export.
    pub(crate) async fn delete(&self, id: &str) -> StatusCode {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sent = self.client.request(Method::DELETE, self.url(&format!("/exports/{id}"))).send().await;
            if let Ok(answer) = sent
                && !answer.status().is_server_error()
            {
                return answer.status();
            }
            assert!(Instant::now() < deadline, "the api never deletes {id}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The bytes of a completed export.
    pub(crate) async fn download(&self, id: &str) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sent = self.client.get(self.url(&format!("/exports/{id}/download"))).send().await;
            match sent {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    if let Ok(bytes) = answer.bytes().await {
                        return bytes.to_vec();
                    }
                }
                Ok(answer) => assert!(answer.status().is_server_error(), "download: {}", answer.status()),
                Err(_) => {}
            }
            assert!(Instant::now() < deadline, "export {id} cannot be downloaded");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// A request for the columns of `records`; with `rows`, for so many of them, counted from the first.
pub(crate) fn request(format: &str, compression: Option<&str>, rows: Option<u64>) -> Value {
    let columns: Vec<Value> = ["id", "created_at", "name", "value", "metadata"]
        .iter()
        .map(|name| json!({"source": name, "target": name}))
        .collect();
    let mut request = json!({"format": format, "columns": columns});
    if let Some(rows) = rows {
        request["filters"] = json!([{"column": "id", "op": "<=", "value": rows}]);
    }
    if let Some(compression) = compression {
        request["compression"] = compression.into();
    }
    request
}
