//! Texts that mean something to SQL, headers, paths, spreadsheets, XML, logs or shells, put into each field that a client gives. The
//! corpus is `injections.json`: a text that once did harm goes there.

use std::collections::HashSet;
use std::fmt::Write;

use polyglot_test_kit::{Setup, System};
use polyglot_test_servers::needs_servers;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const CORPUS: &str = include_str!("injections.json");

fn corpus() -> Vec<String> {
    let texts: Vec<String> = serde_json::from_str(CORPUS).unwrap();
    assert!(texts.len() > 40);
    texts
}

/// Every text of the corpus in the column `s` of `records`, and the id of its row.
async fn system() -> System {
    let mut system = System::without_worker(Setup::new(0, &[("LOG_FORMAT", "json")])).await;
    let table = "DROP TABLE public.records; CREATE TABLE public.records (id bigint PRIMARY KEY, s text, j jsonb)";
    sqlx::raw_sql(table).execute(&system.pool).await.unwrap();
    for (id, text) in corpus().iter().enumerate() {
        let insert = sqlx::query("INSERT INTO public.records VALUES ($1, $2, jsonb_build_object($2::text, $2::text))");
        insert.bind(i64::try_from(id).unwrap()).bind(text).execute(&system.pool).await.unwrap();
    }
    system.wait_until_ready().await;
    system.add_worker();
    system
}

fn request(format: &str, target: &str) -> Value {
    json!({"format": format, "columns": [{"source": "id", "target": "id"}, {"source": "s", "target": target}]})
}

/// Every line of every log is one object of ours: no text has begun a line or an object of its own.
fn assert_logs_whole(system: &System) {
    for log in system.api.iter().chain(&system.workers).map(polyglot_test_kit::Process::log) {
        for line in log.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(line["message"].is_string() && line["level"].is_string() && line["target"].is_string(), "{line}");
            assert_ne!(line["message"], "FORGED");
        }
    }
}

async fn assert_table_whole(system: &System) {
    let rows = system.count("SELECT count(*) FROM public.records").await;
    assert_eq!(rows, i64::try_from(corpus().len()).unwrap());
}

#[tokio::test]
async fn as_a_value_each_text_finds_its_own_row_and_comes_back_as_it_is() {
    needs_servers!();
    let system = system().await;
    for (id, text) in corpus().iter().enumerate() {
        for filter in [
            json!({"column": "s", "op": "=", "value": text}),
            json!({"column": "s", "op": "in", "value": [text]}),
            json!({"column": "j", "path": [text], "op": "=", "value": text}),
        ] {
            let mut body = request("jsonl", "s");
            body["filters"] = json!([filter]);
            let (_, _, file) = system.export(&body).await;
            let row: Value = serde_json::from_slice(&file).unwrap_or_else(|_| panic!("{filter}: {file:?}"));
            assert_eq!(row, json!({"id": id, "s": text}), "{filter}");
        }
    }
    let (_, _, file) = system.export(&request("csv", "s")).await;
    let mut reader = csv::Reader::from_reader(&file[..]);
    let read: Vec<String> = reader.records().map(|row| row.unwrap()[1].to_owned()).collect();
    assert_eq!(read, corpus());
    assert_table_whole(&system).await;
    assert_logs_whole(&system);
}

#[tokio::test]
async fn as_a_name_in_the_file_each_text_is_refused_or_kept() {
    needs_servers!();
    let system = system().await;
    let mut kept = 0;
    for text in corpus() {
        for format in ["csv", "json", "xml", "parquet"] {
            let mut body = request(format, &text);
            body["filters"] = json!([{"column": "id", "op": "=", "value": 0}]);
            let answer = system.post(&body).await;
            if answer.status() == StatusCode::BAD_REQUEST {
                continue;
            }
            assert_eq!(answer.status(), StatusCode::CREATED, "{body}");
            kept += 1;
            let accepted: Value = answer.json().await.unwrap();
            let id = accepted["exportId"].as_str().unwrap();
            system.wait_until_completed(id).await;
            let file = system.download(id).await;
            match format {
                "csv" => assert_eq!(csv::Reader::from_reader(&file[..]).headers().unwrap(), &vec!["id", &text]),
                "json" => {
                    let rows: Vec<Value> = serde_json::from_slice(&file).unwrap();
                    assert_eq!(rows.len(), 1);
                    assert!(rows[0].as_object().unwrap().keys().eq(["id", &text]), "{text:?}");
                }
                "xml" => {
                    let parsed = xml_names(&file);
                    assert!(parsed.len() <= 4 && !parsed.contains("forged"), "{text:?}: {parsed:?}");
                }
                _ => assert!(file.starts_with(b"PAR1") && file.ends_with(b"PAR1")),
            }
        }
    }
    assert!(kept > 60, "{kept}");
    assert_logs_whole(&system);
}

/// The names of all elements.
fn xml_names(file: &[u8]) -> HashSet<String> {
    use quick_xml::events::Event;
    let mut reader = quick_xml::Reader::from_reader(file);
    let mut names = HashSet::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Start(element) | Event::Empty(element) => {
                let name: &str = element.name().into_inner();
                names.insert(name.to_owned());
            }
            Event::DocType(_) => panic!("the file has a document type"),
            Event::Eof => return names,
            _ => {}
        }
    }
}

#[tokio::test]
async fn in_every_other_place_each_text_is_refused_as_the_client_s_mistake() {
    needs_servers!();
    let system = system().await;
    let with = |field: &str, value: Value| {
        let mut body = request("csv", "s");
        body[field] = value;
        body
    };
    for text in corpus() {
        for body in [
            with("format", json!(text)),
            with("compression", json!(text)),
            with("dataset", json!(text)),
            with("columns", json!([{"source": text, "target": "a"}])),
            with("filters", json!([{"column": text, "op": "=", "value": "a"}])),
            with("filters", json!([{"column": "s", "op": text, "value": "a"}])),
            with("orderBy", json!([text])),
            with("orderBy", json!([{"column": "id", "direction": text}])),
            with("options", json!({"csv": text, "uuid": text})),
            with("layout", json!(text)),
            with(&text, json!(1)),
        ] {
            for path in ["/exports", "/exports/preview"] {
                let answer = system.request(Method::POST, path).json(&body).send().await.unwrap();
                assert_client_error(answer, &body.to_string()).await;
            }
        }
        let encoded = text.bytes().fold(String::new(), |mut encoded, byte| {
            write!(encoded, "%{byte:02X}").unwrap();
            encoded
        });
        for path in [
            format!("/exports/{encoded}"),
            format!("/exports/{encoded}/download"),
            format!("/exports/{encoded}/manifest"),
            format!("/datasets/{encoded}"),
            format!("/docs/errors/{encoded}"),
            format!("/exports?cursor={encoded}"),
            format!("/exports?status={encoded}"),
            format!("/exports?limit={encoded}"),
            format!("/exports/01890000-0000-7000-8000-000000000000/download?delivery={encoded}"),
        ] {
            let answer = system.get(&path).await;
            assert_client_error(answer, &path).await;
        }
        // What HTTP itself refuses in a header is refused by the client's library already.
        for header in ["idempotency-key", "x-request-id", "traceparent", "user-agent", "last-event-id", "if-none-match"]
        {
            let Ok(value) = reqwest::header::HeaderValue::from_bytes(text.as_bytes()) else { continue };
            let body = with("filters", json!([{"column": "id", "op": "=", "value": 1}]));
            let answer =
                system.request(Method::POST, "/exports").header(header, value).json(&body).send().await.unwrap();
            assert!(!answer.status().is_server_error(), "{header}: {text:?}");
            assert!(answer.headers().get("set-cookie").is_none());
        }
    }
    assert_table_whole(&system).await;
    assert_logs_whole(&system);
}

async fn assert_client_error(answer: reqwest::Response, what: &str) {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let text = answer.text().await.unwrap();
    assert!(status.is_client_error(), "{what}: {status} {text}");
    assert!(
        headers.get("set-cookie").is_none() && headers["x-content-type-options"] == "nosniff",
        "{what}: {headers:?}"
    );
    assert_eq!(headers["content-type"], "application/problem+json", "{what}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert!(
        problem["detail"].as_str().is_none_or(|detail| !detail.contains(['\n', '\r', '\u{1b}'])),
        "{what}: {problem}"
    );
}
