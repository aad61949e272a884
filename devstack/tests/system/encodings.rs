//! Sources in other encodings than UTF-8, and names as long as PostgreSQL allows: 63 bytes, of characters of several bytes.

use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_test_kit::{Setup, System, export_request};
use polyglot_test_servers::{TestServers, needs_servers};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

async fn run(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let done = connection.execute(AssertSqlSafe(statement.to_owned())).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    connection.close().await.unwrap();
}

/// A new database of the name in the encoding; its URL, in which the name is percent-encoded.
async fn database(servers: &TestServers, name: &str, encoding: &str) -> String {
    let create =
        format!("CREATE DATABASE \"{name}\" ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    run(&servers.database_url, &create).await;
    let encoded = name.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"));
    let server = servers.database_url.rsplit_once('/').unwrap().0;
    format!("{server}/{encoded}")
}

/// A system whose datasets are those of one schema.
async fn system(url: &str, schema: &str) -> (System, ScratchDir) {
    let files = ScratchDir::new("encodings-test").unwrap();
    let path = files.path().join("datasets.toml");
    std::fs::write(&path, format!("[[dataset]]\nrelation = {:?}\n", format!("{schema}.*"))).unwrap();
    let env = [("SOURCE_DATABASE_URL", url), ("DATASETS", path.to_str().unwrap())];
    (System::start(Setup::new(0, &env)).await, files)
}

#[tokio::test]
async fn text_of_another_encoding_is_exact() {
    let servers = needs_servers!();
    for (encoding, text) in
        [("LATIN1", "naïve \u{a4} ÿ"), ("LATIN9", "naïve € ÿ"), ("WIN1252", "naïve € “ÿ”"), ("EUC_JP", "日本語")]
    {
        let name = format!("encoded_{}", uuid::Uuid::new_v4().simple());
        let url = database(&servers, &name, encoding).await;
        let is_japanese = encoding == "EUC_JP";
        let (schema, column) = if is_japanese { ("店", "名前") } else { ("déjà", "clé") };
        for statement in [
            format!("CREATE SCHEMA {schema}"),
            format!("CREATE TABLE {schema}.{schema} (id bigint PRIMARY KEY, {column} text)"),
            format!("INSERT INTO {schema}.{schema} VALUES (1, '{text}'), (2, 'plain'), (3, NULL)"),
        ] {
            run(&url, &statement).await;
        }
        let (system, _files) = system(&url, schema).await;
        for format in ["csv", "jsonl"] {
            let mut request = export_request(format, None, ["id", column]);
            request["dataset"] = schema.into();
            let (_, _, file) = system.export(&request).await;
            let file = String::from_utf8(file).unwrap();
            let expected = match format {
                "csv" => format!("id,{column}\n1,{text}\n2,plain\n3,\n"),
                _ => format!(
                    "{{\"id\":1,\"{column}\":\"{text}\"}}\n{{\"id\":2,\"{column}\":\"plain\"}}\n{{\"id\":3,\"{column}\":null}}\n"
                ),
            };
            assert_eq!(file, expected, "{encoding}");
        }
        let mut request = export_request("csv", None, ["id", column]);
        request["dataset"] = schema.into();
        request["filters"] = json!([{"column": column, "op": "=", "value": text}]);
        let (_, state, _) = system.export(&request).await;
        assert_eq!(state["progress"]["rows"], 1, "{encoding}: {state:#}");
        // A character that the encoding does not have is in no row, and no error of the server.
        request["filters"] = json!([{"column": column, "op": "=", "value": "🐘"}]);
        let answer = system.post(&request).await;
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 400, "{encoding}: {body}");
        assert!(body.contains(column) || body.contains("filters"), "{body}");
    }
}

/// SQL_ASCII says nothing about the bytes, so what is UTF-8 is exported as it is, and what is not is refused by its place.
#[tokio::test]
async fn a_database_without_an_encoding_is_exact_or_refused() {
    let servers = needs_servers!();
    let name = format!("encoded_{}", uuid::Uuid::new_v4().simple());
    let url = database(&servers, &name, "SQL_ASCII").await;
    for statement in [
        "CREATE SCHEMA shop",
        "CREATE TABLE shop.good (id bigint PRIMARY KEY, v text)",
        "INSERT INTO shop.good VALUES (1, 'naïve €'), (2, 'plain')",
        "CREATE TABLE shop.bad (id bigint PRIMARY KEY, v text)",
        "INSERT INTO shop.bad VALUES (1, 'plain'), (2, 'na' || convert_from('\\xef'::bytea, 'SQL_ASCII') || 've')",
    ] {
        run(&url, statement).await;
    }
    let (system, _files) = system(&url, "shop").await;
    let mut request = export_request("csv", None, ["id", "v"]);
    request["dataset"] = "good".into();
    let (_, _, file) = system.export(&request).await;
    assert_eq!(String::from_utf8(file).unwrap(), "id,v\n1,naïve €\n2,plain\n");
    request["dataset"] = "bad".into();
    let id = system.submit_request(&request).await;
    let state = system.wait_until_ended(&id).await;
    assert_eq!((&state["status"], &state["errorCode"]), (&"failed".into(), &"source_refused".into()), "{state:#}");
    assert!(state["error"].as_str().unwrap().contains("bytes that are not text in the encoding"), "{state:#}");
}

#[tokio::test]
async fn names_may_have_63_bytes_of_any_characters() {
    let servers = needs_servers!();
    // 31 characters of two bytes and one of one.
    let long = |last: char| "é".repeat(31) + &last.to_string();
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let database_name = format!("{}{unique}x", "é".repeat(15));
    assert_eq!((database_name.len(), long('t').len()), (63, 63));
    let url = database(&servers, &database_name, "UTF8").await;
    let (schema, table, key, column) = (long('s'), long('t'), long('k'), long('c'));
    for statement in [
        format!("CREATE SCHEMA \"{schema}\""),
        format!("CREATE TABLE \"{schema}\".\"{table}\" (\"{key}\" bigint PRIMARY KEY, \"{column}\" text)"),
        // Enough for shards: their bounds name the key.
        format!(
            "INSERT INTO \"{schema}\".\"{table}\" SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 200000) n"
        ),
        format!("ANALYZE \"{schema}\".\"{table}\""),
    ] {
        run(&url, &statement).await;
    }
    let (system, _files) = system(&url, &schema).await;
    let mut request = export_request("csv", None, [&key, &column]);
    request["dataset"] = table.as_str().into();
    let (_, state, file) = system.export(&request).await;
    assert!(state["progress"]["shards"].as_i64() > Some(1), "{state:#}");
    let file = String::from_utf8(file).unwrap();
    assert_eq!(file.lines().next().unwrap(), format!("{key},{column}"));
    assert_eq!(file.lines().count(), 200_001);
}
