//! Rows per second of one core, and what the allocator is asked for meanwhile: the decoder alone, and each encoder behind it,
//! from the bytes of a binary `COPY` to bytes that nobody keeps. `cargo bench --workspace --bench rows`.

#[path = "../src/sample.rs"]
mod sample;

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use polyglot_core::format_options::FormatOptions;
use polyglot_formats::Format;
use polyglot_formats::standalone::{decode, encode_to};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: AllocProfiler<Jemalloc> = AllocProfiler::new(Jemalloc);

fn main() {
    divan::main();
}

fn rows() -> ItemsCount {
    ItemsCount::new(usize::try_from(sample::ROWS).expect("a small number"))
}

#[divan::bench(sample_count = 20)]
fn decoder(bencher: Bencher<'_, '_>) {
    let (copy, columns) = (sample::copy(), sample::columns());
    bencher.counter(rows()).bench_local(|| {
        let mut bytes = 0;
        decode(&copy, &columns, |value| bytes += value).expect("the rows are good");
        black_box(bytes)
    });
}

#[divan::bench(sample_count = 20, args = Format::all())]
fn encoder(bencher: Bencher<'_, '_>, format: Format) {
    let (copy, columns) = (sample::copy(), sample::columns());
    bencher.counter(rows()).bench_local(|| {
        let mut length = 0;
        encode_to(&copy, &columns, format, &FormatOptions::default(), |bytes| length += black_box(bytes).len())
            .expect("the rows are good");
        length
    });
}
