//! Batches of whole rows on the way from the source to the encoder.

use bytes::Bytes;

/// A batch of whole rows, in the order in which the source sent them.
#[derive(Debug)]
pub(crate) struct Batch {
    pub bytes: Bytes,
    pub rows: usize,
}

/// A message from the source to the encoder. A channel that closes without `End` means that reading ended early.
#[derive(Debug)]
pub(crate) enum FromSource {
    Batch(Batch),
    End,
}
