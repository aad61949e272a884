//! Every route of the description, without credentials, with the lowest scopes, and with a key of another tenant.

use polyglot_test_servers::needs_servers;

use super::*;

/// Scopes, and the first of each operation's own.
const SCOPES: [&str; 6] = ["exports:create", "exports:read", "exports:delete", "datasets:read", "metrics", "admin"];

/// An operation of the description.
struct Operation {
    method: Method,
    path: String,
    id: String,
    /// The scopes that it needs; `None`: no credentials.
    scopes: Option<Vec<String>>,
}

async fn operations(system: &System, key: &str) -> Vec<Operation> {
    let description: Value = get(system, "/openapi.json", key).await.json().await.unwrap();
    let mut operations = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let security = operation["security"].as_array().unwrap();
            let scopes = security.iter().find_map(|way| way["apiKey"].as_array());
            operations.push(Operation {
                method: Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(),
                path: path.clone(),
                id: operation["operationId"].as_str().unwrap().to_owned(),
                scopes: scopes.map(|scopes| scopes.iter().map(|it| it.as_str().unwrap().to_owned()).collect()),
            });
        }
    }
    assert!(operations.len() >= 18, "{}", operations.len());
    operations
}

fn filled(path: &str, export: &str) -> String {
    path.replace("{id}", export).replace("{name}", "records")
}

/// Operations that everybody may ask for: probes, and the sign-in of the page.
const PUBLIC: [&str; 5] = ["is_alive", "is_ready", "inspect_session", "sign_in", "sign_out"];

#[tokio::test]
async fn every_route_asks_who_it_is_and_for_its_scope() {
    needs_servers!();
    let system = system_with(&[("BENCHMARK", "on")]).await;
    let admin = new_key(&system, "default", "admin");
    let export = submit(&system, &admin, "csv").await;
    let single: Vec<(&str, String)> = SCOPES.iter().map(|scope| (*scope, new_key(&system, "default", scope))).collect();
    for Operation { method, path, id, scopes } in operations(&system, &admin).await {
        let path = filled(&path, &export);
        let Some(scopes) = scopes else {
            assert!(PUBLIC.contains(&id.as_str()), "{method} {path} is open");
            continue;
        };
        let answer = system.request(method.clone(), &path).json(&serde_json::json!({})).send().await.unwrap();
        assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"polyglot\"", "{method} {path}");
        assert_eq!(
            problem(answer).await,
            (StatusCode::UNAUTHORIZED, "not-authenticated".to_owned()),
            "{method} {path}"
        );
        for (scope, key) in &single {
            if *scope == "admin" || scopes.iter().all(|needed| needed == scope) {
                continue;
            }
            let answer = request(&system, method.clone(), &path, key).send().await.unwrap();
            let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
            let (status, kind) = problem(answer).await;
            assert_eq!(
                (status, kind.as_str()),
                (StatusCode::FORBIDDEN, "missing-scope"),
                "{method} {path} with {scope}"
            );
            assert!(scopes.iter().any(|needed| challenge.contains(needed)), "{method} {path}: {challenge}");
        }
    }
    // The right scope is enough.
    for (scope, path) in [("exports:read", "/exports"), ("datasets:read", "/datasets"), ("metrics", "/metrics")] {
        let (_, key) = single.iter().find(|(known, _)| *known == scope).unwrap();
        assert_eq!(get(&system, path, key).await.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_described_is_closed_too() {
    needs_servers!();
    let system = system_with(&[]).await;
    for path in
        ["/docs", "/docs/", "/docs/viewer.js", "/nowhere", "/exports/", "/audit", "//exports", "/exports/../metrics"]
    {
        assert_eq!(system.get(path).await.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    for method in [Method::PUT, Method::PATCH, Method::OPTIONS, Method::HEAD, Method::TRACE] {
        let answer = system.request(method.clone(), "/exports").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{method}");
    }
    // The page is where people sign in.
    for path in ["/", "/health", "/session"] {
        assert_eq!(system.get(path).await.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn an_export_of_another_tenant_does_not_exist() {
    needs_servers!();
    let mut system = system_with(&[]).await;
    system.add_worker();
    let ours = new_key(&system, "acme", EVERYTHING_OF_A_CLIENT);
    let theirs = new_key(&system, "other", EVERYTHING_OF_A_CLIENT);
    let admin_elsewhere = new_key(&system, "third", "admin");
    let export = submit(&system, &ours, "csv").await;
    let file = get(&system, &format!("/exports/{export}/download?delivery=proxy"), &ours).await;
    assert_eq!(file.status(), StatusCode::OK);
    let unknown = uuid::Uuid::now_v7().to_string();
    let mut compared = 0;
    for Operation { method, path, .. } in operations(&system, &ours).await {
        if !path.contains("{id}") {
            continue;
        }
        for key in [&theirs, &admin_elsewhere] {
            let ask = async |id: &str| {
                let answer = request(&system, method.clone(), &filled(&path, id), key).send().await.unwrap();
                let (status, headers) = (answer.status(), answer.headers().clone());
                let text = answer.text().await.unwrap().replace(id, "ID");
                let mut document: Value =
                    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {path}: {text}"));
                document["requestId"] = Value::Null;
                let names: Vec<String> = headers.keys().map(ToString::to_string).collect();
                (status, names, document)
            };
            let (other, nobody) = (ask(&export).await, ask(&unknown).await);
            assert_eq!(other, nobody, "{method} {path}");
            assert_eq!(other.0, StatusCode::NOT_FOUND, "{method} {path}");
            compared += 1;
        }
    }
    assert!(compared >= 10, "{compared}");
    // It is still there for its owner.
    assert_eq!(get(&system, &format!("/exports/{export}/manifest"), &ours).await.status(), StatusCode::OK);
}
