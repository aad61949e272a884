//! The comparison of two ways to gzip the same text: the deflater driven directly, as the worker does, and the encoder
//! of `async-compression` between an async reader and a buffer.

use std::fmt::Write as _;

use flate2::{Compress, Compression, FlushCompress, Status};
use tokio::io::{AsyncReadExt, BufReader};

use crate::interleaved;

const ROUNDS: usize = 5;
const TEXT_BYTES: usize = 64 << 20;

/// Returns text like that of an export: numbers, times, names, JSON.
fn text() -> Vec<u8> {
    let mut text = String::with_capacity(TEXT_BYTES + 512);
    let mut number: u64 = 1;
    while text.len() < TEXT_BYTES {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (a, b) = (number >> 33, number >> 48);
        writeln!(
            text,
            "{},2024-{:02}-{:02}T{:02}:11:42.{:06}Z,Eva Bauer {b},{}.{:04},\"{{\"\"city\"\": \"\"Oslo\"\", \"\"zip\"\": \"\"{}\"\", \"\"tags\"\": [\"\"new\"\", \"\"sale\"\"]}}\"",
            text.len(), 1 + a % 12, 1 + a % 28, a % 24, a % 1_000_000, a % 100_000, b % 10_000, 10_000 + b,
        )
        .expect("writing to a String cannot fail");
    }
    text.into_bytes()
}

fn direct(text: &[u8]) -> usize {
    let mut deflate = Compress::new(Compression::new(6), false);
    let mut crc = crc32fast::Hasher::new();
    let mut out = Vec::with_capacity(8 << 20);
    let mut total = 18;
    for chunk in text.chunks(64 << 10) {
        crc.update(chunk);
        let mut rest = chunk;
        while !rest.is_empty() {
            out.reserve(32 << 10);
            let before = deflate.total_in();
            deflate.compress_vec(rest, &mut out, FlushCompress::None).expect("deflate");
            rest = &rest[usize::try_from(deflate.total_in() - before).expect("less than the chunk")..];
        }
        if out.len() >= 8 << 20 {
            total += out.len();
            out.clear();
        }
    }
    loop {
        out.reserve(32 << 10);
        if deflate.compress_vec(&[], &mut out, FlushCompress::Finish).expect("deflate") == Status::StreamEnd {
            break;
        }
    }
    std::hint::black_box(crc.finalize());
    total + out.len()
}

async fn through_async_compression(text: &[u8]) -> usize {
    let reader = BufReader::with_capacity(64 << 10, text);
    let level = async_compression::Level::Precise(6);
    let mut encoder = async_compression::tokio::bufread::GzipEncoder::with_quality(reader, level);
    let mut out = Vec::with_capacity(8 << 20);
    let mut total = 0;
    loop {
        out.reserve(32 << 10);
        if encoder.read_buf(&mut out).await.expect("reading memory") == 0 {
            return total + out.len();
        }
        if out.len() >= 8 << 20 {
            total += out.len();
            out.clear();
        }
    }
}

/// Runs both and prints the figures.
pub(crate) fn compare() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    let text = text();
    let mut sizes = (0, 0);
    let [ours, theirs] = interleaved(
        ROUNDS,
        [&mut || sizes.0 = direct(&text), &mut || sizes.1 = runtime.block_on(through_async_compression(&text))],
    );
    println!("gzip of {} MiB of text, level 6, median of {ROUNDS}, interleaved", TEXT_BYTES >> 20);
    println!("  deflater driven directly  {:6.2} s  {} bytes", ours.as_secs_f64(), sizes.0);
    println!("  async-compression         {:6.2} s  {} bytes", theirs.as_secs_f64(), sizes.1);
    println!("  ratio                     {:6.2}", theirs.as_secs_f64() / ours.as_secs_f64());
}
