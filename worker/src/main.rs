//! The worker process. The library crate does all of its work.

use std::process::ExitCode;

/// jemalloc. Part buffers are reused, but Parquet's pages and the driver's buffers are not: with glibc's allocator an
/// export's peak memory was a fifth higher, and was not released after the export. `.cargo/config.toml` has the
/// settings.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    polyglot_worker::main()
}
