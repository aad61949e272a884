//! Setting up the log of a process: JSON lines or, for people, coloured text, on standard error.

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{ConfigError, Environment};

#[derive(Clone, Copy)]
enum LogFormat {
    Json,
    Pretty,
}

/// Starts logging as `LOG_FORMAT` (`json`, `pretty`) and `RUST_LOG` (`level` or `target=level`, separated by
/// commas) say. Call once.
pub fn start(env: &Environment) -> Result<(), ConfigError> {
    let format =
        env.choice("LOG_FORMAT", LogFormat::Json, &[("json", LogFormat::Json), ("pretty", LogFormat::Pretty)])?;
    let directives = env.text("RUST_LOG", "info,sqlx=warn,lapin=warn,aws_config=warn")?;
    let targets: Targets = directives.parse().map_err(|error| ConfigError::Value {
        name: "RUST_LOG".to_owned(),
        value: directives.clone(),
        expected: format!("expected levels such as info,sqlx=warn ({error})"),
    })?;
    let base = fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        LogFormat::Json => base.json().flatten_event(true).boxed(),
        LogFormat::Pretty => base.boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(targets)).init();
    Ok(())
}
