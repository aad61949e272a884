//! The bytes of a part as the store's client wants them: to be sent again if need be, without a copy.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use polyglot_export::storage::StorageError;

use crate::output::{Stored, WrittenBody};

const LEAST_PATIENCE: Duration = Duration::from_mins(1);
/// Below this a connection is as good as none.
const SLOWEST_BYTES_A_SECOND: u64 = 256 << 10;

/// Buffers that have been used before, for the shards of a process. Reusing them keeps megabytes from going through the
/// allocator for every part, which would not give all of them back to the system.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// Gives the memory back: nothing that is cut is worked on any more.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// One that is empty, and has room for `bytes`.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match used {
            Some(buffer) if buffer.capacity() >= bytes => buffer,
            _ => Vec::with_capacity(bytes),
        }
    }
}

/// A buffer that goes back when it was sent.
struct Lent {
    buffer: Vec<u8>,
    home: Buffers,
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
        self.home.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// The bytes of a part.
pub(crate) enum PartBody {
    Memory(Bytes),
    File(File, i64),
}

impl From<Bytes> for PartBody {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

impl PartBody {
    /// The buffer goes to `home` in the end.
    pub(crate) fn of(written: WrittenBody, home: &Buffers) -> Self {
        match written.stored {
            Stored::Memory(buffer) => Self::Memory(Bytes::from_owner(Lent { buffer, home: home.clone() })),
            Stored::File(file) => Self::File(file, i64::try_from(written.bytes).unwrap_or(i64::MAX)),
        }
    }

    pub(super) fn len(&self) -> i64 {
        match self {
            Self::Memory(bytes) => i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            Self::File(_, bytes) => *bytes,
        }
    }

    /// How long the store may take for it.
    pub(super) fn patience(&self) -> Duration {
        LEAST_PATIENCE.max(Duration::from_secs(u64::try_from(self.len()).unwrap_or(0) / SLOWEST_BYTES_A_SECOND))
    }

    pub(super) async fn stream(&self) -> Result<ByteStream, StorageError> {
        match self {
            // Shares the buffer.
            Self::Memory(bytes) => Ok(ByteStream::from(bytes.clone())),
            // The file has no name, but a process finds its own descriptors by number, and opens each anew.
            Self::File(file, _) => {
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                ByteStream::from_path(path).await.map_err(|error| StorageError::not_sent("UploadPart", error))
            }
        }
    }
}
