//! The optional third stage: gzip as one member, or zstd as one frame.
//!
//! gzip's header and trailer are written here around a raw deflate run. That keeps the run, its length and its CRC
//! apart, which is what lets several runs share one member. `flate2` is driven directly, not through
//! `async-compression`: compression is CPU work and belongs on the encoding thread, and this way the output lands in
//! the part's buffer without a copy. bench/README.md has the comparison.

use std::io;

use crc32fast::Hasher;
use flate2::{Compress, FlushCompress, Status};
use polyglot_export::format::Compression;
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

/// RFC 1952: magic, deflate, no flags, no time (so that the same rows give the same bytes), no extra flags, and
/// "unknown" as the operating system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// What the field's tools take where nothing is said.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// Free room that is made before a compressor is asked to fill it.
const ROOM: usize = 32 * 1024;

/// A compressed stream that was begun.
pub(crate) enum Compressor {
    Gzip { deflate: Box<Compress>, crc: Hasher, length: u64 },
    Zstd(Encoder<'static>),
}

fn make_room(out: &mut Vec<u8>) {
    if out.capacity() - out.len() < ROOM {
        out.reserve(ROOM);
    }
}

impl Compressor {
    /// Starts at the end of `out`.
    pub(crate) fn start(compression: Compression, out: &mut Vec<u8>) -> io::Result<Self> {
        match compression {
            Compression::Gzip => {
                out.extend_from_slice(&GZIP_HEADER);
                let deflate = Box::new(Compress::new(flate2::Compression::new(GZIP_LEVEL), false));
                Ok(Self::Gzip { deflate, crc: Hasher::new(), length: 0 })
            }
            Compression::Zstd => {
                let mut encoder = Encoder::new(ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::ChecksumFlag(true))?;
                Ok(Self::Zstd(encoder))
            }
        }
    }

    /// Compresses `input`. Output may be held back until later input or the end.
    pub(crate) fn write(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Gzip { deflate, crc, length } => {
                crc.update(input);
                *length += u64::try_from(input.len()).unwrap_or(u64::MAX);
                while !input.is_empty() {
                    let before = deflate.total_in();
                    make_room(out);
                    deflate.compress_vec(input, out, FlushCompress::None)?;
                    // A call takes no more than it was given, so the difference fits.
                    input = &input[usize::try_from(deflate.total_in() - before).unwrap_or(input.len())..];
                }
            }
            Self::Zstd(encoder) => {
                let mut source = InBuffer::around(input);
                while source.pos() < input.len() {
                    make_room(out);
                    let end = out.len();
                    encoder.run(&mut source, &mut OutBuffer::around_pos(out, end))?;
                }
            }
        }
        Ok(())
    }

    /// Ends the member or the frame.
    pub(crate) fn finish(self, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Gzip { mut deflate, crc, length } => {
                loop {
                    make_room(out);
                    if deflate.compress_vec(&[], out, FlushCompress::Finish)? == Status::StreamEnd {
                        break;
                    }
                }
                out.extend_from_slice(&crc.finalize().to_le_bytes());
                // The length modulo 2^32, as the format wants it.
                out.extend_from_slice(&length.to_le_bytes()[..4]);
            }
            Self::Zstd(mut encoder) => loop {
                make_room(out);
                let end = out.len();
                // The answer is how much is still to be written, at least.
                if encoder.finish(&mut OutBuffer::around_pos(out, end), true)? == 0 {
                    break;
                }
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use tokio::io::AsyncReadExt;

    use super::*;

    fn compressed(compression: Compression, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut compressor = Compressor::start(compression, &mut out).unwrap();
        for chunk in input.chunks(70_001) {
            compressor.write(chunk, &mut out).unwrap();
        }
        compressor.finish(&mut out).unwrap();
        out
    }

    fn inputs() -> [Vec<u8>; 3] {
        let text = (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_string().into_bytes()).collect();
        [Vec::new(), b"x".to_vec(), text]
    }

    #[test]
    fn an_independent_reader_gets_the_input_back() {
        for input in inputs() {
            let mut back = Vec::new();
            // GzDecoder stops after the first member: all of it must be there.
            let gzip = compressed(Compression::Gzip, &input);
            flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut back).unwrap();
            assert!(back == input);
            // One frame as well, and nothing behind it.
            let frame = compressed(Compression::Zstd, &input);
            let mut reader = &frame[..];
            back.clear();
            zstd::stream::read::Decoder::with_buffer(&mut reader)
                .unwrap()
                .single_frame()
                .read_to_end(&mut back)
                .unwrap();
            assert!(back == input && reader.is_empty());
        }
    }

    #[tokio::test]
    async fn async_compression_reads_gzip_too() {
        let gzip = compressed(Compression::Gzip, b"one member");
        let mut back = String::new();
        async_compression::tokio::bufread::GzipDecoder::new(&gzip[..]).read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "one member");
    }
}
