//! The `polyglot-api` process: reads the configuration, starts the log and runs until a signal. Everything in between is in
//! the library.

use std::process::ExitCode;

use polyglot_api::{Config, run};
use polyglot_core::failure::chain;
use polyglot_runtime::config::{ConfigError, Environment};
use polyglot_runtime::lifecycle::Lifecycle;
use polyglot_runtime::logging;
use polyglot_runtime::telemetry::Tracing;

#[tokio::main]
async fn main() -> ExitCode {
    let (config, traces) = match configure(&Environment::of_process()) {
        Ok(configured) => configured,
        Err(error) => {
            eprintln!("polyglot-api: {}", chain(&error));
            return ExitCode::from(2);
        }
    };
    // Replaces the standard hook, so that a panic is one line of the log, with the id of its request.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
    let lifecycle = match Lifecycle::with_signals() {
        Ok(lifecycle) => lifecycle,
        Err(error) => {
            tracing::error!(error = chain(&error), "signal handlers cannot be installed");
            return ExitCode::FAILURE;
        }
    };
    let code = match run(config, lifecycle).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&error), "the api cannot run");
            ExitCode::FAILURE
        }
    };
    // This blocks, but no other task is left.
    traces.end();
    code
}

fn configure(env: &Environment) -> Result<(Config, Tracing), ConfigError> {
    let config = Config::from_environment(env)?;
    Ok((config, logging::start(env, "polyglot-api")?))
}
