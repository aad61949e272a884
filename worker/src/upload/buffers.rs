//! Memory for parts that is used again: it keeps megabytes from going through the allocator for every part, which would
//! not give all of them back to the system.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

/// Buffers that have been used before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn used(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the memory back: nothing that is cut is worked on any more.
    pub(crate) fn clear(&self) {
        self.used().clear();
    }

    /// One that is empty, and has room for `bytes`.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        let used = self.used().pop();
        match used {
            Some(buffer) if buffer.capacity() >= bytes => buffer,
            // Replaced, not grown: there is nothing in it to keep.
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
        self.home.used().push(buffer);
    }
}
