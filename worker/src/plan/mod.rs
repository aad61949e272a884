//! Planning, before a row is read: the columns and the statement, whether the rows are sharded and where, and the draft
//! of the manifest.

mod calibrate;
mod key;
mod manifest_draft;
mod moment;
#[cfg(test)]
mod postgres_tests;
mod range;
mod read_plan;
mod row_size_estimate;
mod sample;
mod shard_plan;
mod shard_target;
mod sql;

pub(crate) use manifest_draft::ManifestDraft;
pub(crate) use moment::is_promised;
pub(crate) use range::Range;
pub(crate) use read_plan::{Plan, read_plan};
pub(crate) use shard_plan::{ShardPlan, expects_shards, shard_plan};
