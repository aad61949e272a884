//! Who may do what: API keys and their scopes, tenants, and the page's sessions, on the real binaries.

mod audit;
mod keys;
mod policy;
mod routes;
mod sessions;
mod tenants;
mod tokens;

use std::process::{Command, Output};

use polyglot_test_kit::{Setup, System, binary};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

/// A system whose api asks who its clients are. Nothing has been asked of it yet.
async fn system_with(env: &[(&str, &str)]) -> System {
    System::without_worker(Setup::new(20, &[&[("AUTH", "on")], env].concat())).await
}

/// Runs `polyglot-api keys`.
fn run_keys(system: &System, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("polyglot-api"));
    system.environment(&mut command).arg("keys").args(arguments).output().unwrap()
}

/// What `polyglot-api keys` prints on standard output.
fn keys(system: &System, arguments: &[&str]) -> String {
    let output = run_keys(system, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A new key of this tenant with these scopes.
pub(crate) fn new_key(system: &System, tenant: &str, scopes: &str) -> String {
    keys(system, &["create", "--name", "test", "--tenant", tenant, "--scopes", scopes]).trim().to_owned()
}

pub(crate) const EVERYTHING_OF_A_CLIENT: &str = "exports:create,exports:read,exports:delete,datasets:read";

/// The id of a key, as `keys list` shows it.
fn id_of(key: &str) -> String {
    let id = key.split('_').nth(1).unwrap();
    uuid::Uuid::try_parse(id).unwrap().to_string()
}

pub(crate) fn request(system: &System, method: Method, path: &str, key: &str) -> RequestBuilder {
    system.request(method, path).bearer_auth(key)
}

pub(crate) async fn get(system: &System, path: &str, key: &str) -> Response {
    request(system, Method::GET, path, key).send().await.unwrap()
}

/// The name of the problem that an answer is.
async fn problem(answer: Response) -> (StatusCode, String) {
    let status = answer.status();
    let document: Value = answer.json().await.unwrap();
    let kind = document["type"].as_str().unwrap_or_else(|| panic!("{document:#}"));
    (status, kind.trim_start_matches("urn:polyglot:problem:").to_owned())
}

async fn submit(system: &System, key: &str, format: &str) -> String {
    let body = polyglot_test_kit::sample_request(format, None);
    let answer = request(system, Method::POST, "/exports", key).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    answer.json::<Value>().await.unwrap()["exportId"].as_str().unwrap().to_owned()
}
