//! Where stored bytes go on the encoding thread: the trait that a whole file in parts and a single shard implement.

use std::time::Duration;

use polyglot_core::failure::Failure;

/// Why the encoding thread ends early.
#[derive(Debug)]
pub(crate) enum OutputStop {
    Failed(Failure),
    /// The stage behind went away: it has the error that matters.
    CutOff,
}

impl From<Failure> for OutputStop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Where stored bytes go.
pub(crate) trait Sink: Send {
    type Written: Send;
    /// A buffer to append to, less than [`PART_SLACK`](super::PART_SLACK) bytes before the next call. So many rows
    /// have been written before.
    fn room(&mut self, rows_written: i64) -> Result<&mut Vec<u8>, OutputStop>;
    /// How long it has waited for others since it was asked last.
    fn waited(&mut self) -> Duration {
        Duration::ZERO
    }
    /// Takes what there is; so many rows have been written.
    fn finish(self, rows: i64) -> Result<Self::Written, OutputStop>;
}

/// What was written.
#[derive(Debug)]
pub(crate) struct Written<W> {
    pub rows: i64,
    /// Before compression.
    pub raw_bytes: i64,
    /// Of a run of gzip's that others follow: of the bytes before compression.
    pub raw_crc32: Option<u32>,
    pub stored: W,
}
