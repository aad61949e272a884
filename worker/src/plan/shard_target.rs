//! How large the shards of an export are to be, and how many there may be.

use polyglot_core::format::Format;
use polyglot_core::request::{ExportRequest, Layout};

use super::read_plan::Plan;

/// What a shard is to hold of the file, as it is stored. A part has to have 5 MiB, and a sample is not exact.
const SHARD_BYTES: u64 = 16 << 20;
/// Less of a Parquet file: beside the shard, a row group of it is in memory as well.
const PARQUET_SHARD_BYTES: u64 = 12 << 20;
/// The same where each shard is a file of its own.
const FILE_BYTES: u64 = 128 << 20;
/// Of the object store's 10,000 parts one is the file's end, and an estimate may be wrong.
const MOST_SHARDS: u64 = 6000;
/// A Parquet footer is in memory until it is written, and has about a kilobyte for each column of each row group, of which a
/// shard has a few.
const MOST_COLUMN_CHUNKS: u64 = 16_384;
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
        let bytes = match (request.layout, request.format) {
            (Layout::File, Format::Parquet) => PARQUET_SHARD_BYTES,
            (Layout::File, _) => SHARD_BYTES,
            (Layout::Files, _) => FILE_BYTES,
        };
        let columns = u64::try_from(plan.columns.len()).unwrap_or(u64::MAX).max(1);
        let chunks = match (request.layout, request.format) {
            (Layout::File, Format::Parquet) => MOST_COLUMN_CHUNKS / columns,
            _ => MOST_SHARDS,
        };
        Self { bytes: bytes * SIZE_STEP_FACTOR.pow(size_step.into()), most: chunks.min(MOST_SHARDS) }
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn least_share(self) -> f64 {
        LEAST_SHARE.max(LEAST_SHARD_BYTES / self.bytes as f64)
    }
}
