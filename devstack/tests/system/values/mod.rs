//! Every value, exactly: tables with every type of PostgreSQL go out in each format, come back through readers that
//! have nothing in common with the writers, and PostgreSQL itself says whether they are the same.
//!
//! `POLYGLOT_SEED` repeats a run (a failed one prints its seed), `POLYGLOT_VALUES_ROWS` makes it longer.

mod dialects;
mod options;
mod readers;
mod round_trip;
mod shapes;
mod table;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::System;
use table::Column;

/// Runs one of the Python scripts beside these tests; the answer is what it printed.
fn python<A: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = A>) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let python = format!("{root}/.tools/venv/bin/python");
    let output = Command::new(&python)
        .arg(format!("{root}/devstack/tests/system/{script}"))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{python}: {error}; devstack/install --tests makes it"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

/// The body that asks for these columns.
fn request(format: &str, compression: Option<&str>, columns: &[Column]) -> Value {
    let mapping: Vec<Value> =
        columns.iter().map(|column| json!({"source": column.name, "target": column.target})).collect();
    let mut body = json!({"format": format, "columns": mapping});
    if let Some(compression) = compression {
        body["compression"] = compression.into();
    }
    body
}

/// Submits an export; the answer is its id.
async fn submit(system: &System, body: &Value) -> String {
    let answer = system.post(body).await;
    let status = answer.status();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(status, 201, "{answer:#}");
    answer["exportId"].as_str().unwrap().to_owned()
}

/// Exports to the end and keeps the bytes as they are stored.
async fn export(system: &System, body: &Value) -> PathBuf {
    let id = submit(system, body).await;
    system.completed(&id).await;
    let file = system.file(&id);
    std::fs::write(&file, system.download(&id).await).unwrap();
    file
}

async fn manifest(system: &System, id: &str) -> Value {
    let answer = system.get(&format!("/exports/{id}/manifest")).await;
    let status = answer.status();
    let manifest: Value = answer.json().await.unwrap();
    assert_eq!(status, 200, "{manifest:#}");
    manifest
}

fn bytes_of(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
