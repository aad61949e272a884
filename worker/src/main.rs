//! The worker process. What it does is the library's.

use std::process::ExitCode;

/// Part buffers are reused, but Parquet's pages and the driver's buffers come and go: with glibc's allocator an
/// export's peak was a fifth higher, and it stayed up after the export. `.cargo/config.toml` has its settings.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    polyglot_worker::main()
}
