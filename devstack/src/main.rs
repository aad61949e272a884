//! The command line of the devstack: which command, and its exit code. The library does all of the work.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use polyglot_devstack::config::RunConfig;
use polyglot_devstack::{Result, clean, run, with_servers};

const USAGE: &str = "\
devstack run
       devstack with-servers -- <CMD> [ARGS]...
       devstack clean";

const ENVIRONMENT: &str = "\
`run` reads LISTEN (127.0.0.1), PORT (8080), DATA_DIR (.data), SEED_ROWS
(1000000) and WORKERS (1), and ALLOWED_HOSTS: names of this machine to add.
It starts no server of its own for what DATABASE_URL, AMQP_URL or S3_ENDPOINT
(with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) name. `clean` reads DATA_DIR.";

/// The whole export service on one machine, for a trial and for the tests.
#[derive(Debug, Parser)]
#[command(name = "devstack", override_usage = USAGE, after_help = ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything on this machine, fill the sample table, export it once, and run until Ctrl-C.
    #[command(after_help = ENVIRONMENT)]
    Run,
    /// Run a command with throw-away servers, whose addresses it gets in TEST_… variables.
    WithServers {
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Remove what `devstack run` keeps in DATA_DIR.
    Clean,
}

#[tokio::main]
async fn main() -> ExitCode {
    execute(Cli::parse().command).await.unwrap_or_else(|error| {
        eprintln!("devstack: {}", error.with_causes());
        ExitCode::FAILURE
    })
}

async fn execute(command: Command) -> Result<ExitCode> {
    match command {
        // Boxed: it holds the state of everything that is being started.
        Command::Run => Box::pin(run::run(RunConfig::from_env()?)).await.map(|()| ExitCode::SUCCESS),
        Command::WithServers { command } => with_servers::run(&command).await.map(ExitCode::from),
        Command::Clean => clean::clean(&RunConfig::from_env()?.data_dir).await.map(|()| ExitCode::SUCCESS),
    }
}
