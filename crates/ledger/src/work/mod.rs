//! What a worker does in the ledger: claiming work, committing it, and recording what it begins elsewhere.

mod claim;
mod outcome;
mod shards;
mod snapshots;
mod uploads;

pub use claim::{
    Claim, Claimed, Cut, Renewal, RetryPolicy, ShardWork, Terms, Work, deadline_failure, snapshot_age_failure,
};
pub use outcome::Finished;
pub use shards::{Committed, Keeper, Planned, StoredShard};
pub use snapshots::Attempt;
pub use uploads::Leftover;

pub(crate) use outcome::{end, forget_shards};
