//! The stored bytes of one whole shard: the object store needs the checksum of a part before its bytes. Bytes that
//! exceed the limit of memory go to a temporary file without a name, which disappears however the process ends.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_storage::ObjectBody;

use super::buffer_pool::BufferPool;
use super::part::PART_SLACK;
use super::part_sink::{OutputError, PartSink};

/// Bytes that are written to the temporary file at a time.
const STEP: usize = 1 << 20;

/// A sink that gathers one shard.
pub(crate) struct ShardBody {
    buffer: Vec<u8>,
    /// Maximum bytes in memory.
    limit: usize,
    /// The temporary file, if there is one: all bytes before those in the buffer.
    file: Option<File>,
    crc: crc32fast::Hasher,
    bytes: u64,
}

/// The place of a shard's bytes.
#[derive(Debug)]
pub(crate) enum Stored {
    Memory(Vec<u8>),
    File(File),
}

/// A finished shard, with its size in bytes and its checksum.
#[derive(Debug)]
pub(crate) struct WrittenBody {
    pub stored: Stored,
    pub bytes: u64,
    pub crc32: u32,
}

impl WrittenBody {
    /// What the store is sent. A buffer returns to `pool` afterwards.
    pub(crate) fn into_object_body(self, pool: &BufferPool) -> ObjectBody {
        match self.stored {
            Stored::Memory(buffer) => ObjectBody::Memory(pool.freeze(buffer, None)),
            Stored::File(file) => ObjectBody::File { file, bytes: self.bytes },
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn not_written(error: io::Error) -> OutputError {
    let message = "A worker had no room for its temporary file (TMPDIR).";
    Failure::caused(FailureKind::TemporaryFile, message, &error).into()
}

impl ShardBody {
    /// `buffer`: an empty buffer, new or from the pool. `limit`: maximum bytes in memory.
    pub(crate) fn new(buffer: Vec<u8>, limit: usize) -> Self {
        Self { buffer, limit, file: None, crc: crc32fast::Hasher::new(), bytes: 0 }
    }

    fn count(&mut self) {
        self.crc.update(&self.buffer);
        self.bytes += u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
    }

    /// Moves the buffer's bytes to the temporary file.
    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        file.write_all(&self.buffer)
    }
}

impl PartSink for ShardBody {
    type Written = WrittenBody;

    fn buffer(&mut self, _: i64) -> Result<&mut Vec<u8>, OutputError> {
        let limit = if self.file.is_some() { STEP } else { self.limit };
        if self.buffer.len() >= limit {
            self.count();
            self.spill().map_err(not_written)?;
            self.buffer.clear();
            self.buffer.shrink_to(STEP * 2);
        }
        // Grown by steps, not doubled, because the memory for it is limited.
        if self.buffer.capacity() - self.buffer.len() < PART_SLACK {
            self.buffer.reserve_exact(STEP * 4);
        }
        Ok(&mut self.buffer)
    }

    fn finish(mut self, _: i64) -> Result<WrittenBody, OutputError> {
        self.count();
        let stored = if self.file.is_some() {
            self.spill().map_err(not_written)?;
            let mut file = self.file.take().ok_or(OutputError::ReceiverClosed)?;
            file.seek(SeekFrom::Start(0)).map_err(not_written)?;
            Stored::File(file)
        } else {
            Stored::Memory(self.buffer)
        };
        Ok(WrittenBody { stored, bytes: self.bytes, crc32: self.crc.finalize() })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn written(limit: usize) -> (Vec<u8>, WrittenBody, bool) {
        let mut body = ShardBody::new(Vec::new(), limit);
        let mut expected = Vec::new();
        for step in 0..50_u8 {
            let piece = vec![step; 100_000];
            body.buffer(0).map_err(|_| ()).unwrap().extend_from_slice(&piece);
            expected.extend(piece);
        }
        let mut written = body.finish(0).map_err(|_| ()).unwrap();
        let (bytes, spilt) = match &mut written.stored {
            Stored::Memory(bytes) => (bytes.clone(), false),
            Stored::File(file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                (bytes, true)
            }
        };
        assert!(bytes == expected);
        (expected, written, spilt)
    }

    #[test]
    fn what_does_not_fit_goes_to_a_file_and_is_the_same() {
        let (expected, in_memory, spilt) = written(10 << 20);
        assert!(!spilt);
        let (_, in_file, spilt) = written(1 << 20);
        assert!(spilt);
        for written in [in_memory, in_file] {
            assert_eq!(written.bytes, expected.len() as u64);
            assert_eq!(written.crc32, crc32fast::hash(&expected));
        }
    }
}
