//! Every value, exactly: tables with every type of PostgreSQL are exported in each format and read back by readers that
//! share no code with the writers; PostgreSQL itself compares the values.
//!
//! `POLYGLOT_SEED` repeats a run (a failed one prints its seed), `POLYGLOT_VALUES_ROWS` makes it longer.

mod dialects;
mod options;
mod readers;
mod round_trip;
mod shapes;
mod table;

use std::path::{Path, PathBuf};

use polyglot_test_kit::System;
use serde_json::{Value, json};

use table::Column;

/// The request for these columns.
fn request(format: &str, compression: Option<&str>, columns: &[Column]) -> Value {
    let mapping: Vec<Value> =
        columns.iter().map(|column| json!({"source": column.name, "target": column.target})).collect();
    let mut body = json!({"format": format, "columns": mapping});
    if let Some(compression) = compression {
        body["compression"] = compression.into();
    }
    body
}

/// Exports to completion, and returns the export's id and its file.
async fn exported(system: &System, body: &Value) -> (String, Vec<u8>) {
    let (id, _, bytes) = system.export(body).await;
    (id, bytes)
}

/// Exports to completion, and returns the path of the file.
async fn export(system: &System, body: &Value) -> PathBuf {
    let (id, bytes) = exported(system, body).await;
    let file = system.file(&id);
    std::fs::write(&file, bytes).unwrap();
    file
}

fn bytes_of(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
