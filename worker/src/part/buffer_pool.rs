//! A pool of part buffers. Reuse keeps megabytes from going through the allocator for every part; the allocator would
//! not return all of that memory to the system.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

/// Unused buffers, each with the id of the export that last used it.
type Pool = Vec<(Uuid, Vec<u8>)>;

/// A pool of unused buffers, as one export sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct BufferPool {
    pool: Arc<Mutex<Pool>>,
    export: Uuid,
}

impl BufferPool {
    /// Returns the same pool for another export.
    pub(crate) fn for_export(&self, export: Uuid) -> Self {
        Self { pool: Arc::clone(&self.pool), export }
    }

    fn unused(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees all unused buffers. Called when this process holds no snapshot of a sharded export any more.
    pub(crate) fn clear(&self) {
        self.unused().clear();
    }

    /// Returns an empty buffer with a capacity of at least `bytes`.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        let mut unused = self.unused();
        let own = unused.iter().position(|(export, _)| *export == self.export);
        let buffer = own.map(|index| unused.swap_remove(index)).or_else(|| unused.pop());
        match buffer {
            Some((export, buffer)) if export == self.export && buffer.capacity() >= bytes => buffer,
            // Replaced, not grown, because growing would copy. Every page of a buffer that was ever written to stays in
            // memory: a buffer of an export with larger parts may hold much more than this export needs.
            _ => Vec::with_capacity(bytes),
        }
    }

    /// Turns a buffer into bytes to send. When their last clone is dropped, the buffer returns to the pool and `permit`
    /// is released.
    pub(super) fn freeze(&self, buffer: Vec<u8>, permit: Option<OwnedSemaphorePermit>) -> Bytes {
        Bytes::from_owner(PooledBytes { buffer, pool: self.clone(), _permit: permit })
    }
}

/// A buffer whose bytes are being sent.
struct PooledBytes {
    buffer: Vec<u8>,
    pool: BufferPool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for PooledBytes {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for PooledBytes {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.pool.unused().push((self.pool.export, buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_for_the_export_that_filled_it() {
        let [first, second] = [1, 2].map(Uuid::from_u128);
        let first = BufferPool::default().for_export(first);
        let second = first.for_export(second);
        let buffer = first.take(1000);
        let address = buffer.as_ptr();
        drop(first.freeze(buffer, None));
        drop(second.freeze(Vec::with_capacity(1000), None));
        let buffer = first.take(1000);
        assert!(buffer.is_empty() && buffer.as_ptr() == address);

        // The buffer of the second export is replaced: the number of buffers follows the number of slots, not of
        // exports.
        let third = first.take(10);
        assert!(third.capacity() < 1000 && first.unused().is_empty());
    }
}
