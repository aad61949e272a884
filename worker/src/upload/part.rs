//! Cutting the file's bytes into parts: how large a part is, and the budget that bounds how many are in memory.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// S3 takes at most so many parts in an upload.
pub const MAX_PARTS: u32 = 10_000;
/// S3 refuses a smaller part unless it is the last.
pub const MIN_PART_BYTES: usize = 5 << 20;
/// Below this, requests cost more than they save; above it, memory does.
const BASE_PART_BYTES: usize = 8 << 20;
/// A part may come out larger than its size by as much as is appended at a time.
pub const PART_SLACK: usize = 256 << 10;
/// After so many parts the size doubles: the estimate was too low.
const PARTS_A_SIZE: u32 = 2_000;

/// A part on its way to the object store. Dropping it gives its budget back.
#[derive(Debug)]
pub struct Part {
    pub number: u32,
    pub bytes: Bytes,
    pub crc32: u32,
    _permit: OwnedSemaphorePermit,
}

/// Memory for the parts of one export, in units of a kibibyte.
#[derive(Debug, Clone)]
pub struct PartBudget {
    semaphore: Arc<Semaphore>,
    kibibytes: u32,
}

/// Room for one part.
#[derive(Debug)]
pub struct Room(OwnedSemaphorePermit);

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl PartBudget {
    pub fn new(bytes: usize) -> Self {
        let kibibytes = kibibytes(bytes);
        Self { semaphore: Arc::new(Semaphore::new(usize::try_from(kibibytes).unwrap_or(usize::MAX))), kibibytes }
    }

    /// Waits for room for a part of `bytes`. What is larger than the whole budget waits for all of it, so it
    /// goes alone.
    pub async fn reserve(&self, bytes: usize) -> Room {
        let wanted = kibibytes(bytes).min(self.kibibytes);
        let permit = Arc::clone(&self.semaphore).acquire_many_owned(wanted).await;
        Room(permit.expect("the semaphore is never closed"))
    }
}

impl Part {
    pub fn new(number: u32, bytes: Vec<u8>, room: Room) -> Self {
        let crc32 = crc32fast::hash(&bytes);
        Self { number, bytes: Bytes::from(bytes), crc32, _permit: room.0 }
    }
}

/// How large each part is: from the estimate, so that 10,000 parts are enough, and growing on the way in case
/// the estimate was low. Depends on the estimate and the budget alone, so an attempt that is repeated cuts the
/// same parts.
#[derive(Debug, Clone, Copy)]
pub struct PartSizes {
    first: usize,
    largest: usize,
}

impl PartSizes {
    /// `budget`: bytes of parts in memory at a time, of which two parts are the least that can make progress.
    pub fn new(estimated_bytes: Option<u64>, budget: usize) -> Self {
        let largest = (budget / 2).saturating_sub(PART_SLACK).max(MIN_PART_BYTES);
        // Half of the parts are for the estimate, the other half for its error.
        let wanted = estimated_bytes.unwrap_or(0) / u64::from(MAX_PARTS / 2);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        Self { first: wanted.max(BASE_PART_BYTES).min(largest), largest }
    }

    /// The size of part `number`, counted from 1.
    pub fn of(&self, number: u32) -> usize {
        let doublings = number.saturating_sub(1) / PARTS_A_SIZE;
        self.first.saturating_mul(1 << doublings.min(20)).min(self.largest)
    }

    /// The largest file that can be written, in bytes.
    pub fn capacity(&self) -> u64 {
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
    async fn room_comes_back_when_a_part_is_dropped() {
        let budget = PartBudget::new(2 * MIB);
        let part = Part::new(1, vec![0; MIB], budget.reserve(MIB).await);
        let held = budget.reserve(MIB).await;
        let waiting = budget.reserve(100 * MIB);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop((part, held));
        waiting.await;
    }
}
