//! The ledger: the PostgreSQL tables that decide what happens to an export, and the queue that wakes workers. One folder for
//! what a client causes, one for what a worker does, one for what any process does from time to time.

mod client;
mod config;
mod database;
mod maintenance;
mod notifications;
mod outbox;
pub mod queue;
mod work;

pub use client::{Accepted, BenchmarkLock, Deletion, Export, ListFilter, Reservation, ReservedKey, Submission};
pub use config::Connections;
pub use database::{Ledger, LedgerError, in_time, persist};
pub use maintenance::{Ended, Sweeper, Swept, Waits};
pub use notifications::{Change, Listener, tell_changes};
pub use outbox::Waiting;
pub use work::{
    Attempt, Claim, Claimed, Committed, Cut, Finished, Keeper, Leftover, Planned, Renewal, RetryPolicy, ShardWork,
    StoredShard, Terms, Work, deadline_failure, snapshot_age_failure,
};
