//! Periodic work in the ledger that any process does: the sweep, forgetting old exports, and counting the backlog.

mod backlog_stats;
mod forget;
mod sweep;
mod sweeper;

pub use backlog_stats::{BacklogStats, FinishedCounts, TenantBacklog};
pub use sweep::Swept;
pub use sweeper::Sweeper;
