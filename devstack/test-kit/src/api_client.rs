//! Calls of the api: one attempt each for tests in which it works, and with retries for tests that make the api or what it
//! needs fail.

use std::time::Duration;

use polyglot_devstack::wait::{DEADLINE, wait_until};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::sample_request;

/// Longest wait for one answer while the api is starting, so that a connection which is never answered costs one attempt.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for one answer of a request that is repeated.
const ATTEMPT_TIMEOUT: Duration = Duration::from_mins(1);

/// A client of the api at one address. It goes on working when the api behind that address is replaced.
#[derive(Clone, Debug)]
pub struct ApiClient {
    http: Client,
    base_url: String,
}

impl ApiClient {
    pub fn new(port: u16) -> Self {
        let http = Client::builder().timeout(DEADLINE).build().unwrap();
        Self { http, base_url: format!("http://127.0.0.1:{port}") }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    /// Posts a request for an export.
    pub async fn post(&self, body: &Value) -> Response {
        self.request(Method::POST, "/exports").json(body).send().await.unwrap()
    }

    /// Deletes an export.
    pub async fn delete(&self, id: &str) -> Response {
        self.request(Method::DELETE, &format!("/exports/{id}")).send().await.unwrap()
    }

    /// Waits until the api answers `path` with 200.
    pub async fn wait_until_ok(&self, path: &str) {
        wait_until(&format!("{} answers 200", self.url(path)), async || {
            let answer = self.request(Method::GET, path).timeout(PROBE_TIMEOUT).send().await;
            match answer {
                Ok(answer) if answer.status() == StatusCode::OK => Ok(()),
                Ok(answer) => Err(format!("It answers {}.", answer.status())),
                Err(error) => Err(format!("{error}")),
            }
        })
        .await;
    }

    /// Submits a request that is expected to be accepted, and returns the export's id.
    pub async fn submit_request(&self, body: &Value) -> String {
        let answer = self.post(body).await;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let document: Value = answer.json().await.unwrap();
        assert_eq!(status, StatusCode::CREATED, "{body} is answered with {document:#}");
        let id = document["exportId"].as_str().unwrap().to_owned();
        assert_eq!(headers["location"].to_str().unwrap(), format!("/exports/{id}"));
        assert_eq!(document["status"], "pending");
        id
    }

    /// Submits an export of all columns of the sample table, and returns its id.
    pub async fn submit(&self, format: &str, compression: Option<&str>) -> String {
        self.submit_request(&sample_request(format, compression)).await
    }

    /// The document of an export.
    pub async fn state(&self, id: &str) -> Value {
        let answer = self.get(&format!("/exports/{id}")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }

    /// Waits until `condition` holds for the document of an export, and returns that document.
    pub async fn wait_for_state(&self, id: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        wait_until(&format!("export {id} is {what}"), async || {
            let state = self.state(id).await;
            if condition(&state) { Ok(state) } else { Err(format!("{state:#}")) }
        })
        .await
    }

    /// Waits for the end of an export, whichever it is.
    pub async fn wait_until_ended(&self, id: &str) -> Value {
        let active = ["pending", "planning", "running", "finishing"];
        self.wait_for_state(id, "at its end", |state| !active.contains(&state["status"].as_str().unwrap())).await
    }

    /// Waits for the end of an export, which has to be its completion.
    pub async fn wait_until_completed(&self, id: &str) -> Value {
        let state = self.wait_until_ended(id).await;
        assert_eq!(state["status"], "completed", "{state:#}");
        state
    }

    /// Downloads a completed export by the default delivery: the stored bytes, not decompressed.
    pub async fn download(&self, id: &str) -> Vec<u8> {
        let answer = self.get(&format!("/exports/{id}/download")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.bytes().await.unwrap().to_vec()
    }

    /// Exports to completion, and returns the export's id, its last document and its file.
    pub async fn export(&self, body: &Value) -> (String, Value, Vec<u8>) {
        let id = self.submit_request(body).await;
        let state = self.wait_until_completed(&id).await;
        let file = self.download(&id).await;
        (id, state, file)
    }

    /// The manifest of a completed export.
    pub async fn manifest(&self, id: &str) -> Value {
        let answer = self.get(&format!("/exports/{id}/manifest")).await;
        let status = answer.status();
        let manifest: Value = answer.json().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{manifest:#}");
        manifest
    }

    /// Submits a request until it is accepted, under an idempotency key, so that it is one export however often it is sent.
    pub async fn submit_with_retries(&self, body: &Value) -> String {
        let key = uuid::Uuid::new_v4().to_string();
        wait_until("the api accepts an export", async || {
            let post = self.request(Method::POST, "/exports").header("idempotency-key", &key).json(body);
            let answer = post.timeout(ATTEMPT_TIMEOUT).send().await.ok()?;
            let status = answer.status();
            let text = answer.text().await.unwrap_or_default();
            if status == StatusCode::CREATED {
                let document: Value = serde_json::from_str(&text).ok()?;
                return Some(document["exportId"].as_str().unwrap().to_owned());
            }
            // A conflict: an api that was killed in the middle of it holds the key for a minute.
            assert!(status.is_server_error() || status == StatusCode::CONFLICT, "{status}: {text}");
            None
        })
        .await
    }

    /// Deletes an export; repeated while the api fails.
    pub async fn delete_with_retries(&self, id: &str) -> StatusCode {
        wait_until(&format!("the api deletes {id}"), async || {
            let delete = self.request(Method::DELETE, &format!("/exports/{id}"));
            let status = delete.timeout(ATTEMPT_TIMEOUT).send().await.ok()?.status();
            (!status.is_server_error()).then_some(status)
        })
        .await
    }

    /// Downloads a completed export; repeated while the api or the store fails.
    pub async fn download_with_retries(&self, id: &str) -> Vec<u8> {
        wait_until(&format!("export {id} is downloaded"), async || {
            let get = self.request(Method::GET, &format!("/exports/{id}/download"));
            let answer = get.timeout(ATTEMPT_TIMEOUT).send().await.ok()?;
            let status = answer.status();
            assert!(status == StatusCode::OK || status.is_server_error(), "download: {status}");
            if status == StatusCode::OK { answer.bytes().await.ok().map(|bytes| bytes.to_vec()) } else { None }
        })
        .await
    }
}
