//! `GET /openapi.json`: the description, made from the handlers and the types that they answer, with every problem.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::OpenApi;

use super::submission::ExportSubmission;
use super::{problems, security};
use crate::config::Delivery;
use crate::download::handler as download;
use crate::events::handlers as events;
use crate::exports::{benchmark, delete, inspect, list, manifest, preview, submit};
use crate::problem::Problem;
use crate::session::{self, SignIn};
use crate::{audit, datasets, health, limits, metrics};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Polyglot data export",
        description = "Asks for a file of any result in PostgreSQL, follows it, and hands it out. An export is accepted at once and \
                       made by workers; `GET /exports/{id}/download` waits for its file, by redirects to itself.\n\nSend an API key with each request: `Authorization: Bearer polyglot_…`. Exports belong to the key's tenant; what belongs to another is 404.\n\nEvery answer has an `X-Request-Id`. Errors are `application/problem+json` (RFC 9457).",
    ),
    servers((url = "/", description = "This server")),
    tags(
        (name = "exports", description = "Asking for files, following them, fetching them."),
        (name = "datasets", description = "What may be exported."),
        (name = "session", description = "Signing in with a browser."),
        (name = "operation", description = "How the service is."),
    ),
    paths(
        submit::submit, list::list, preview::preview, inspect::inspect, delete::delete, download::download,
        manifest::manifest, events::follow_export, events::follow_all_exports, benchmark::benchmark, datasets::list,
        datasets::inspect, session::inspect, session::sign_in, session::sign_out, audit::read, limits::inspect, health::alive, health::ready, metrics::scrape, describe,
    ),
    components(schemas(Problem, ExportSubmission, Delivery, SignIn)),
)]
struct Description;

static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
    let mut description = serde_json::to_value(Description::openapi()).expect("an OpenAPI document serializes");
    security::add(&mut description);
    problems::add(&mut description);
    description.to_string()
});

/// Get this description.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "describe_api", tag = "operation",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object)),
)]
pub(crate) async fn describe() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn described() -> Value {
        serde_json::from_str(&DESCRIPTION).unwrap()
    }

    #[test]
    fn it_is_a_whole_description() {
        let description = described();
        assert_eq!(description["openapi"], "3.1.0");
        let mut operations = 0;
        for (path, item) in description["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                operations += 1;
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
                let internal =
                    &responses["500"]["content"]["application/problem+json"]["examples"]["internal"]["value"];
                assert_eq!(internal["status"], 500, "{method} {path}");
                assert!(operation["summary"].is_string() && operation["tags"][0].is_string(), "{method} {path}");
            }
        }
        assert!(operations >= 15, "{operations}");
    }

    #[test]
    fn it_begins_with_what_comes_first_and_says_what_to_do() {
        let place = |path: &str| DESCRIPTION.find(&format!("\"{path}\":")).unwrap_or_else(|| panic!("{path}"));
        let places = ["/exports", "/exports/{id}", "/exports/{id}/download", "/datasets", "/health"].map(place);
        assert!(places.is_sorted(), "{places:?}");
        for item in described()["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                let summary = operation["summary"].as_str().unwrap();
                let verb = summary.split(' ').next().unwrap();
                assert!(!verb.ends_with('s') && verb.len() > 2, "not in the imperative: {summary}");
            }
        }
    }

    #[test]
    fn what_is_referred_to_is_there() {
        fn check(value: &Value, whole: &Value) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(to)) = object.get("$ref") {
                        assert!(whole.pointer(to.trim_start_matches('#')).is_some(), "{to}");
                    }
                    object.values().for_each(|value| check(value, whole));
                }
                Value::Array(items) => items.iter().for_each(|value| check(value, whole)),
                _ => {}
            }
        }
        let description = described();
        check(&description, &description);
    }
}
