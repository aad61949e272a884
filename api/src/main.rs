//! The `polyglot-api` process: reads its arguments and the configuration, and either runs a command or starts the log and
//! serves until a signal. Everything in between is in the library.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use polyglot_api::{Arguments, Command, Config, KeysCommand, check, health_address, run, run_keys};
use polyglot_core::failure::chain;
use polyglot_ledger::{Connections, Ledger, MigrationMode};
use polyglot_runtime::config::{ConfigError, Environment};
use polyglot_runtime::health_request;
use polyglot_runtime::lifecycle::Lifecycle;
use polyglot_runtime::logging;
use polyglot_runtime::telemetry::Tracing;

/// Longest wait of a command for the ledger's database.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::parse().command {
        Some(Command::Check) => check_servers().await,
        Some(Command::Health) => ask_health(),
        Some(Command::Keys { command }) => keys(command).await,
        Some(Command::Migrate) => migrate().await,
        None => serve().await,
    }
}

/// Runs a command on API keys.
async fn keys(command: KeysCommand) -> ExitCode {
    let printed = async {
        let connections = Connections::from_environment(&Environment::of_process())?;
        let ledger = Ledger::new(&connections.database_url, 1, "polyglot-api keys")?;
        // The service may never have been started yet.
        ledger.prepare(connections.migration_mode, LEDGER_TIMEOUT).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(run_keys(command, &ledger).await?)
    };
    match printed.await {
        Ok(printed) => {
            eprint!("{}", printed.err);
            print!("{}", printed.out);
            ExitCode::SUCCESS
        }
        Err(error) => failed(&*error),
    }
}

/// Brings the ledger's tables up to this version.
async fn migrate() -> ExitCode {
    let migrated = async {
        let env = Environment::of_process();
        let connections = Connections::from_environment(&env)?;
        let ledger = Ledger::new(&connections.database_url, 1, "polyglot-api migrate")?;
        ledger.prepare(MigrationMode::AtStart, LEDGER_TIMEOUT).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    match migrated.await {
        Ok(()) => {
            eprintln!("polyglot-api: the ledger's tables are those of this version");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&*error),
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("polyglot-api: {}", chain(error));
    ExitCode::FAILURE
}

/// Looks whether the service would work with everything that the environment names.
async fn check_servers() -> ExitCode {
    match Config::from_environment(&Environment::of_process()) {
        Ok(config) => ExitCode::from(u8::from(!check(&config).await)),
        Err(error) => refused(&error),
    }
}

/// Asks the api of this machine whether it answers.
fn ask_health() -> ExitCode {
    let address = match health_address(&Environment::of_process()) {
        Ok(address) => address,
        Err(error) => return refused(&error),
    };
    match health_request::ask(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("polyglot-api: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Says which variable cannot be used.
fn refused(error: &ConfigError) -> ExitCode {
    eprintln!("polyglot-api: {}", chain(error));
    ExitCode::from(2)
}

/// Serves until a signal.
async fn serve() -> ExitCode {
    let env = Environment::of_process();
    let (config, traces) = match configure(&env) {
        Ok(configured) => configured,
        Err(error) => return refused(&error),
    };
    // Replaces the standard hook, so that a panic is one line of the log, with the id of its request.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
    let connections = config.connections.clone();
    let handled = Lifecycle::with_signals().and_then(|lifecycle| {
        lifecycle.on_hangup(move || connections.reload(&env))?;
        Ok(lifecycle)
    });
    let lifecycle = match handled {
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
