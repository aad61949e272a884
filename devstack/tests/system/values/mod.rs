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
    let path = format!("{}/tests/system/{script}", env!("CARGO_MANIFEST_DIR"));
    run_python(&[&path], script, arguments)
}

/// Runs a Python program of a line over a file; the answer is the JSON that it printed.
fn python_line(program: &str, file: &Path) -> Value {
    serde_json::from_str(&run_python(&["-c", program], program, [file])).unwrap()
}

fn run_python<A: AsRef<OsStr>>(what: &[&str], script: &str, arguments: impl IntoIterator<Item = A>) -> String {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/venv/bin/python");
    let output = Command::new(python)
        .args(what)
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

/// Exports to the end; the answer is the export's id and its file as it is stored.
async fn exported(system: &System, body: &Value) -> (String, Vec<u8>) {
    let id = submit(system, body).await;
    system.completed(&id).await;
    let bytes = system.download(&id).await;
    (id, bytes)
}

/// As [`exported`], into a file.
async fn export(system: &System, body: &Value) -> PathBuf {
    let (id, bytes) = exported(system, body).await;
    let file = system.file(&id);
    std::fs::write(&file, bytes).unwrap();
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
