//! Values that a format cannot hold: the export fails and names them, or replaces them on request and counts them in the
//! manifest; and what else the manifest says of a file.

use std::collections::BTreeMap;

use polyglot_test_kit::{Setup, System};
use polyglot_test_servers::needs_servers;
use serde_json::{Value, json};

use super::table::columns;
use super::{export, request};
use crate::python::run_script;

/// Five rows; the keys of those with trouble are 4711 to 4714.
const TROUBLE: &str = r#"
    DROP TABLE public.records;
    CREATE TABLE public.records (id bigint PRIMARY KEY, t text, j jsonb, ts timestamp, tz timestamptz, d date, tm time,
                                 n numeric(10,2));
    INSERT INTO public.records VALUES
        (1, 'fine', '{}', '2026-01-02 03:04:05', '2026-01-02 03:04:05Z', '2026-01-02', '03:04:05', 1.5),
        (4711, E'bell \x07', '1', 'infinity', '2026-01-02 03:04:05Z', '2026-01-02', '24:00', 1.5),
        (4712, E'\x01\x02 and \uffff', '2', '-infinity', 'infinity', 'infinity', '03:04:05', 'NaN'),
        (4713, 'fine', '{"a": ["\u0001", "ok"]}', '294276-12-31', '2026-01-02 03:04:05Z', '-infinity', '03:04:05', 'NaN'),
        (4714, 'fine', '3', '2026-01-02 03:04:05', '294276-12-31 00:00Z', '2026-01-02', '24:00', 'NaN')"#;

async fn with_trouble() -> System {
    let system = System::start(Setup::default()).await;
    sqlx::raw_sql(TROUBLE).execute(&system.pool).await.unwrap();
    system
}

async fn exported(system: &System, format: &str, options: Value) -> (String, Vec<u8>) {
    let mut body = request(format, None, &columns(&system.pool).await);
    body["options"] = options;
    super::exported(system, &body).await
}

/// How many values of each column, whatever the problem was.
fn replaced(manifest: &Value) -> Vec<(String, u64)> {
    let mut counts = BTreeMap::new();
    for entry in manifest["replaced"].as_array().unwrap_or_else(|| panic!("{manifest:#}")) {
        assert!(entry["problem"].is_string() && entry["with"].is_string(), "{entry:#}");
        *counts.entry(entry["column"].as_str().unwrap().to_owned()).or_default() += entry["count"].as_u64().unwrap();
    }
    counts.into_iter().collect()
}

fn counts(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(column, count)| ((*column).to_owned(), *count)).collect()
}

#[tokio::test]
async fn what_cannot_be_held_fails_and_names_column_and_key() {
    needs_servers!();
    let system = with_trouble().await;
    let all = columns(&system.pool).await;
    for (format, column, key) in [
        ("xml", "t", 4711),
        ("xml", "j", 4713),
        ("parquet", "ts", 4711),
        ("parquet", "tz", 4712),
        ("parquet", "d", 4712),
        ("parquet", "tm", 4711),
        ("parquet", "n", 4712),
    ] {
        let chosen: Vec<_> = all.iter().filter(|it| it.name == "id" || it.name == column).cloned().collect();
        let id = system.submit_request(&request(format, None, &chosen)).await;
        let state = system.wait_until_ended(&id).await;
        assert_eq!(state["status"], "failed", "{format} {column}: {state:#}");
        let error = state["error"].as_str().unwrap();
        assert!(error.contains(&format!("{column:?}")) && error.contains(&key.to_string()), "{error}");
    }
    // Text holds all of it.
    for format in ["csv", "json", "jsonl"] {
        export(&system, &request(format, None, &all)).await;
    }
}

#[tokio::test]
async fn what_xml_cannot_hold_is_replaced_and_counted() {
    needs_servers!();
    let system = with_trouble().await;
    let (id, bytes) = exported(&system, "xml", json!({"onUnrepresentable": "replace"})).await;
    let text = String::from_utf8(bytes).unwrap();
    for part in
        ["<t>bell \u{fffd}</t>", "<t>\u{fffd}\u{fffd} and \u{fffd}</t>", "<a><item>\u{fffd}</item><item>ok</item></a>"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    // XML has words for the rest.
    assert!(
        text.contains("<ts>infinity</ts>") && text.contains("<tm>24:00:00</tm>") && text.contains("<n>NaN</n>"),
        "{text}"
    );
    let manifest = system.manifest(&id).await;
    // Values, not characters.
    assert_eq!(replaced(&manifest), counts(&[("j", 1), ("t", 2)]), "{manifest:#}");
}

#[tokio::test]
async fn what_parquet_cannot_hold_is_null_and_counted() {
    needs_servers!();
    let system = with_trouble().await;
    let (id, bytes) = exported(&system, "parquet", json!({"onUnrepresentable": "replace"})).await;
    let file = system.file("replaced.parquet");
    std::fs::write(&file, bytes).unwrap();
    let expected = system.file("expected-values");
    let usual = json!({"id": "1", "t": "fine", "j": "{}", "ts": "2026-01-02T03:04:05.000000", "tz": "2026-01-02T03:04:05.000000",
                       "d": "2026-01-02", "tm": "03:04:05.000000", "n": "1.50"});
    let row = |changes: Value| {
        let mut row = usual.clone();
        for (name, value) in changes.as_object().unwrap() {
            row[name] = value.clone();
        }
        row.to_string()
    };
    let lines = [
        json!({"id": "number", "t": "text", "j": "text", "ts": "stamp", "tz": "stamp", "d": "day", "tm": "time", "n": "number"}).to_string(),
        row(json!({})),
        row(json!({"id": "4711", "t": "bell \u{7}", "j": "1", "ts": null, "tm": null})),
        row(json!({"id": "4712", "t": "\u{1}\u{2} and \u{ffff}", "j": "2", "ts": null, "tz": null, "d": null, "n": null})),
        row(json!({"id": "4713", "j": "{\"a\": [\"\\u0001\", \"ok\"]}", "ts": null, "d": null, "n": null})),
        row(json!({"id": "4714", "j": "3", "tz": null, "tm": null, "n": null})),
    ];
    std::fs::write(&expected, lines.join("\n")).unwrap();
    let read = run_script(
        "compare_readers.py",
        ["parquet".as_ref(), "plain".as_ref(), file.as_os_str(), expected.as_os_str()],
    );
    assert_eq!(read.matches(": 5 rows").count(), 4, "{read}");
    let manifest = system.manifest(&id).await;
    assert_eq!(replaced(&manifest), counts(&[("d", 2), ("n", 3), ("tm", 2), ("ts", 3), ("tz", 2)]), "{manifest:#}");
}

#[tokio::test]
async fn nothing_is_replaced_where_nothing_needs_it() {
    needs_servers!();
    let system = with_trouble().await;
    for format in ["csv", "json", "jsonl"] {
        let (id, bytes) = exported(&system, format, json!({"onUnrepresentable": "replace"})).await;
        let (_, plain) = exported(&system, format, json!({})).await;
        assert!(bytes == plain, "{format}");
        assert_eq!(replaced(&system.manifest(&id).await), []);
    }
}

#[tokio::test]
async fn an_array_of_other_dimensions_than_declared_fails_or_is_null_in_parquet() {
    needs_servers!();
    let system = System::start(Setup::default()).await;
    sqlx::raw_sql(
        "DROP TABLE public.records; CREATE TABLE public.records (id bigint PRIMARY KEY, flat integer[], square integer[][]);
         INSERT INTO public.records VALUES (1, '{1}', '{{1}}'), (2, '{}', '{}'), (3, NULL, NULL), (815, '{{1}}', '{1}')",
    )
    .execute(&system.pool)
    .await
    .unwrap();
    let all = columns(&system.pool).await;
    for at in [1, 2] {
        let chosen = [all[0].clone(), all[at].clone()];
        let id = system.submit_request(&request("parquet", None, &chosen)).await;
        let state = system.wait_until_ended(&id).await;
        assert_eq!(state["status"], "failed", "{state:#}");
        let error = state["error"].as_str().unwrap();
        assert!(error.contains(&format!("{:?}", all[at].name)) && error.contains("815"), "{error}");
    }
    let (id, _) = exported(&system, "parquet", json!({"onUnrepresentable": "replace"})).await;
    assert_eq!(replaced(&system.manifest(&id).await), counts(&[("flat", 1), ("square", 1)]));
}

/// CRC-32 as zlib and gzip have it, bit by bit: not the code that wrote the manifest.
fn crc32(bytes: &[u8]) -> String {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    });
    format!("{:08x}", !crc)
}

#[tokio::test]
async fn the_manifest_describes_the_stored_file() {
    needs_servers!();
    // More than one part.
    let system = System::with_rows(100_000).await;
    let all = columns(&system.pool).await;
    assert_eq!(crc32(b"123456789"), "cbf43926");
    for (format, compression) in [("jsonl", None), ("csv", Some("gzip")), ("parquet", None)] {
        let id = system.submit_request(&request(format, compression, &all)).await;
        system.wait_until_completed(&id).await;
        let bytes = system.download(&id).await;
        let manifest = system.manifest(&id).await;
        assert_eq!(manifest["rows"], 100_000, "{format}");
        assert_eq!(manifest["bytes"], bytes.len(), "{format}");
        assert_eq!(manifest["crc32"], crc32(&bytes), "{format}");
        let (mut end, mut rows) = (0, 0);
        for (at, part) in manifest["parts"].as_array().unwrap().iter().enumerate() {
            let length = usize::try_from(part["bytes"].as_u64().unwrap()).unwrap();
            assert_eq!((&part["number"], &part["offset"]), (&json!(at + 1), &json!(end)), "{format}");
            assert_eq!(part["crc32"], crc32(&bytes[end..end + length]), "{format} part {at}");
            end += length;
            rows += part["rows"].as_u64().unwrap();
            if (format, compression) == ("jsonl", None) {
                let lines = bytes[end - length..end].split_inclusive(|byte| *byte == b'\n').count();
                assert_eq!(part["rows"], lines, "part {at}");
            }
        }
        assert_eq!((end, rows), (bytes.len(), 100_000), "{format}");
        assert!(format != "jsonl" || manifest["parts"].as_array().unwrap().len() > 1);
        let described: Vec<_> = manifest["columns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| (&it["name"], &it["source"], &it["sourceType"]))
            .collect();
        assert_eq!(described.len(), 5);
        assert_eq!(described[3], (&json!("value"), &json!("value"), &json!("numeric(18,4)")));
        assert_eq!(
            manifest["order"],
            json!({"by": [{"column": "id", "direction": "asc"}], "promised": true}),
            "{format}"
        );
        assert_eq!(manifest["replaced"], json!([]), "{format}");
        assert!(manifest["snapshot"]["time"].is_string() && manifest["snapshot"]["walPosition"].is_string());
    }
    sqlx::query("ALTER TABLE public.records DROP CONSTRAINT records_pkey").execute(&system.pool).await.unwrap();
    let id = system.submit_request(&request("csv", None, &all)).await;
    system.wait_until_completed(&id).await;
    assert_eq!(system.manifest(&id).await["order"], json!({"by": [], "promised": false}));
}
