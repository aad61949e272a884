//! The bytes of a part as the store's client wants them: to be sent again if need be, without a copy.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use polyglot_storage::StorageError;

use super::buffer_pool::Buffers;
use super::shard_body::{Stored, WrittenBody};

const LEAST_PATIENCE: Duration = Duration::from_mins(1);
/// Below this a connection is as good as none.
const SLOWEST_BYTES_A_SECOND: u64 = 256 << 10;

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
            Stored::Memory(buffer) => Self::Memory(home.lend(buffer, None)),
            Stored::File(file) => Self::File(file, i64::try_from(written.bytes).unwrap_or(i64::MAX)),
        }
    }

    pub(crate) fn len(&self) -> i64 {
        match self {
            Self::Memory(bytes) => i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            Self::File(_, bytes) => *bytes,
        }
    }

    /// How long the store may take for it.
    pub(crate) fn patience(&self) -> Duration {
        LEAST_PATIENCE.max(Duration::from_secs(u64::try_from(self.len()).unwrap_or(0) / SLOWEST_BYTES_A_SECOND))
    }

    pub(crate) async fn stream(&self) -> Result<ByteStream, StorageError> {
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
