//! The optional third stage: gzip as one member, or zstd as one frame.
//!
//! gzip's header and trailer are written here around a raw deflate run. That keeps the run, its length and its CRC
//! apart, which is what lets several runs share one member. `flate2` is driven directly, not through
//! `async-compression`: compression is CPU work and belongs on the encoding thread, and this way the output lands in
//! the part's buffer without a copy. bench/README.md has the comparison.

use std::io;

use crc32fast::Hasher;
use flate2::{Compress, FlushCompress, Status};
use polyglot_core::compression::Compression;
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

/// RFC 1952: magic, deflate, no flags, no time (so that the same rows give the same bytes), no extra flags, and
/// "unknown" as the operating system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// RFC 1951: the last block, with fixed codes and nothing but its end.
const EMPTY_LAST_BLOCK: [u8; 2] = [0x03, 0x00];

/// What the field's tools take where nothing is said.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// Free room that is made before a compressor is asked to fill it.
const ROOM: usize = 32 * 1024;

/// A compressed stream that was begun.
pub enum Compressor {
    Gzip { deflate: Box<Compress>, crc: Hasher, length: u64 },
    Zstd(Encoder<'static>),
}

fn make_room(out: &mut Vec<u8>) {
    if out.capacity() - out.len() < ROOM {
        out.reserve(ROOM);
    }
}

fn write_trailer(crc32: u32, length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&crc32.to_le_bytes());
    // The length modulo 2^32, as the format wants it.
    out.extend_from_slice(&length.to_le_bytes()[..4]);
}

/// What ends a member of suspended runs: an empty last block, and the trailer for all of them together.
pub fn gzip_trailer(crc32: u32, length: u64) -> Vec<u8> {
    let mut out = EMPTY_LAST_BLOCK.to_vec();
    write_trailer(crc32, length, &mut out);
    out
}

impl Compressor {
    /// A run of gzip's: what goes between header and trailer, or a part of it.
    pub fn continue_gzip() -> Self {
        let deflate = Box::new(Compress::new(flate2::Compression::new(GZIP_LEVEL), false));
        Self::Gzip { deflate, crc: Hasher::new(), length: 0 }
    }

    /// Starts at the end of `out`.
    pub fn start(compression: Compression, out: &mut Vec<u8>) -> io::Result<Self> {
        match compression {
            Compression::Gzip => {
                out.extend_from_slice(&GZIP_HEADER);
                Ok(Self::continue_gzip())
            }
            Compression::Zstd => {
                let mut encoder = Encoder::new(ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::ChecksumFlag(true))?;
                Ok(Self::Zstd(encoder))
            }
        }
    }

    /// Compresses `input`. Output may be held back until later input or the end.
    pub fn write(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
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

    /// Ends the run where a byte ends, so that another one can follow, and tells the CRC-32 of what went into it. zstd has
    /// no such end.
    pub fn finish_shard(self, out: &mut Vec<u8>) -> io::Result<u32> {
        let Self::Gzip { mut deflate, crc, .. } = self else { return Err(io::ErrorKind::Unsupported.into()) };
        loop {
            make_room(out);
            deflate.compress_vec(&[], out, FlushCompress::Sync)?;
            // Room that is left says that everything is out; asked again, it would write another marker.
            if out.len() < out.capacity() {
                return Ok(crc.finalize());
            }
        }
    }

    /// Ends the member or the frame.
    pub fn finish(self, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Gzip { mut deflate, crc, length } => {
                loop {
                    make_room(out);
                    if deflate.compress_vec(&[], out, FlushCompress::Finish)? == Status::StreamEnd {
                        break;
                    }
                }
                write_trailer(crc.finalize(), length, out);
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

    #[test]
    fn runs_that_were_written_apart_are_one_member() {
        let [_, _, text] = inputs();
        let mut file = GZIP_HEADER.to_vec();
        let mut whole = Hasher::new();
        // Among them one of nothing, and one that does not fit into the room that is made at once.
        for run in [&text[..], b"", b"x", &text[..text.len() / 3]] {
            let mut compressor = Compressor::continue_gzip();
            compressor.write(run, &mut file).unwrap();
            let crc32 = compressor.finish_shard(&mut file).unwrap();
            whole.combine(&Hasher::new_with_initial_len(crc32, run.len() as u64));
        }
        let expected = [&text[..], b"x", &text[..text.len() / 3]].concat();
        file.extend(gzip_trailer(whole.finalize(), expected.len() as u64));
        let (mut back, mut reader) = (Vec::new(), flate2::bufread::GzDecoder::new(&file[..]));
        reader.read_to_end(&mut back).unwrap();
        assert!(back == expected && reader.into_inner().is_empty());
    }

    #[tokio::test]
    async fn async_compression_reads_gzip_too() {
        let gzip = compressed(Compression::Gzip, b"one member");
        let mut back = String::new();
        async_compression::tokio::bufread::GzipDecoder::new(&gzip[..]).read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "one member");
    }
}
