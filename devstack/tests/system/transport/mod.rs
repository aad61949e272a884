//! Connections from the service to its servers: verified TLS by default, authorities and client certificates of one's own.

mod authority;
mod broker_and_store;
mod front;
mod postgres;
mod refusals;
mod rotation;

use std::process::Command;

use polyglot_test_kit::{System, binary};

/// An address of this machine that is not the loopback address, so that the service takes it for another machine.
fn outer_address() -> String {
    let output = Command::new("hostname").arg("-I").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().find(|address| address.contains('.')).expect("this machine has an address").to_owned()
}

/// Starts the api and a worker, which have to complete two exports.
async fn start_and_export(system: &mut System) {
    system.start_api();
    system.wait_until_ready().await;
    system.add_worker();
    for format in ["csv", "parquet"] {
        let id = system.submit(format, None).await;
        system.wait_until_completed(&id).await;
    }
}

/// The exit code and the output of a program with the system's variables.
async fn run(system: &System, program: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary(program));
    system.environment(&mut command).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}
