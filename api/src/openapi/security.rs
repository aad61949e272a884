//! What the description says about credentials: the two ways to send them, and the scopes that each operation needs.

use axum::http::Method;
use polyglot_core::scope::Scope;
use serde_json::{Value, json};

use crate::identity::{Access, COOKIE};

/// What an operation of the description needs.
pub(super) fn access(method: &str, path: &str) -> Access {
    let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).expect("the name of a method is a token");
    Access::to(&method, Some(path))
}

/// Adds the ways to say who one is, and to each operation what it needs.
pub(super) fn add(description: &mut Value) {
    description["components"]["securitySchemes"] = json!({
        "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, as `polyglot-api keys create` prints it."},
        "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "The page's cookie, as POST /session sets it."},
    });
    let paths = description["paths"].as_object_mut().expect("a description has paths");
    for (path, operations) in paths {
        for (method, operation) in operations.as_object_mut().expect("a path has operations") {
            let (security, needs) = match access(method, path) {
                Access::Public => (json!([]), "Needs no credentials.".to_owned()),
                Access::Identified => (either(&[]), "Needs an API key, with any scope.".to_owned()),
                Access::Scopes(scopes) => {
                    let names: Vec<String> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
                    let word = if names.len() == 1 { "scope" } else { "scopes" };
                    (either(scopes), format!("Needs the {word} {}.", names.join(" and ")))
                }
            };
            operation["security"] = security;
            let text = operation["description"].as_str().unwrap_or_default();
            operation["description"] = Value::String(format!("{text}\n\n{needs}").trim().to_owned());
        }
    }
}

fn either(scopes: &[Scope]) -> Value {
    let names: Vec<&str> = scopes.iter().map(|scope| scope.name()).collect();
    json!([{"apiKey": names}, {"session": names}])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_says_what_it_needs() {
        let mut description = json!({"paths": {
            "/exports": {"get": {}, "post": {"description": "Text."}}, "/health": {"get": {}},
            "/exports/preview": {"post": {}}, "/openapi.json": {"get": {}},
        }});
        add(&mut description);
        let security = |pointer: &str| description.pointer(pointer).unwrap()["security"].clone();
        assert_eq!(security("/paths/~1exports/get")[0], json!({"apiKey": ["exports:read"]}));
        assert_eq!(security("/paths/~1exports/post")[1], json!({"session": ["exports:create"]}));
        assert_eq!(security("/paths/~1health/get"), json!([]));
        assert_eq!(security("/paths/~1openapi.json/get")[0], json!({"apiKey": []}));
        assert_eq!(
            description["paths"]["/exports"]["post"]["description"],
            "Text.\n\nNeeds the scope `exports:create`."
        );
        let preview = &description["paths"]["/exports/preview"]["post"]["description"];
        assert_eq!(preview, "Needs the scopes `exports:create` and `exports:read`.");
    }
}
