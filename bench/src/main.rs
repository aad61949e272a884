//! Side-by-side measurements of what is ours where a library could stand: each pair on the same input, taking turns.
//! `make bench` runs them; bench/README.md keeps the figures.

mod encoders;
mod gzip;

use std::time::{Duration, Instant};

/// The worker's allocator, so that what is measured is what runs.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    encoders::compare();
    gzip::compare();
}

/// The median time of each, run in turns, so that a busy moment of the machine hits all of them.
fn interleaved<const N: usize>(rounds: usize, mut runs: [&mut dyn FnMut(); N]) -> [Duration; N] {
    let mut times: [Vec<Duration>; N] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for _ in 0..rounds {
        for (run, times) in runs.iter_mut().zip(&mut times) {
            let start = Instant::now();
            run();
            times.push(start.elapsed());
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    })
}
