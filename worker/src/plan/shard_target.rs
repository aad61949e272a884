//! The intended size of an export's shards, and their maximum number.

use polyglot_core::format::Format;
use polyglot_core::request::{ExportRequest, Layout};

use super::read_plan::Plan;

/// Intended size of a shard in the stored file, in bytes. A part must have 5 MiB, and a sample is not exact.
const SHARD_BYTES: u64 = 16 << 20;
/// Intended size of a shard of a Parquet file. It is smaller, because a row group is in memory besides the shard.
const PARQUET_SHARD_BYTES: u64 = 12 << 20;
/// Intended size of a shard that is a file of its own.
const FILE_BYTES: u64 = 128 << 20;
/// Maximum number of shards. One of the object store's 10,000 parts is the end of the file, and an estimate may be
/// wrong.
const MAX_SHARDS: u64 = 6000;
/// Maximum number of shards times columns of a Parquet file. Its footer is in memory until it is written, and has about
/// a kilobyte for each column of each row group, of which a shard has a few.
const MAX_COLUMN_CHUNKS: u64 = 16_384;
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
        let bytes = match (request.layout, request.format) {
            (Layout::File, Format::Parquet) => PARQUET_SHARD_BYTES,
            (Layout::File, _) => SHARD_BYTES,
            (Layout::Files, _) => FILE_BYTES,
        };
        let columns = u64::try_from(plan.columns.len()).unwrap_or(u64::MAX).max(1);
        let chunks = match (request.layout, request.format) {
            (Layout::File, Format::Parquet) => MAX_COLUMN_CHUNKS / columns,
            _ => MAX_SHARDS,
        };
        Self { bytes: bytes * SIZE_STEP_FACTOR.pow(size_step.into()), max_shards: chunks.min(MAX_SHARDS) }
    }

    /// Returns the minimum size of a shard, as a share of the intended one.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn min_share(self) -> f64 {
        MIN_SHARE.max(MIN_SHARD_BYTES / self.bytes as f64)
    }
}
