//! Metrics for Prometheus and spans for OpenTelemetry. Events are counted, and spans are made, in the code where they happen;
//! log lines are in `logging`.

mod metric_definitions;
mod otlp;
mod pool_use;
mod process;
mod recorder;
mod sample_writer;
mod trace;
mod trace_context;

pub use metric_definitions::{
    HTTP_CONNECTIONS, HTTP_DURATION, HTTP_REFUSED, HTTP_REQUESTS, LEASE_LOSSES, MESSAGES_PUBLISHED, METRIC_DEFINITIONS,
    MetricDefinition, MetricKind, PART_RETRIES, PARTS, ROWS, SECRET_RELOADS, STORED_BYTES, SWEPT, TENANT_ROWS,
    TENANT_STORED_BYTES, WORK, WORK_DURATION,
};
pub use otlp::Tracing;
pub(crate) use otlp::layer;
pub use pool_use::PoolUse;
pub use recorder::{InstallError, METRICS_CONTENT_TYPE, Recorder};
pub use sample_writer::SampleWriter;
pub use trace::{ClaimTimer, Publishing, failed, rename, set_parent, trace_context_of};
pub use trace_context::TraceContext;
