//! What a process tells of itself: numbers for Prometheus and spans for a trace. What is counted, and which work is a span,
//! is said where it happens; log lines are `logging`'s.

mod metric_definitions;
mod otlp;
mod page;
mod process;
mod recorder;
mod trace;
mod trace_context;

pub use metric_definitions::{
    HTTP_DURATION, HTTP_REQUESTS, Kind, LEASE_LOSSES, MESSAGES_PUBLISHED, METRICS, Metric, PART_RETRIES, PARTS, ROWS,
    STORED_BYTES, SWEPT, WORK, WORK_DURATION,
};
pub use otlp::Tracing;
pub(crate) use otlp::layer;
pub use page::Page;
pub use recorder::{InstallError, METRICS_CONTENT_TYPE, Recorder};
pub use trace::Publishing;
pub use trace::{ClaimTimer, failed, rename, set_parent, trace_context_of};
pub use trace_context::TraceContext;

/// Connections of a pool, or of whatever else keeps some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolUse {
    pub idle: usize,
    pub used: usize,
}
