//! Setting up the log of a process: JSON lines or coloured text on standard error. The same `tracing` spans are exported as
//! traces.

mod json_line;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use self::json_line::JsonLine;
use crate::config::{ConfigError, Environment};
use crate::telemetry::{self, Tracing};

/// Names of spans that are for the log alone: health probes come every few seconds, and holding a snapshot is not part of the
/// work.
const NOT_TRACED: [&str; 2] = ["probe", "snapshot"];

#[derive(Clone, Copy)]
enum LogFormat {
    Json,
    Pretty,
}

/// Starts logging as `LOG_FORMAT` (`json`, `pretty`) and `RUST_LOG` (`level` or `target=level`, separated by
/// commas) say, and exporting traces where `OTEL_EXPORTER_OTLP_ENDPOINT` says where to. `service` is the process's name
/// there. Call once.
pub fn start(env: &Environment, service: &'static str) -> Result<Tracing, ConfigError> {
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
        LogFormat::Json => base.fmt_fields(JsonFields::new()).event_format(JsonLine).boxed(),
        LogFormat::Pretty => base.boxed(),
    };
    let (tracer, tracing) = telemetry::layer(env, service)?;
    let spans = tracer.map(|tracer| {
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            // Code locations, threads and busy times would make a trace four times as large.
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_level(false)
            .with_context_activation(false)
            // The spans of this service, whatever level the log has.
            .with_filter(filter_fn(is_ours).with_max_level_hint(LevelFilter::INFO))
    });
    tracing_subscriber::registry().with(layer.with_filter(targets)).with(spans).init();
    Ok(tracing)
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("polyglot")
        && *metadata.level() <= Level::INFO
        && !NOT_TRACED.contains(&metadata.name())
}
