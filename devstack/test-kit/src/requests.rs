//! Bodies of export requests: columns, formats, and the sample table `records`.

use serde_json::{Value, json};

/// Columns of the sample table.
pub const SAMPLE_COLUMNS: [&str; 5] = ["id", "created_at", "name", "value", "metadata"];

/// Columns under their own names.
pub fn columns<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Value {
    names.into_iter().map(|name| json!({"source": name.as_ref(), "target": name.as_ref()})).collect()
}

/// Request for these columns of the default dataset.
pub fn export_request<S: AsRef<str>>(
    format: &str,
    compression: Option<&str>,
    names: impl IntoIterator<Item = S>,
) -> Value {
    let mut request = json!({"format": format, "columns": columns(names)});
    if let Some(compression) = compression {
        request["compression"] = compression.into();
    }
    request
}

/// Request for all columns of the sample table.
pub fn sample_request(format: &str, compression: Option<&str>) -> Value {
    export_request(format, compression, SAMPLE_COLUMNS)
}

/// The request, for the rows of the sample table up to the id `last`.
pub fn first_rows(mut request: Value, last: u64) -> Value {
    request["filters"] = json!([{"column": "id", "op": "<=", "value": last}]);
    request
}
