//! Python programs beside the tests: independent readers of the exported files, in the virtual environment that
//! `devstack/install --tests` makes.

use std::ffi::OsStr;
use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The interpreter of the virtual environment, to be given a script and its arguments.
pub fn python_command() -> Command {
    Command::new(format!("{ROOT}/.tools/venv/bin/python"))
}

/// Runs Python with these arguments and returns what it printed; panics with it when the program fails.
pub fn python_output<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> String {
    let mut command = python_command();
    let output = command
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; devstack/install --tests makes it"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}
