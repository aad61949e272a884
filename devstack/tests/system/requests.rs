//! Answers of the api to good requests and to every kind of bad one, and the two deliveries of a file.

use polyglot_test_kit::{Setup, System, sample_request};
use polyglot_test_servers::needs_servers;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

async fn problem(answer: reqwest::Response, status: u16) -> Value {
    assert_eq!(answer.status().as_u16(), status, "{:?}", answer.text().await);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let request_id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["status"], status, "{body:#}");
    assert_eq!(body["requestId"], request_id.as_str(), "{body:#}");
    for field in ["type", "title", "detail", "instance", "error"] {
        assert!(body[field].is_string(), "{field} in {body:#}");
    }
    body
}

/// The fields that a problem names.
fn fields(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn bad_requests_are_refused_with_the_field_named() {
    needs_servers!();
    let system = System::without_worker(Setup { rows: 3, ..Setup::default() }).await;
    let column = json!({"source": "id", "target": "id"});
    for (body, field) in [
        (json!({"format": "yaml", "columns": [column]}), "format"),
        (json!({"columns": [column]}), "format"),
        (json!({"format": 7, "columns": [column]}), "format"),
        (json!({"format": "csv"}), "columns"),
        (json!({"format": "csv", "columns": []}), "columns"),
        (json!({"format": "csv", "columns": "id"}), "columns"),
        (json!({"format": "csv", "columns": ["id"]}), "columns[0]"),
        (json!({"format": "csv", "columns": [column, {"source": "", "target": "x"}]}), "columns[1].source"),
        (json!({"format": "csv", "columns": [{"source": "id", "target": ""}]}), "columns[0].target"),
        (json!({"format": "csv", "columns": [{"source": "id"}]}), "columns[0].target"),
        (json!({"format": "csv", "columns": [column, column]}), "columns[1].target"),
        (json!({"format": "csv", "columns": [{"source": "nope", "target": "x"}]}), "columns[0].source"),
        (
            json!({"format": "csv", "columns": [{"source": "id\"; DROP TABLE records; --", "target": "x"}]}),
            "columns[0].source",
        ),
        (json!({"format": "parquet", "columns": [column], "compression": "gzip"}), "compression"),
        (json!({"format": "csv", "columns": [column], "compression": "brotli"}), "compression"),
        (json!({"format": "csv", "columns": [column], "dataset": "secrets"}), "dataset"),
        (json!({"format": "csv", "columns": [column], "rowLimit": 1}), "rowLimit"),
    ] {
        let problem = problem(system.post(&body).await, 400).await;
        assert!(fields(&problem).contains(&field), "{body} gives {problem:#}");
    }
    // Every bad field at once.
    let all = json!({"format": "yaml", "columns": [{"source": "", "target": ""}], "compression": 3});
    let all = problem(system.post(&all).await, 400).await;
    for field in ["format", "columns[0].source", "columns[0].target", "compression"] {
        assert!(fields(&all).contains(&field), "{all:#}");
    }
    let send = |content_type: &'static str, body: String| {
        system.request(Method::POST, "/exports").header("content-type", content_type).body(body).send()
    };
    problem(send("application/json", "{\"format\": \"csv\",".to_owned()).await.unwrap(), 400).await;
    problem(send("application/json", "[]".to_owned()).await.unwrap(), 400).await;
    problem(send("application/json", String::new()).await.unwrap(), 400).await;
    problem(send("text/plain", sample_request("csv", None).to_string()).await.unwrap(), 400).await;
    problem(send("application/json", format!("\"{}\"", "x".repeat(2 << 20))).await.unwrap(), 413).await;
    problem(system.get("/exports/not-a-uuid").await, 400).await;
    problem(system.get("/exports/not-a-uuid/download").await, 400).await;
    let unknown = uuid::Uuid::now_v7();
    problem(system.get(&format!("/exports/{unknown}")).await, 404).await;
    problem(system.get(&format!("/exports/{unknown}/download")).await, 404).await;
    problem(system.delete(&unknown.to_string()).await, 404).await;
    problem(system.get("/exports?status=done").await, 400).await;
    problem(system.get("/exports?limit=0").await, 400).await;
    problem(system.get("/exports?cursor=%25").await, 400).await;
    problem(system.get("/no-such-page").await, 404).await;
    problem(system.request(Method::PUT, "/exports").send().await.unwrap(), 405).await;
    // None was accepted, and the table still exists.
    assert_eq!(system.count("SELECT count(*) FROM polyglot.exports").await, 0);
    assert_eq!(system.count("SELECT count(*) FROM public.records").await, 3);
}

#[tokio::test]
async fn an_accepted_export_and_its_message_are_one_transaction() {
    needs_servers!();
    let system = System::without_worker(Setup { rows: 1, ..Setup::default() }).await;
    let id = system.submit("csv", None).await;
    let state = system.state(&id).await;
    assert_eq!(state["status"], "pending");
    for field in ["exportId", "dataset", "format", "compression", "attempt", "error", "createdAt", "startedAt", "links"]
    {
        assert!(state.get(field).is_some(), "{field} in {state:#}");
    }
    for field in ["rows", "rowsTotal", "bytes", "shardsDone", "shards", "etaSeconds"] {
        assert!(state["progress"].get(field).is_some(), "{field} in {state:#}");
    }
    // The relay has published the message or will publish it.
    assert_eq!(system.count("SELECT count(*) FROM polyglot.exports").await, 1);
}

#[tokio::test]
async fn the_list_is_newest_first_and_pages() {
    needs_servers!();
    let system = System::without_worker(Setup { rows: 1, ..Setup::default() }).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(system.submit("csv", None).await);
    }
    ids.reverse();
    let (mut seen, mut next) = (Vec::new(), Some("/exports?limit=2".to_owned()));
    while let Some(path) = next {
        let answer = system.get(&path).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let link = answer.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        next = link.map(|link| link.split(['<', '>']).nth(1).unwrap().to_owned());
        let body: Value = answer.json().await.unwrap();
        let page = body["exports"].as_array().unwrap_or_else(|| panic!("{body:#}"));
        assert!(page.len() <= 2);
        seen.extend(page.iter().map(|export| export["exportId"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen, ids);
    let none: Value = system.get("/exports?status=completed").await.json().await.unwrap();
    assert_eq!(none["exports"], json!([]));
}

#[tokio::test]
async fn both_deliveries_give_the_same_file_and_headers() {
    needs_servers!();
    let system = System::with_rows(2_000).await;
    for (format, compression, content_type) in [
        ("csv", None, "text/csv; charset=utf-8"),
        ("json", Some("gzip"), "application/json; charset=utf-8"),
        ("jsonl", None, "application/x-ndjson"),
        ("xml", Some("gzip"), "application/xml; charset=utf-8"),
        ("parquet", None, "application/octet-stream"),
    ] {
        let id = system.submit(format, compression).await;
        system.wait_until_completed(&id).await;
        let mut bodies = Vec::new();
        for delivery in ["redirect", "proxy"] {
            let answer = system.get(&format!("/exports/{id}/download?delivery={delivery}")).await;
            assert_eq!(answer.status(), StatusCode::OK, "{format} {delivery}");
            let headers = answer.headers();
            assert_eq!(headers["content-type"], content_type);
            assert_eq!(headers["content-disposition"], format!("attachment; filename=\"export-{id}.{format}\""));
            let encoding = headers.get("content-encoding").map(|value| value.to_str().unwrap());
            assert_eq!(encoding, compression, "{format} {delivery}");
            bodies.push(answer.bytes().await.unwrap());
        }
        assert!(bodies[0] == bodies[1], "{format}");
    }
    let id = system.submit("csv", None).await;
    system.wait_until_completed(&id).await;
    let whole = system.download(&id).await;
    let path = format!("/exports/{id}/download?delivery=proxy");
    let part = system.request(Method::GET, &path).header("range", "bytes=10-19").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], format!("bytes 10-19/{}", whole.len()));
    let etag = part.headers()["etag"].clone();
    assert_eq!(part.bytes().await.unwrap(), whole[10..20]);
    let beyond = format!("bytes={}-", whole.len());
    let beyond = system.request(Method::GET, &path).header("range", beyond).send().await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let same = system.request(Method::GET, &path).header("range", "bytes=0-0").header("if-range", etag);
    assert_eq!(same.send().await.unwrap().status(), StatusCode::PARTIAL_CONTENT);
    let other = system.request(Method::GET, &path).header("range", "bytes=0-0").header("if-range", "\"other\"");
    assert_eq!(other.send().await.unwrap().status(), StatusCode::OK);
    let longer = format!("bytes=-{}", whole.len() + 262_144);
    for (range, status, bytes) in [
        (longer.as_str(), 206, &whole[..]),
        ("bytes=-3", 206, &whole[whole.len() - 3..]),
        ("bytes=5-2", 200, &whole[..]),
        ("bytes=0-1,4-5", 200, &whole[..]),
        ("rows=0-1", 200, &whole[..]),
    ] {
        let answer = system.request(Method::GET, &path).header("range", range).send().await.unwrap();
        assert_eq!(answer.status(), status, "{range}");
        assert_eq!(answer.headers().contains_key("content-range"), status == 206, "{range}");
        assert!(answer.bytes().await.unwrap() == bytes, "{range}");
    }
    let head = system.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.headers()["content-length"], whole.len().to_string());
    assert_eq!(head.headers()["accept-ranges"], "bytes");
    let head = system.request(Method::HEAD, &format!("/exports/{id}/download")).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    problem(system.get(&format!("/exports/{id}/download?delivery=pigeon")).await, 400).await;
}

#[tokio::test]
async fn a_download_waits_for_the_export_and_says_when_it_does_not() {
    needs_servers!();
    let mut system = System::without_worker(Setup { rows: 100, ..Setup::default() }).await;
    let id = system.submit("csv", None).await;
    let path = format!("/exports/{id}/download");
    let early = system.request(Method::GET, &path).header("prefer", "wait=0").send().await.unwrap();
    assert_eq!(early.status(), StatusCode::ACCEPTED);
    assert!(early.headers().contains_key("retry-after"));
    let body: Value = early.json().await.unwrap();
    assert_eq!(body["status"], "pending");
    let waiting = tokio::spawn(system.request(Method::GET, &path).header("prefer", "wait=100").send());
    system.wait_until_ready().await;
    system.add_worker();
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.text().await.unwrap().lines().next(), Some("id,created_at,name,value,metadata"));
}

#[tokio::test]
async fn a_compressed_file_is_handed_out_as_the_client_takes_it() {
    needs_servers!();
    let system = System::with_rows(2_000).await;
    let (_, _, plain) = system.export(&sample_request("csv", None)).await;
    let (id, _, packed) = system.export(&sample_request("csv", Some("gzip"))).await;
    let path = format!("/exports/{id}/download?delivery=proxy");
    let get = async |accepted: Option<&str>, others: &[(&str, &str)]| {
        let mut request = system.request(Method::GET, &path);
        for (name, value) in others.iter().copied().chain(accepted.map(|value| ("accept-encoding", value))) {
            request = request.header(name, value);
        }
        request.send().await.unwrap()
    };
    let mut tags = Vec::new();
    for (accepted, is_unpacked) in [
        (None, false),
        (Some("gzip"), false),
        (Some("br, *;q=0.5"), false),
        (Some("identity"), true),
        (Some("gzip;q=0"), true),
        (Some("zstd"), true),
    ] {
        let answer = get(accepted, &[]).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let headers = answer.headers().clone();
        assert_eq!(headers["vary"], "Accept-Encoding", "{accepted:?}");
        assert_eq!(headers["content-type"], "text/csv; charset=utf-8");
        assert_eq!(headers["content-disposition"], format!("attachment; filename=\"export-{id}.csv\""));
        assert_eq!(headers.contains_key("content-encoding"), !is_unpacked, "{accepted:?}");
        assert_eq!(headers.contains_key("accept-ranges"), !is_unpacked, "{accepted:?}");
        assert!(answer.bytes().await.unwrap() == if is_unpacked { &plain[..] } else { &packed[..] }, "{accepted:?}");
        tags.push(headers["etag"].to_str().unwrap().to_owned());
    }
    assert_eq!((&tags[0], &tags[3]), (&tags[1], &tags[4]));
    assert_ne!(tags[0], tags[3]);
    // What is unpacked has no ranges.
    assert_eq!(get(Some("identity"), &[("range", "bytes=0-9")]).await.status(), StatusCode::OK);
    let part = get(Some("gzip"), &[("range", "bytes=0-9")]).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert!(part.bytes().await.unwrap() == packed[..10]);

    // What the client has already is not sent again.
    for (accepted, tag, status) in [
        (None, tags[0].as_str(), 304),
        (None, &format!("\"other\", W/{}", tags[0]), 304),
        (None, "*", 304),
        (None, "\"other\"", 200),
        (None, tags[3].as_str(), 200),
        (Some("identity"), tags[3].as_str(), 304),
        (Some("identity"), tags[0].as_str(), 200),
    ] {
        let answer = get(accepted, &[("if-none-match", tag), ("range", "bytes=0-9")]).await;
        let status = if status == 200 && accepted.is_none() { 206 } else { status };
        assert_eq!(answer.status(), status, "{accepted:?} {tag}");
        assert_eq!(answer.headers()["etag"], tags[if accepted.is_some() { 3 } else { 0 }].as_str());
        assert_eq!(answer.headers()["vary"], "Accept-Encoding");
        if status == 304 {
            assert!(!answer.headers().contains_key("content-encoding"));
            assert!(answer.bytes().await.unwrap().is_empty());
        }
    }
    let head = system.request(Method::HEAD, &path).header("if-none-match", "*").send().await.unwrap();
    assert_eq!(head.status(), StatusCode::NOT_MODIFIED);

    // zstd is not unpacked here: who does not take it gets a file that says what it is.
    let (id, _, packed) = system.export(&sample_request("csv", Some("zstd"))).await;
    let request = system.request(Method::GET, &format!("/exports/{id}/download?delivery=proxy"));
    let answer = request.header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(answer.headers()["content-disposition"], format!("attachment; filename=\"export-{id}.csv.zst\""));
    assert_eq!(answer.headers()["content-type"], "application/zstd");
    assert!(!answer.headers().contains_key("content-encoding"));
    assert!(answer.bytes().await.unwrap() == packed);
}

#[tokio::test]
async fn a_compressed_file_stays_one_where_that_was_asked_for() {
    needs_servers!();
    let system = System::with_rows(100).await;
    for (format, compression, suffix) in [("csv", "gzip", "gz"), ("jsonl", "zstd", "zst"), ("xml", "gzip", "gz")] {
        let mut request = sample_request(format, Some(compression));
        request["options"] = json!({"encoding": "file"});
        let id = system.submit_request(&request).await;
        system.wait_until_completed(&id).await;
        assert_eq!(system.manifest(&id).await["options"]["encoding"], "file");
        for delivery in ["redirect", "proxy"] {
            let path = format!("/exports/{id}/download?delivery={delivery}");
            let answer = system.request(Method::GET, &path).header("accept-encoding", "identity").send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            let name = format!("attachment; filename=\"export-{id}.{format}.{suffix}\"");
            assert_eq!(answer.headers()["content-disposition"], name, "{delivery}");
            assert_eq!(answer.headers()["content-type"], format!("application/{compression}"), "{delivery}");
            assert!(!answer.headers().contains_key("content-encoding"), "{delivery}");
            // Some stores send one of their own.
            assert!(delivery == "redirect" || !answer.headers().contains_key("vary"));
        }
    }
    let mut request = sample_request("csv", None);
    request["options"] = json!({"encoding": "file"});
    let refused = problem(system.post(&request).await, 400).await;
    assert_eq!(refused["errors"][0]["field"], "options.encoding", "{refused:#}");
    for (format, encoding) in [("csv", "gzip"), ("parquet", "file")] {
        let mut request = sample_request(format, None);
        request["options"] = json!({"encoding": encoding});
        let refused = problem(system.post(&request).await, 400).await;
        assert_eq!(refused["errors"][0]["field"], "options.encoding", "{refused:#}");
    }
}

/// What `curl -fL` does: it follows 50 redirects, and takes any 2xx for the file.
fn curl() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::limited(50)).build().unwrap()
}

#[tokio::test]
async fn a_client_that_did_not_ask_for_a_status_never_gets_one_as_the_file() {
    needs_servers!();
    let env = [("DOWNLOAD_WAIT_MS", "300")];
    let mut system = System::without_worker(Setup::new(100, &env)).await;
    let id = system.submit("csv", None).await;
    let path = format!("/exports/{id}/download");
    let plain = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();

    // It is redirected to itself, with everything that it asked for.
    let first = plain.get(system.url(&format!("{path}?delivery=proxy"))).send().await.unwrap();
    assert_eq!(first.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(first.headers()["location"], "download?delivery=proxy&waits=1");
    assert_eq!(first.headers()["cache-control"], "no-store");
    let head = plain.head(system.url(&format!("{path}?waits=7"))).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(head.headers()["location"], "download?waits=8");

    // The number of redirects has an end, which `curl -f` takes for a failure, and a client cannot move it.
    let last = curl().get(system.url(&path)).send().await.unwrap();
    assert_eq!(last.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(last.url().query().unwrap().ends_with("waits=48"), "{}", last.url());
    assert!(last.headers().contains_key("retry-after"));
    let document = problem(last, 503).await;
    assert_eq!(document["type"], "urn:polyglot:problem:file-not-ready");
    for bad in ["waits=49", "waits=-1", "waits=", "waits=1&waits=2", "wait=121", "wait=soon"] {
        problem(system.get(&format!("{path}?{bad}")).await, 400).await;
    }

    // Who asks for a status gets it.
    for (query, prefer, applied) in [
        ("", Some("respond-async"), Some("respond-async")),
        ("", Some("respond-async, wait=1"), Some("respond-async, wait=1")),
        ("", Some("wait=1"), Some("wait=1")),
        ("?wait=0", None, None),
        ("?wait=1&delivery=proxy", None, None),
    ] {
        let mut request = plain.get(system.url(&format!("{path}{query}")));
        if let Some(prefer) = prefer {
            request = request.header("prefer", prefer);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{query} {prefer:?}");
        let said = answer.headers().get("preference-applied").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(said.as_deref(), applied, "{query} {prefer:?}");
        assert!(answer.headers().contains_key("retry-after"));
    }

    // One that takes longer than a single answer may wait is fetched all the same.
    let waiting = tokio::spawn(curl().get(system.url(&path)).send());
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    system.wait_until_ready().await;
    system.add_worker();
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.text().await.unwrap().starts_with("id,created_at,name,value,metadata\n"));
}

#[tokio::test]
async fn a_redirect_is_presigned_and_never_logged() {
    needs_servers!();
    // The log levels for debugging the service.
    let verbose = "info,polyglot=trace,sqlx=debug";
    let system = System::start(Setup::new(10, &[("RUST_LOG", verbose)])).await;
    let id = system.submit("csv", None).await;
    system.wait_until_completed(&id).await;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let answer = client.get(system.url(&format!("/exports/{id}/download"))).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::FOUND);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let location = answer.headers()["location"].to_str().unwrap();
    assert!(location.contains("X-Amz-Signature="), "{location}");
    let signature = location.split("X-Amz-Signature=").nth(1).unwrap().split('&').next().unwrap();
    for service in system.workers.iter().chain(&system.api) {
        let log = service.log();
        assert!(log.contains(&id), "{} logs nothing", service.name);
        assert!(!log.contains(signature) && !log.contains("X-Amz-"), "{} logged it", service.name);
    }
    // Nor is it in any table.
    for table in ["exports", "shards", "uploads", "outbox", "idempotency_keys"] {
        let sql = format!("SELECT count(*) FROM polyglot.{table} t WHERE t::text LIKE '%X-Amz-%'");
        let found: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&system.pool).await.unwrap();
        assert_eq!(found, 0, "{table}");
    }
    // Without its signature the store refuses.
    let bare = client.get(location.split('?').next().unwrap()).send().await.unwrap();
    assert_eq!(bare.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn deleting_takes_the_file_away() {
    needs_servers!();
    let system = System::with_rows(10).await;
    let id = system.submit("csv", None).await;
    system.wait_until_completed(&id).await;
    assert_eq!(system.bucket.objects().await.len(), 1);
    for _ in 0..2 {
        let answer = system.delete(&id).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(system.state(&id).await["status"], "expired");
    }
    problem(system.get(&format!("/exports/{id}/download")).await, 410).await;
    system.wait_until_cleaned_up().await;
}

#[tokio::test]
async fn the_benchmark_runs_real_exports_and_cleans_up() {
    needs_servers!();
    let system = System::with_rows(3_000).await;
    let (first, second) = tokio::join!(system.get("/exports/benchmark"), async {
        // The first one has to be running, which nothing shows before its answer.
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        system.get("/exports/benchmark?rows=10").await
    });
    problem(second, 409).await;
    assert_eq!(first.status(), StatusCode::OK);
    let body: Value = first.json().await.unwrap();
    assert_eq!(body["datasetRowCount"], 3_000, "{body:#}");
    let results = body["results"].as_array().unwrap();
    let formats: Vec<_> = results.iter().map(|result| result["format"].as_str().unwrap()).collect();
    assert_eq!(formats, ["csv", "json", "xml", "parquet"]);
    for result in results {
        assert!(result["durationSeconds"].as_f64().unwrap() > 0.0, "{body:#}");
        assert!(result["fileSizeBytes"].as_i64().unwrap() > 50_000, "{body:#}");
        let memory = result["peakMemoryMB"].as_f64().unwrap();
        assert!(memory > 5.0 && memory < 256.0, "{body:#}");
    }
    system.wait_until_cleaned_up().await;
    let few = system.get("/exports/benchmark?rows=10&formats=jsonl").await;
    let body: Value = few.json().await.unwrap();
    assert_eq!(body["results"][0]["format"], "jsonl", "{body:#}");
    assert!(body["results"][0]["fileSizeBytes"].as_i64().unwrap() < 10_000, "{body:#}");
    problem(system.get("/exports/benchmark?formats=csv,pdf").await, 400).await;
    problem(system.get("/exports/benchmark?rows=none").await, 400).await;
}

#[tokio::test]
async fn health_says_what_is_down() {
    needs_servers!();
    let system = System::without_worker(Setup { rows: 0, ..Setup::default() }).await;
    let health: Value = system.get("/health").await.json().await.unwrap();
    assert_eq!(health["status"], "ok");
    assert!(health["timestamp"].as_str().unwrap().contains('T'));
    system.wait_until_ready().await;
}

#[tokio::test]
async fn the_request_is_given_back_and_loses_its_values_with_a_deletion() {
    needs_servers!();
    let system = System::with_rows(20).await;
    let body = json!({
        "dataset": "records", "format": "csv", "compression": "gzip",
        "columns": [{"source": "name", "target": "Name"}, {"source": "id", "target": "n"}],
        "filters": [
            {"column": "id", "op": "in", "value": ["3", "4"]}, {"column": "name", "op": "is_not_null"},
            {"column": "id", "op": "<", "value": "12345678901234567"},
        ],
        "orderBy": [{"column": "name", "direction": "desc"}],
        "options": {"profile": "spreadsheet", "null": "NULL"}, "layout": "files", "parallelism": 1,
    });
    let accepted: Value = system.post(&body).await.json().await.unwrap();
    let id = accepted["exportId"].as_str().unwrap();
    let told = system.wait_until_completed(id).await;
    assert_eq!((&told["request"], &told["deleted"], &told["benchmark"]), (&body, &json!(false), &json!(false)));
    // The same body is accepted again, and means the same.
    let again: Value = system.post(&told["request"]).await.json().await.unwrap();
    assert_eq!(system.wait_until_completed(again["exportId"].as_str().unwrap()).await["request"], body);

    let list: Value = system.get("/exports").await.json().await.unwrap();
    assert!(list["exports"].as_array().unwrap().iter().all(|export| export.get("request").is_none()), "{list:#}");

    assert_eq!(system.delete(id).await.status(), StatusCode::NO_CONTENT);
    let told: Value = system.get(&format!("/exports/{id}")).await.json().await.unwrap();
    assert_eq!((&told["status"], &told["deleted"]), (&json!("expired"), &json!(true)));
    let kept =
        json!([{"column": "id", "op": "in"}, {"column": "name", "op": "is_not_null"}, {"column": "id", "op": "<"}]);
    assert_eq!(told["request"]["filters"], kept);
    // Without its values it asks for nothing.
    let problem = problem(system.post(&told["request"]).await, 400).await;
    assert_eq!(fields(&problem), ["filters[0].value", "filters[2].value"]);
}

#[tokio::test]
async fn a_request_of_a_newer_version_hides_nothing_else() {
    needs_servers!();
    let system = System::without_worker(Setup { rows: 3, ..Setup::default() }).await;
    let id = system.submit_request(&sample_request("csv", None)).await;
    let change = "UPDATE polyglot.exports SET request = jsonb_set(request, '{filters}', '[{\"column\": \"id\", \"op\": \"near\"}]')";
    sqlx::query(change).execute(&system.pool).await.unwrap();
    let told: Value = system.get(&format!("/exports/{id}")).await.json().await.unwrap();
    assert_eq!((&told["status"], &told["request"]), (&json!("pending"), &Value::Null));
}
