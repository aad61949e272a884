//! The API against its own description: a property-based tester makes requests from it, good and bad ones, and no answer
//! may be a defect or one that the description does not have.

use std::process::Command;

use reqwest::StatusCode;
use serde_json::Value;

use crate::harness::System;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What is asked of every answer. That a request which fits its schema is accepted is not: no schema knows the columns.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,unsupported_method";

#[tokio::test]
async fn no_request_gets_an_answer_that_is_not_described() {
    let system = System::with_rows(50).await;
    // Examples of the description are requests that work, so that there is something to list and to fetch.
    let id = system.submit("csv", None).await;
    system.completed(&id).await;
    let (url, scratch) = (system.url(""), system.files.path().to_owned());
    let python = format!("{ROOT}/.tools/venv/bin/python");
    let run = tokio::task::spawn_blocking(move || {
        Command::new(&python)
            // It keeps what it has found where it runs.
            .current_dir(&scratch)
            .args(["-m", "schemathesis.cli", "run", &format!("{url}/openapi.json"), "--url", &url])
            .args(["--checks", CHECKS, "--max-examples", "30", "--seed", "1", "--continue-on-failure", "--no-color"])
            // One that does not end, as described, is no answer that could be looked at.
            .args(["--exclude-operation-id", "follow_all_exports"])
            .args(["--request-timeout", "60"])
            .output()
            .unwrap_or_else(|error| panic!("{python}: {error}; devstack/install --tests makes it"))
    });
    let output = run.await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    // It can find nothing wrong with what it does not reach.
    let operations = |line: &str| {
        let (_, rest) = told.split_once(line).unwrap_or_else(|| panic!("{told}"));
        rest.trim_start().split(|it: char| !it.is_ascii_digit()).next().unwrap().parse::<usize>().unwrap()
    };
    assert_eq!(operations("Tested:"), operations("Selected:"), "{told}");
    assert!(operations("Tested:") >= 14, "{told}");
}

#[tokio::test]
async fn the_viewer_and_the_description_come_with_the_program() {
    let system = System::with_rows(1).await;
    let description: Value = system.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(description["openapi"], "3.1.0");
    let page = system.get("/docs/").await;
    assert_eq!(page.status(), StatusCode::OK);
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("script-src 'self';"), "{policy}");
    let html = page.text().await.unwrap();
    // Everything that it loads is here.
    let loads = html
        .split(['"', '\''])
        .filter(|text| text.starts_with("./") || [".js", ".css"].iter().any(|ending| text.ends_with(ending)));
    let mut loaded = 0;
    for name in loads {
        assert!(!name.contains("//"), "{name} is somewhere else");
        let answer = system.get(&format!("/docs/{}", name.trim_start_matches("./"))).await;
        assert_eq!(answer.status(), StatusCode::OK, "{name}");
        loaded += 1;
    }
    assert!(loaded >= 4, "{html}");
    let start = system.get("/docs/swagger-initializer.js").await.text().await.unwrap();
    assert!(start.contains("/openapi.json"), "{start}");
}
