//! The API against its own description: a property-based tester generates good and bad requests from the description. No
//! answer may be a server error or one that is not described.

use polyglot_test_kit::{System, python_command};
use polyglot_test_servers::needs_servers;
use reqwest::StatusCode;
use serde_json::Value;

/// Checks of every answer. That a request which fits its schema is accepted is none of them: no schema knows the columns.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,unsupported_method";

#[tokio::test]
async fn no_request_gets_an_answer_that_is_not_described() {
    needs_servers!();
    let system = System::with_rows(50).await;
    // Examples of the description are requests that work, so that there is something to list and to fetch.
    let id = system.submit("csv", None).await;
    system.wait_until_completed(&id).await;
    let (url, scratch) = (system.url(""), system.files.path().to_owned());
    let run = tokio::task::spawn_blocking(move || {
        python_command()
            // It writes its findings into the current folder.
            .current_dir(&scratch)
            .args(["-m", "schemathesis.cli", "run", &format!("{url}/openapi.json"), "--url", &url])
            .args(["--checks", CHECKS, "--max-examples", "30", "--seed", "1", "--continue-on-failure", "--no-color"])
            // This answer does not end, as described, so it cannot be checked.
            .args(["--exclude-operation-id", "follow_all_exports"])
            .args(["--request-timeout", "60"])
            .output()
            .expect("devstack/install --tests has installed schemathesis")
    });
    let output = run.await.unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
    // It finds nothing in an operation that it does not reach.
    let operations = |line: &str| {
        let (_, rest) = report.split_once(line).unwrap_or_else(|| panic!("{report}"));
        rest.trim_start().split(|it: char| !it.is_ascii_digit()).next().unwrap().parse::<usize>().unwrap()
    };
    assert_eq!(operations("Tested:"), operations("Selected:"), "{report}");
    assert!(operations("Tested:") >= 14, "{report}");
}

#[tokio::test]
async fn the_viewer_and_the_description_come_with_the_program() {
    needs_servers!();
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
    let start = system.get("/docs/viewer.js").await.text().await.unwrap();
    assert!(start.contains("/openapi.json"), "{start}");
    // The library's files are kept by browsers, compressed and revalidated.
    for (path, lifetime) in
        [("/docs/swagger-ui-bundle.js", "public, max-age=3600"), ("/docs/", "no-cache"), ("/", "no-cache")]
    {
        let request = || system.request(reqwest::Method::GET, path).header("accept-encoding", "gzip");
        let answer = request().send().await.unwrap();
        assert_eq!(answer.headers()["content-encoding"], "gzip", "{path}");
        assert_eq!(answer.headers()["vary"], "accept-encoding", "{path}");
        assert_eq!(answer.headers()["cache-control"], lifetime, "{path}");
        let again = request().header("if-none-match", &answer.headers()["etag"]).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
    }
}
