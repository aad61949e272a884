//! The property: any table of any type comes back from any format as it was.

use polyglot_test_kit::{Setup, System};
use polyglot_test_servers::needs_servers;
use reqwest::Method;
use serde_json::{Value, json};

use super::table::{Column, columns, compare_jsonb, connection, copy_in, reload, reload_csv, run};
use super::{bytes_of, export, request};
use crate::python::run_script;

/// A system whose `public.records` is made by `generate_values.py`.
struct Generated {
    system: System,
    columns: Vec<Column>,
}

impl Generated {
    /// `kind` is `scalars` or `arrays`; values that a format in `without` cannot hold are left out.
    async fn start(kind: &str, without: &[&str]) -> Self {
        let seed =
            std::env::var("POLYGLOT_SEED").unwrap_or_else(|_| (uuid::Uuid::new_v4().as_u128() >> 96).to_string());
        let rows = std::env::var("POLYGLOT_VALUES_ROWS").unwrap_or_else(|_| "400".to_owned());
        // Shown with a failure.
        println!("POLYGLOT_SEED={seed} POLYGLOT_VALUES_ROWS={rows} makes these {kind} again");
        let system = System::start(Setup::default()).await;
        let folder = system.file("generated");
        run_script("generate_values.py", [&[folder.to_str().unwrap(), &seed, &rows, kind], without].concat());
        let mut connection = connection(&system.pool).await;
        run(&mut connection, std::fs::read_to_string(folder.join("schema.sql")).unwrap()).await;
        copy_in(&mut connection, "COPY public.records FROM STDIN", bytes_of(&folder.join("rows.copy"))).await;
        drop(connection);
        let columns = columns(&system.pool).await;
        Self { system, columns }
    }

    /// Exports every column, and takes the file back.
    async fn survives(&self, format: &str, compression: Option<&str>) {
        let file = export(&self.system, &request(format, compression, &self.columns)).await;
        if compression.is_none() {
            self.is_shown_by_a_preview(format, &bytes_of(&file)).await;
        }
        reload(&self.system, format, compression, &file, &self.columns).await;
        if (format, compression) == ("csv", None) {
            reload_csv(&self.system, &file, &self.columns).await;
        }
    }

    /// A preview has the values that the file has: put together as the format does it, its rows are in the file. Of a row with a value
    /// that is cut, each of the others is.
    async fn is_shown_by_a_preview(&self, format: &str, file: &[u8]) {
        let answer = self.system.request(Method::POST, "/exports/preview").json(&request(format, None, &self.columns));
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{format}");
        let shown: Value = answer.json().await.unwrap();
        let file = String::from_utf8_lossy(file);
        for row in shown["rows"].as_array().unwrap() {
            let values: Vec<Option<&str>> = row.as_array().unwrap().iter().map(Value::as_str).collect();
            assert_eq!(values.len(), self.columns.len());
            let whole = !values.iter().flatten().any(|value| value.ends_with('…'));
            let members = self.columns.iter().zip(&values);
            let pieces: Vec<String> = match format {
                "csv" => values.iter().map(|value| value.unwrap_or_default().to_owned()).collect(),
                "json" | "jsonl" => members
                    .map(|(column, value)| format!("{}:{}", json!(column.target), value.unwrap_or("null")))
                    .collect(),
                // An element's name may be escaped.
                "xml" => values.iter().flatten().map(|value| (*value).to_owned()).collect(),
                // Their files are not text.
                _ => return,
            };
            let pieces = match format {
                "csv" if whole => vec![format!("\n{}\n", pieces.join(","))],
                "json" | "jsonl" if whole => vec![format!("\n{{{}}}", pieces.join(","))],
                _ => pieces,
            };
            for piece in pieces.iter().filter(|piece| !piece.ends_with('…')) {
                // The first line of JSON Lines has none before it.
                assert!(
                    file.contains(piece) || file.starts_with(piece.trim_start()),
                    "{format}: not in the file: {piece}"
                );
            }
        }
    }

    async fn equals_to_jsonb(&self) {
        // What jsonb itself refuses is in a column of its own.
        let columns: Vec<Column> = self.columns.iter().filter(|column| column.name != "json_odd").cloned().collect();
        let file = export(&self.system, &request("jsonl", None, &columns)).await;
        compare_jsonb(&self.system, &file, &columns).await;
    }
}

#[tokio::test]
async fn every_scalar_survives_csv() {
    needs_servers!();
    let generated = Generated::start("scalars", &[]).await;
    generated.survives("csv", None).await;
    generated.survives("csv", Some("gzip")).await;
}

#[tokio::test]
async fn every_scalar_survives_json() {
    needs_servers!();
    let generated = Generated::start("scalars", &[]).await;
    generated.survives("json", None).await;
    generated.survives("jsonl", Some("gzip")).await;
    generated.equals_to_jsonb().await;
}

#[tokio::test]
async fn every_scalar_that_xml_can_hold_survives_it() {
    needs_servers!();
    Generated::start("scalars", &["xml"]).await.survives("xml", None).await;
}

#[tokio::test]
async fn every_scalar_that_parquet_and_arrow_can_hold_survives_them() {
    needs_servers!();
    let generated = Generated::start("scalars", &["parquet"]).await;
    generated.survives("parquet", None).await;
    generated.survives("arrow", None).await;
}

#[tokio::test]
async fn every_array_survives_csv() {
    needs_servers!();
    Generated::start("arrays", &[]).await.survives("csv", None).await;
}

#[tokio::test]
async fn every_array_survives_json() {
    needs_servers!();
    let generated = Generated::start("arrays", &[]).await;
    generated.survives("jsonl", None).await;
    generated.survives("json", Some("gzip")).await;
    generated.equals_to_jsonb().await;
}

#[tokio::test]
async fn every_array_that_xml_can_hold_survives_it() {
    needs_servers!();
    Generated::start("arrays", &["xml"]).await.survives("xml", Some("gzip")).await;
}

#[tokio::test]
async fn every_array_that_parquet_and_arrow_can_hold_survives_them() {
    needs_servers!();
    let generated = Generated::start("arrays", &["parquet"]).await;
    generated.survives("parquet", None).await;
    generated.survives("arrow", None).await;
}

#[tokio::test]
async fn zstd_is_one_frame_around_the_same_text() {
    needs_servers!();
    let generated = Generated::start("scalars", &["xml"]).await;
    for format in ["csv", "json", "jsonl", "xml"] {
        generated.survives(format, Some("zstd")).await;
    }
}
