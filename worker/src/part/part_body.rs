//! The body of an upload request: bytes in memory or in a temporary file, which can be sent again without a copy.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use polyglot_storage::StorageError;

use super::buffer_pool::BufferPool;
use super::shard_body::{Stored, WrittenBody};

/// Minimum timeout of an upload request.
const MIN_TIMEOUT: Duration = Duration::from_mins(1);
/// Minimum rate of an upload, in bytes a second. A slower connection is treated as broken.
const MIN_BYTES_A_SECOND: u64 = 256 << 10;

/// The body of an upload request.
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
    /// Makes a body of a stored shard. A buffer in memory returns to `pool` when the body is dropped.
    pub(crate) fn of(written: WrittenBody, pool: &BufferPool) -> Self {
        match written.stored {
            Stored::Memory(buffer) => Self::Memory(pool.freeze(buffer, None)),
            Stored::File(file) => Self::File(file, i64::try_from(written.bytes).unwrap_or(i64::MAX)),
        }
    }

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> i64 {
        match self {
            Self::Memory(bytes) => i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            Self::File(_, bytes) => *bytes,
        }
    }

    /// Returns the timeout of the request that sends this body.
    pub(crate) fn patience(&self) -> Duration {
        MIN_TIMEOUT.max(Duration::from_secs(u64::try_from(self.len()).unwrap_or(0) / MIN_BYTES_A_SECOND))
    }

    /// Returns the body as the S3 client takes it.
    pub(crate) async fn stream(&self) -> Result<ByteStream, StorageError> {
        match self {
            // The stream shares the buffer.
            Self::Memory(bytes) => Ok(ByteStream::from(bytes.clone())),
            // The file has no name, but a process can open its own descriptors by number. Each opening reads from the
            // beginning.
            Self::File(file, _) => {
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                ByteStream::from_path(path).await.map_err(|error| StorageError::not_sent("UploadPart", error))
            }
        }
    }
}
