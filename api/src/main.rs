//! The `polyglot-api` process: reads its configuration, starts its log, runs until a signal. What it does in
//! between is the library's.

use std::process::ExitCode;

use polyglot_api::{Config, run};
use polyglot_runtime::config::{ConfigError, Environment};
use polyglot_core::failure::chain;
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
    // In place of the standard hook, so that a panic is one line of the log, with its request's id.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
    let lifecycle = match Lifecycle::with_signals() {
        Ok(lifecycle) => lifecycle,
        Err(error) => {
            tracing::error!(error = chain(&error), "signals cannot be watched");
            return ExitCode::FAILURE;
        }
    };
    let code = match run(config, lifecycle).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&error), "cannot run");
            ExitCode::FAILURE
        }
    };
    // Blocks the one task that is left.
    traces.end();
    code
}

fn configure(env: &Environment) -> Result<(Config, Tracing), ConfigError> {
    let config = Config::from_environment(env)?;
    Ok((config, logging::start(env, "polyglot-api")?))
}
