//! The intended size of an export's shards, and their maximum number.

use polyglot_core::request::{ExportRequest, Layout};

use super::read_plan::Plan;

/// Maximum number of shards. One of the object store's 10,000 parts is the end of the file, and an estimate may be
/// wrong.
const MAX_SHARDS: u64 = 6000;
/// Minimum size of a shard by the sample, as a share of the others. A smaller one is merged with the one before it.
const MIN_SHARE: f64 = 0.6;
/// Minimum size of a shard by the sample, in bytes: the minimum of a part and the possible error of a sample.
const MIN_SHARD_BYTES: f64 = (9 << 20) as f64;
/// Factor by which each size step makes shards larger.
const SIZE_STEP_FACTOR: u64 = 4;

/// The maximum number of an export's shards, and the intended size of each in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShardTarget {
    pub bytes: u64,
    pub max_shards: u64,
}

impl ShardTarget {
    pub(super) fn new(plan: &Plan, request: &ExportRequest, size_step: u8) -> Self {
        let size = &plan.format.shard_size;
        let columns = u64::try_from(plan.columns.len()).unwrap_or(u64::MAX).max(1);
        let most = match request.layout {
            Layout::File => size.max_columns_times_shards.map_or(MAX_SHARDS, |most| most / columns),
            Layout::Files => MAX_SHARDS,
        };
        let bytes = size.target_bytes(request.layout) * SIZE_STEP_FACTOR.pow(size_step.into());
        Self { bytes, max_shards: most.min(MAX_SHARDS) }
    }

    /// Returns the minimum size of a shard, as a share of the intended one.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn min_share(self) -> f64 {
        MIN_SHARE.max(MIN_SHARD_BYTES / self.bytes as f64)
    }
}
