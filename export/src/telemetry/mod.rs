//! What a process tells of itself: numbers for Prometheus and spans for a trace. What is counted, and which work is a span,
//! is said where it happens; log lines are `logging`'s.

mod described;
mod origin;
mod otlp;
mod page;
mod process;
mod recorder;
mod trace;

pub use described::{
    HTTP_DURATION, HTTP_REQUESTS, Kind, LEASE_LOSSES, MESSAGES_PUBLISHED, METRICS, Metric, PART_RETRIES, PARTS, ROWS,
    STORED_BYTES, SWEPT, WORK, WORK_DURATION,
};
pub use origin::Origin;
pub use otlp::Tracing;
pub(crate) use otlp::layer;
pub use page::Page;
pub use recorder::{InstallError, Recorder};
pub(crate) use trace::Publishing;
pub use trace::{Since, failed, follow, origin_of, rename};

/// Connections of a pool, or of whatever else keeps some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolUse {
    pub idle: usize,
    pub used: usize,
}

impl PoolUse {
    /// Of a pool of the driver's.
    #[must_use]
    pub fn of(pool: &sqlx::PgPool) -> Self {
        let idle = pool.num_idle();
        let all = usize::try_from(pool.size()).unwrap_or(usize::MAX);
        Self { idle, used: all.saturating_sub(idle) }
    }
}
