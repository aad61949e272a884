//! Measurements: our code and the library that could replace it, on the same input in turns; the ledger by itself; and
//! a proxy for measurements of whole exports. `make bench` runs them; bench/README.md has the figures.

mod by_library;
mod encoders;
mod gzip;
mod ledger;
mod sample;
mod throttle;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use polyglot_core::failure::chain;

/// The worker's allocator, so that the measurements match the worker.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const USAGE: &str = "\
polyglot-bench                        encoders and gzip, ours and the libraries'
polyglot-bench ledger URL SHARDS      the ledger, in a database without one
polyglot-bench ledger URL SHARDS held the same, with a snapshot open in that database
polyglot-bench throttle LISTEN TARGET BYTES_PER_SECOND
                                      a proxy with that rate towards the client on each connection; prints its address
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("threads can be started");
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {
            encoders::compare();
            gzip::compare();
            Ok(())
        }
        ["ledger", url, shards, held @ ..] => match shards.parse() {
            Ok(shards) => runtime.block_on(ledger::measure(url, shards, held == ["held"])),
            Err(error) => Err(format!("{shards}: {error}").into()),
        },
        ["throttle", listen, target, rate] => match rate.parse() {
            Ok(rate) => runtime.block_on(throttle::run(listen, target, rate)).map_err(Into::into),
            Err(error) => Err(format!("{rate}: {error}").into()),
        },
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("polyglot-bench: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Returns the median time of each run. They run in turns, so that a busy moment of the machine affects all of them.
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
