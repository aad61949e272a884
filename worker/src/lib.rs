//! The worker: takes exports from the queue and performs them, from rows in PostgreSQL to an object in the store. The
//! entry point of the process is [`main`].

mod config;
mod context;
mod dataset_limit;
mod dead_letters;
mod encode_task;
mod job;
mod mask_hashes;
mod memory;
mod metrics;
mod metrics_server;
mod outage;
mod part;
mod plan;
mod progress;
mod read;
mod runner;
mod snapshot;
mod upload;
mod work_error;

pub use job::{EndOfFile, end_of_file};

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use context::WorkerContext;
use polyglot_core::failure::chain;
use polyglot_ledger::Connections;
use polyglot_ledger::Sweeper;
use polyglot_ledger::queue::{Broker, Relay, Subscription, run_relay};
use polyglot_ledger::{Ledger, send_notifications};
use polyglot_runtime::config::{ConfigError, Environment};
use polyglot_runtime::health_request;
use polyglot_runtime::lifecycle::Lifecycle;
use polyglot_runtime::logging;
use polyglot_runtime::telemetry::Tracing;
use polyglot_source::{ConnectionLimit, find_shared_sessions};
use polyglot_storage::Storage;

/// Takes exports from the queue and processes them. Configured by environment variables.
#[derive(Parser)]
#[command(name = "polyglot-worker", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Check whether the worker that listens on METRICS_PORT on this machine answers
    Health,
    /// List the messages that no worker could process, with the reason, or act on them
    DeadLetters {
        #[command(subcommand)]
        action: Option<dead_letters::Action>,
    },
}

/// Time that the ledger may take to become available before the process ends, to be restarted from outside.
const LEDGER_START_TIMEOUT: Duration = Duration::from_mins(1);

/// Runs the command that the arguments name. Without one it reads the configuration, connects to the servers and works
/// until it is stopped by a signal.
#[must_use]
pub fn main() -> ExitCode {
    let env = Environment::of_process();
    match Arguments::parse().command {
        None => work(&env),
        Some(Command::Health) => report(ask_health(&env)),
        Some(Command::DeadLetters { action }) => {
            run_command(dead_letters::run(&env, action.unwrap_or(dead_letters::Action::List)))
        }
    }
}

/// Asks the worker of this machine whether it answers.
fn ask_health(env: &Environment) -> Result<(), Box<dyn std::error::Error>> {
    let address = config::metrics_address(env)?.ok_or_else(|| ConfigError::Problem {
        name: "METRICS_PORT".to_owned(),
        problem: "not set, so the worker does not listen".to_owned(),
    })?;
    Ok(health_request::ask(address)?)
}

fn run_command(command: impl Future<Output = Result<(), Box<dyn std::error::Error>>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    report(runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(command)))
}

fn report(result: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("polyglot-worker: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn work(env: &Environment) -> ExitCode {
    let (connections, settings, traces) = match configure(env) {
        Ok(configured) => configured,
        Err(error) => {
            eprintln!("polyglot-worker: {}", chain(&error));
            return ExitCode::from(2);
        }
    };
    // Two threads are enough for I/O; encoding has threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(env.clone(), connections, settings)),
        Err(error) => Err(error.into()),
    };
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&*error), "worker stopped");
            ExitCode::FAILURE
        }
    };
    traces.end();
    code
}

fn configure(env: &Environment) -> Result<(Connections, config::Settings, Tracing), ConfigError> {
    let (connections, settings) = (Connections::from_environment(env)?, config::Settings::from_environment(env)?);
    Ok((connections, settings, logging::start(env, "polyglot-worker")?))
}

async fn run(
    env: Environment,
    connections: Connections,
    settings: config::Settings,
) -> Result<(), Box<dyn std::error::Error>> {
    let lifecycle = Lifecycle::with_signals()?;
    let reloaded = connections.clone();
    lifecycle.on_hangup(move || reloaded.reload(&env))?;
    // First, so that everything after it is counted, and so that nothing else is started if the port is in use.
    let metrics_server = match settings.metrics_address {
        Some(address) => Some(metrics_server::MetricsServer::begin(address)?),
        None => None,
    };
    // For each slot at most a claim or an end and a heartbeat at a time; in addition the relay, the sweeper, and
    // holders of snapshots.
    let pool_size = u32::from(settings.slots) * 2 + 4;
    let ledger = Ledger::new(&connections.database_url, pool_size, "polyglot-worker")?;
    tokio::select! {
        migrated = ledger.prepare(connections.migration_mode, LEDGER_START_TIMEOUT) => migrated?,
        () = lifecycle.stopping.cancelled() => return Ok(()),
    }
    let connection_limit = ConnectionLimit::new(settings.source_connections.into(), settings.slots.into());
    find_shared_sessions(&connection_limit, &connections.source_database_url).await?;
    let storage = Storage::new(&connections.storage).await;
    let name = format!("worker-{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
    let broker = Broker::of(&connections, name.clone());
    let relay = Relay::default();
    let background = tokio_util::task::TaskTracker::new();
    // The background tasks continue while running exports drain, and stop after that.
    let drained = tokio_util::sync::CancellationToken::new();
    background.spawn(run_relay(ledger.clone(), broker.clone(), relay.clone(), drained.clone()));
    background.spawn(send_notifications(ledger.clone(), drained.clone()));
    let sweeper = Sweeper {
        ledger: ledger.clone(),
        storage: storage.clone(),
        source_database_url: connections.source_database_url.clone(),
        source_connections: connection_limit.clone(),
        relay: relay.clone(),
        ledger_ttl: settings.ledger_ttl,
        audit_ttl: settings.audit_ttl,
    };
    background.spawn(sweeper.run(drained.clone()));
    let subscription = Subscription::new(broker, settings.slots);
    let context = WorkerContext::new(connections, settings, ledger, storage, relay, name, connection_limit);
    let context = Arc::new(context);
    if let Some(metrics_server) = metrics_server {
        background.spawn(metrics_server.serve(Arc::clone(&context), drained.clone()));
    }
    runner::run(context, subscription, &lifecycle).await;
    drained.cancel();
    background.close();
    if tokio::time::timeout(Duration::from_secs(10), background.wait()).await.is_err() {
        tracing::warn!("the background tasks did not stop in time");
    }
    tracing::info!("worker stopped");
    Ok(())
}
