//! The command line of the devstack: which command, and its exit code. All work is in the library.

use std::ffi::OsString;
use std::process::ExitCode;

use polyglot_devstack::config::RunConfig;
use polyglot_devstack::{Result, clean, run, with_servers};

const USAGE: &str = "\
devstack run                          start everything on this machine, seed it, export once, stay up
devstack with-servers -- CMD ARGS…    run CMD with throw-away servers, which it finds in TEST_… variables
devstack clean                        remove what `devstack run` keeps

`run` reads PORT (8080), DATA_DIR (.data), SEED_ROWS (1000000), WORKERS (1), and starts no server of its own
for what DATABASE_URL, AMQP_URL or S3_ENDPOINT (with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) name.
";

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let result = match words.iter().map(AsRef::as_ref).collect::<Vec<&str>>().as_slice() {
        ["run"] => start().await,
        ["clean"] => remove().await,
        ["with-servers", "--", _, ..] => with_servers::run(&args[2..]).await.map(ExitCode::from),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("devstack: {}", error.with_causes());
        ExitCode::FAILURE
    })
}

async fn start() -> Result<ExitCode> {
    // Boxed: it holds the state of everything that is being started.
    Box::pin(run::run(RunConfig::from_env()?)).await.map(|()| ExitCode::SUCCESS)
}

async fn remove() -> Result<ExitCode> {
    clean::clean(&RunConfig::from_env()?.data_dir).await.map(|()| ExitCode::SUCCESS)
}
