//! One part of a file: its size, its buffer, and the budget that bounds the parts in memory.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::buffer_pool::BufferPool;

/// Maximum number of parts in an S3 multipart upload.
pub(crate) const MAX_PARTS: u32 = 10_000;
/// Minimum size of a part in bytes. S3 refuses a smaller one unless it is the last.
pub(crate) const MIN_PART_BYTES: usize = 5 << 20;
/// Size of a part in bytes, unless the estimate asks for more. Smaller parts cost more requests, larger ones more
/// memory.
const BASE_PART_BYTES: usize = 8 << 20;
/// Bytes by which a part may exceed its size: the most that is appended at a time.
pub(crate) const PART_SLACK: usize = 256 << 10;
/// Number of parts after which the part size doubles, because the estimate was too low.
const PARTS_A_SIZE: u32 = 2_000;

/// A part on its way to the object store.
#[derive(Debug)]
pub(crate) struct Part {
    pub number: u32,
    /// The content. When its last clone is dropped, the buffer and its share of the budget go to the next part.
    pub bytes: Bytes,
    pub crc32: u32,
}

/// A message from the encoding thread to the upload. A channel that closes without `End` means that encoding ended
/// early.
#[derive(Debug)]
pub(crate) enum FromEncoder {
    Part(Part),
    End,
}

/// Memory budget for the parts of one export, in units of a kibibyte, and the pool of their buffers.
#[derive(Debug, Clone)]
pub(crate) struct PartBudget {
    semaphore: Arc<Semaphore>,
    kibibytes: u32,
    buffers: BufferPool,
}

/// An empty buffer for one part, with its permit of the budget.
#[derive(Debug)]
pub(crate) struct PartBuffer {
    pub bytes: Vec<u8>,
    pool: BufferPool,
    permit: OwnedSemaphorePermit,
}

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl PartBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        let kibibytes = kibibytes(bytes);
        let permits = usize::try_from(kibibytes).unwrap_or(usize::MAX);
        Self { semaphore: Arc::new(Semaphore::new(permits)), kibibytes, buffers: BufferPool::default() }
    }

    /// Waits until the budget allows a part of `bytes` and returns a buffer for it. A part larger than the whole budget
    /// waits for all of it, so that it is in memory alone.
    pub(crate) async fn reserve(&self, bytes: usize) -> PartBuffer {
        let wanted = kibibytes(bytes).min(self.kibibytes);
        let permit = Arc::clone(&self.semaphore).acquire_many_owned(wanted).await;
        let permit = permit.expect("the semaphore is never closed");
        PartBuffer { bytes: self.buffers.take(bytes), pool: self.buffers.clone(), permit }
    }
}

impl Part {
    /// `crc32`: checksum of the buffer's bytes.
    pub(crate) fn new(number: u32, buffer: PartBuffer, crc32: u32) -> Self {
        let PartBuffer { bytes, pool, permit } = buffer;
        Self { number, bytes: pool.freeze(bytes, Some(permit)), crc32 }
    }
}

/// Sizes of the parts: from the estimate, so that 10,000 parts are enough, and growing with the part's number in case
/// the estimate was low. They depend on the estimate and the budget alone, so that a repeated attempt produces the same
/// parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartSizes {
    first: usize,
    largest: usize,
}

impl PartSizes {
    /// `budget`: maximum bytes of parts in memory. At least two parts have to fit, or no progress is made.
    pub(crate) fn new(estimated_bytes: Option<u64>, budget: usize) -> Self {
        let largest = (budget / 2).saturating_sub(PART_SLACK).max(MIN_PART_BYTES);
        // Half of the parts hold the estimated bytes, the other half covers the error of the estimate.
        let wanted = estimated_bytes.unwrap_or(0) / u64::from(MAX_PARTS / 2);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        Self { first: wanted.max(BASE_PART_BYTES).min(largest), largest }
    }

    /// Returns the size in bytes of part `number`, counted from 1.
    pub(crate) fn of(&self, number: u32) -> usize {
        let doublings = number.saturating_sub(1) / PARTS_A_SIZE;
        self.first.saturating_mul(1 << doublings.min(20)).min(self.largest)
    }

    /// Returns the size in bytes of the largest file that can be written.
    pub(crate) fn capacity(&self) -> u64 {
        (1..=MAX_PARTS).map(|number| u64::try_from(self.of(number)).unwrap_or(u64::MAX)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn sizes_follow_the_estimate_and_grow() {
        let small = PartSizes::new(Some(1 << 30), 64 * MIB);
        assert_eq!((small.of(1), small.of(2000), small.of(2001)), (8 * MIB, 8 * MIB, 16 * MIB));
        assert_eq!(PartSizes::new(None, 64 * MIB).of(1), 8 * MIB);
        let large = PartSizes::new(Some(100 << 30), 64 * MIB);
        assert!(large.of(1) > 20 * MIB && large.capacity() > 100 << 30);
        assert!(small.capacity() > 200 << 30, "{}", small.capacity());
    }

    #[test]
    fn two_parts_always_fit_the_budget_and_none_is_too_small() {
        for budget in [16, 24, 32, 64, 1024] {
            for estimate in [None, Some(0), Some(1 << 40), Some(u64::MAX)] {
                let sizes = PartSizes::new(estimate, budget * MIB);
                for number in [1, 2000, 2001, 9999, 10_000] {
                    assert!(sizes.of(number) >= MIN_PART_BYTES);
                    assert!(2 * (sizes.of(number) + PART_SLACK) <= budget * MIB, "{budget} {number}");
                }
            }
        }
    }

    #[tokio::test]
    async fn budget_and_buffer_are_returned_when_a_part_is_dropped() {
        let budget = PartBudget::new(2 * MIB);
        let mut buffer = budget.reserve(MIB).await;
        buffer.bytes.extend_from_slice(b"x");
        let address = buffer.bytes.as_ptr();
        let part = Part::new(1, buffer, 0);
        assert_eq!(&part.bytes[..], b"x");
        let held = budget.reserve(MIB).await;
        {
            let waiting = budget.reserve(MIB);
            tokio::pin!(waiting);
            assert!(futures_util::poll!(&mut waiting).is_pending());
            drop(part);
            let buffer = waiting.await;
            assert!(buffer.bytes.is_empty() && buffer.bytes.as_ptr() == address);
        }
        drop(held);
        // A part larger than the budget waits for all of it.
        budget.reserve(100 * MIB).await;
    }
}
