//! The Python programs beside these tests: independent readers of the exported files.

use std::ffi::{OsStr, OsString};
use std::iter;
use std::path::Path;

use polyglot_test_kit::python_output;
use serde_json::Value;

/// Runs one of the scripts in this folder, and returns what it printed.
pub(crate) fn run_script<A: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = A>) -> String {
    let script = OsString::from(format!("{}/tests/system/{script}", env!("CARGO_MANIFEST_DIR")));
    let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
    python_output(iter::once(script).chain(arguments))
}

/// Runs a program of one line over a file, and returns the JSON that it printed.
pub(crate) fn run_line(program: &str, file: &Path) -> Value {
    serde_json::from_str(&python_output([OsStr::new("-c"), OsStr::new(program), file.as_os_str()])).unwrap()
}
