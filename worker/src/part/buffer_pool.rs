//! Memory for parts that is used again: it keeps megabytes from going through the allocator for every part, which would
//! not give all of them back to the system.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

/// Each with the export that it was used for.
type Pool = Vec<(Uuid, Vec<u8>)>;

/// Buffers that have been used before; as one export sees them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffers {
    pool: Arc<Mutex<Pool>>,
    export: Uuid,
}

impl Buffers {
    pub(crate) fn of(&self, export: Uuid) -> Self {
        Self { pool: Arc::clone(&self.pool), export }
    }

    fn used(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the memory back: nothing that is cut is worked on any more.
    pub(crate) fn clear(&self) {
        self.used().clear();
    }

    /// One that is empty, and has room for `bytes`.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        let mut used = self.used();
        let own = used.iter().position(|(export, _)| *export == self.export);
        let buffer = own.map(|index| used.swap_remove(index)).or_else(|| used.pop());
        match buffer {
            Some((export, buffer)) if export == self.export && buffer.capacity() >= bytes => buffer,
            // Replaced, not grown: there is nothing in it to keep. And as much of it as was ever written to is in memory,
            // which for another export, of larger parts, may be much more than this one needs.
            _ => Vec::with_capacity(bytes),
        }
    }

    /// A buffer's bytes. When the last clone of them is dropped it comes back, and with it what it was charged to.
    pub(super) fn lend(&self, buffer: Vec<u8>, permit: Option<OwnedSemaphorePermit>) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: self.clone(), _permit: permit })
    }
}

/// A buffer that is being sent.
struct Lent {
    buffer: Vec<u8>,
    home: Buffers,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.home.used().push((self.home.export, buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_for_the_export_that_filled_it() {
        let [first, second] = [1, 2].map(Uuid::from_u128);
        let first = Buffers::default().of(first);
        let second = first.of(second);
        let buffer = first.take(1000);
        let address = buffer.as_ptr();
        drop(first.lend(buffer, None));
        drop(second.lend(Vec::with_capacity(1000), None));
        let buffer = first.take(1000);
        assert!(buffer.is_empty() && buffer.as_ptr() == address);

        // The second export's is replaced: a worker has as many buffers as slots, whatever they work on.
        let third = first.take(10);
        assert!(third.capacity() < 1000 && first.used().is_empty());
    }
}
