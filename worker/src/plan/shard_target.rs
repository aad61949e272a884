//! How large the shards of an export are to be, and how many there may be.

use polyglot_core::request::{ExportRequest, Layout};

use super::read_plan::Plan;

/// Bytes of the file that a shard is to hold, as they are stored, where each shard is a file of its own. How many of one
/// file: the format's definition says it.
const FILE_BYTES: u64 = 128 << 20;
/// Of the object store's 10,000 parts one is the file's end, and an estimate may be wrong.
const MOST_SHARDS: u64 = 6000;
/// A shard that the sample says is smaller than this share of the others is added to the one before it.
const LEAST_SHARE: f64 = 0.6;
/// And in any case one that is to have less than this: by as much as a sample may be wrong, more than a part has to have.
const LEAST_SHARD_BYTES: f64 = (9 << 20) as f64;
/// Factor by which each size step makes shards larger.
const SIZE_STEP_FACTOR: u64 = 4;

/// Into how many shards an export may be cut, and how large each is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShardTarget {
    pub bytes: u64,
    pub most: u64,
}

impl ShardTarget {
    pub(super) fn new(plan: &Plan, request: &ExportRequest, size_step: u8) -> Self {
        let size = &plan.format.shard_size;
        let columns = u64::try_from(plan.columns.len()).unwrap_or(u64::MAX).max(1);
        let (bytes, most) = match request.layout {
            Layout::File => (size.bytes, size.max_columns_times_shards.map_or(MOST_SHARDS, |most| most / columns)),
            Layout::Files => (FILE_BYTES, MOST_SHARDS),
        };
        Self { bytes: bytes * SIZE_STEP_FACTOR.pow(size_step.into()), most: most.min(MOST_SHARDS) }
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn least_share(self) -> f64 {
        LEAST_SHARE.max(LEAST_SHARD_BYTES / self.bytes as f64)
    }
}
