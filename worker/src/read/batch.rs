//! Batches of whole rows, on their way from the source to the encoder.

use bytes::Bytes;

/// Whole rows, one after the other as they came.
#[derive(Debug)]
pub(crate) struct Batch {
    pub bytes: Bytes,
    pub rows: usize,
}

/// What the source sends down the pipeline. A channel that closes without `End` was cut off.
#[derive(Debug)]
pub(crate) enum FromSource {
    Batch(Batch),
    End,
}
