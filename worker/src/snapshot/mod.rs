//! The snapshots of sharded exports, as this process holds them: joining one, holding it open, and transactions that
//! read under it.

mod holder_task;
mod sessions;
mod snapshot_name;

pub(crate) use sessions::SnapshotSessions;
