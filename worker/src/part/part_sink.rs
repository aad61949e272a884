//! The receiver of stored bytes on the encoding thread: a trait that a whole file in parts and a single shard
//! implement.

use std::time::Duration;

use polyglot_core::failure::Failure;

/// The error that ends the encoding thread.
#[derive(Debug)]
pub(crate) enum OutputError {
    Failed(Failure),
    /// The receiving stage has ended. Its own error is the one to report.
    ReceiverClosed,
}

impl From<Failure> for OutputError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A receiver of stored bytes.
pub(crate) trait PartSink: Send {
    type Written: Send;
    /// Returns a buffer to append to: less than [`PART_SLACK`](super::PART_SLACK) bytes before the next call.
    /// `rows_written` is the number of rows that were complete before.
    fn buffer(&mut self, rows_written: i64) -> Result<&mut Vec<u8>, OutputError>;
    /// Returns the time that the sink has waited for others since the last call.
    fn waited(&mut self) -> Duration {
        Duration::ZERO
    }
    /// Ends the output; `rows` is the number of rows in it.
    fn finish(self, rows: i64) -> Result<Self::Written, OutputError>;
}

/// A finished output.
#[derive(Debug)]
pub(crate) struct Written<W> {
    pub rows: i64,
    /// Number of bytes before compression.
    pub uncompressed_bytes: i64,
    /// CRC-32 of the bytes before compression, where the output is a piece of a gzip stream that continues.
    pub uncompressed_crc32: Option<u32>,
    pub stored: W,
}
