//! The ledger's calls for workers: claiming work, renewing and ending claims, and the record of shards, snapshots and uploads.

mod claim;
mod end;
mod lease;
mod next_work;
mod outcome;
mod places;
mod policy;
mod renew;
mod shards;
mod snapshots;
mod turns;
mod uploads;

pub use claim::Claimed;
pub use lease::{Claim, JobKind, Renewal, ShardWork, ShardedAttempt};
pub use outcome::Finished;
pub use places::PlaceRequest;
pub use policy::{RetryPolicy, Terms, deadline_failure, snapshot_age_failure};
pub use shards::{Committed, Planned, StoredShard};
pub use snapshots::{Attempt, SnapshotHolder};
pub use turns::Turn;
pub use uploads::OrphanedUpload;

pub(crate) use end::{delete_shards, end_export};
