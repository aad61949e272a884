//! The parts of a file: encoded bytes are compressed, divided by size, charged to a memory budget and kept in pooled
//! buffers. `upload` sends them.

mod buffer_pool;
mod output;
#[expect(clippy::module_inception, reason = "the folder is the stage, the file the part itself")]
mod part;
mod part_sink;
mod shard_body;
mod stream_parts;

pub(crate) use buffer_pool::BufferPool;
pub(crate) use output::Output;
pub(crate) use part::{FromEncoder, MIN_PART_BYTES, PART_SLACK, Part};
pub(crate) use part_sink::{OutputError, PartSink, Written};
pub(crate) use shard_body::{ShardBody, WrittenBody};
pub(crate) use stream_parts::{Parts, WrittenParts};
