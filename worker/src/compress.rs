//! The optional third stage: gzip as one member, with the header and trailer written here around a raw deflate
//! run. That keeps the run, its length and its CRC apart, which is what lets several runs share one member.
//!
//! `flate2` is driven directly, not through `async-compression`: compression is CPU work and belongs on the
//! encoding thread, and this way the output lands in the part's buffer without a copy. bench/README.md has the
//! comparison.

use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress, Status};

/// RFC 1952: magic, deflate, no flags, no time (so that the same rows give the same bytes), no extra flags, and
/// "unknown" as the operating system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Free room that is made before the deflater is asked to fill it.
const ROOM: usize = 32 * 1024;

pub(crate) struct Gzip {
    deflate: Compress,
    crc: Hasher,
    length: u64,
}

impl Gzip {
    /// Starts a member at the end of `out`.
    pub(crate) fn start(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(&HEADER);
        Self { deflate: Compress::new(Compression::new(6), false), crc: Hasher::new(), length: 0 }
    }

    /// Compresses `input`. Output may be held back until later input or the end.
    pub(crate) fn write(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), flate2::CompressError> {
        self.crc.update(input);
        self.length += u64::try_from(input.len()).unwrap_or(u64::MAX);
        while !input.is_empty() {
            let before = self.deflate.total_in();
            self.run(input, out, FlushCompress::None)?;
            // A call takes no more than it was given, so the difference fits.
            input = &input[usize::try_from(self.deflate.total_in() - before).unwrap_or(input.len())..];
        }
        Ok(())
    }

    /// Ends the member.
    pub(crate) fn finish(mut self, out: &mut Vec<u8>) -> Result<(), flate2::CompressError> {
        while self.run(&[], out, FlushCompress::Finish)? != Status::StreamEnd {}
        out.extend_from_slice(&self.crc.finalize().to_le_bytes());
        // The length modulo 2^32, as the format wants it.
        out.extend_from_slice(&self.length.to_le_bytes()[..4]);
        Ok(())
    }

    fn run(&mut self, input: &[u8], out: &mut Vec<u8>, flush: FlushCompress) -> Result<Status, flate2::CompressError> {
        if out.capacity() - out.len() < ROOM {
            out.reserve(ROOM);
        }
        self.deflate.compress_vec(input, out, flush)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_independent_reader_gets_the_input_back() {
        let text: Vec<u8> =
            (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_string().into_bytes()).collect();
        for input in [&[][..], b"x", &text] {
            let mut out = Vec::new();
            let mut gzip = Gzip::start(&mut out);
            for chunk in input.chunks(70_001) {
                gzip.write(chunk, &mut out).unwrap();
            }
            gzip.finish(&mut out).unwrap();
            let mut back = Vec::new();
            // GzDecoder stops after the first member: all of it must be there.
            flate2::read::GzDecoder::new(&out[..]).read_to_end(&mut back).unwrap();
            assert_eq!(back, input);
        }
    }

    #[tokio::test]
    async fn async_compression_reads_it_too() {
        use tokio::io::AsyncReadExt;
        let mut out = Vec::new();
        let mut gzip = Gzip::start(&mut out);
        gzip.write(b"one member", &mut out).unwrap();
        gzip.finish(&mut out).unwrap();
        let mut back = String::new();
        async_compression::tokio::bufread::GzipDecoder::new(&out[..]).read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "one member");
    }
}
