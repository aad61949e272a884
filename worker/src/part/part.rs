//! Cutting the file's bytes into parts: how large a part is, and the budget that bounds how many are in memory.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::buffer_pool::Buffers;

/// S3 takes at most so many parts in an upload.
pub(crate) const MAX_PARTS: u32 = 10_000;
/// S3 refuses a smaller part unless it is the last.
pub(crate) const MIN_PART_BYTES: usize = 5 << 20;
/// Below this, requests cost more than they save; above it, memory does.
const BASE_PART_BYTES: usize = 8 << 20;
/// A part may come out larger than its size by as much as is appended at a time.
pub(crate) const PART_SLACK: usize = 256 << 10;
/// After so many parts the size doubles: the estimate was too low.
const PARTS_A_SIZE: u32 = 2_000;

/// A part on its way to the object store.
#[derive(Debug)]
pub(crate) struct Part {
    pub number: u32,
    /// Once the last clone of it is dropped, its memory and its share of the budget go to the next part.
    pub bytes: Bytes,
    pub crc32: u32,
}

/// What the encoder sends. A channel that closes without `End` was cut off.
#[derive(Debug)]
pub(crate) enum FromEncoder {
    Part(Part),
    End,
}

/// Memory for the parts of one export: how much of it there may be (in units of a kibibyte), and the buffers.
#[derive(Debug, Clone)]
pub(crate) struct PartBudget {
    semaphore: Arc<Semaphore>,
    kibibytes: u32,
    buffers: Buffers,
}

/// Room for one part: an empty buffer, and the permit to fill it.
#[derive(Debug)]
pub(crate) struct Room {
    pub buffer: Vec<u8>,
    home: Buffers,
    permit: OwnedSemaphorePermit,
}

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl PartBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        let kibibytes = kibibytes(bytes);
        let permits = usize::try_from(kibibytes).unwrap_or(usize::MAX);
        Self { semaphore: Arc::new(Semaphore::new(permits)), kibibytes, buffers: Buffers::default() }
    }

    /// Waits for room for a part of `bytes`. What is larger than the whole budget waits for all of it, so it
    /// goes alone.
    pub(crate) async fn reserve(&self, bytes: usize) -> Room {
        let wanted = kibibytes(bytes).min(self.kibibytes);
        let permit = Arc::clone(&self.semaphore).acquire_many_owned(wanted).await;
        let permit = permit.expect("the semaphore is never closed");
        Room { buffer: self.buffers.take(bytes), home: self.buffers.clone(), permit }
    }
}

impl Part {
    /// `crc32` is of what is in the room.
    pub(crate) fn new(number: u32, room: Room, crc32: u32) -> Self {
        let Room { buffer, home, permit } = room;
        Self { number, bytes: home.lend(buffer, Some(permit)), crc32 }
    }
}

/// How large each part is: from the estimate, so that 10,000 parts are enough, and growing on the way in case
/// the estimate was low. Depends on the estimate and the budget alone, so an attempt that is repeated cuts the
/// same parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartSizes {
    first: usize,
    largest: usize,
}

impl PartSizes {
    /// `budget`: bytes of parts in memory at a time, of which two parts are the least that can make progress.
    pub(crate) fn new(estimated_bytes: Option<u64>, budget: usize) -> Self {
        let largest = (budget / 2).saturating_sub(PART_SLACK).max(MIN_PART_BYTES);
        // Half of the parts are for the estimate, the other half for its error.
        let wanted = estimated_bytes.unwrap_or(0) / u64::from(MAX_PARTS / 2);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        Self { first: wanted.max(BASE_PART_BYTES).min(largest), largest }
    }

    /// The size of part `number`, counted from 1.
    pub(crate) fn of(&self, number: u32) -> usize {
        let doublings = number.saturating_sub(1) / PARTS_A_SIZE;
        self.first.saturating_mul(1 << doublings.min(20)).min(self.largest)
    }

    /// The largest file that can be written, in bytes.
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
    async fn room_and_buffer_come_back_when_a_part_is_dropped() {
        let budget = PartBudget::new(2 * MIB);
        let mut room = budget.reserve(MIB).await;
        room.buffer.extend_from_slice(b"x");
        let address = room.buffer.as_ptr();
        let part = Part::new(1, room, 0);
        assert_eq!(&part.bytes[..], b"x");
        let held = budget.reserve(MIB).await;
        {
            let waiting = budget.reserve(MIB);
            tokio::pin!(waiting);
            assert!(futures_util::poll!(&mut waiting).is_pending());
            drop(part);
            let room = waiting.await;
            assert!(room.buffer.is_empty() && room.buffer.as_ptr() == address);
        }
        drop(held);
        // More than there is goes alone.
        budget.reserve(100 * MIB).await;
    }
}
