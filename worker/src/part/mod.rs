//! Encoded bytes into parts: through compression, cut by size, charged to a budget, with buffers that are used again. Sending
//! them is `upload`'s.

mod buffer_pool;
mod output;
#[expect(clippy::module_inception, reason = "the folder is the stage, the file the part itself")]
mod part;
mod part_sink;
mod shard_body;
mod stream_parts;

pub(crate) use buffer_pool::Buffers;
pub(crate) use output::Output;
pub(crate) use part::{FromEncoder, MIN_PART_BYTES, PART_SLACK, Part};
pub(crate) use part_sink::{OutputStop, Sink, Written};
pub(crate) use shard_body::{ShardBody, WrittenBody};
pub(crate) use stream_parts::{Parts, WrittenParts};
