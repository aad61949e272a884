//! What any process does in the ledger from time to time: the sweep, and counting what waits.

mod backlog_stats;
mod sweep;
mod sweeper;

pub use backlog_stats::{Ended, Waits};
pub use sweep::Swept;
pub use sweeper::Sweeper;
