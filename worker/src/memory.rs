//! How much memory this process has used at its peak, as Linux counts it.

use std::fs;

/// The peak resident set (`VmHWM`) in bytes since the start, or since the last [`reset_peak`].
pub(crate) fn peak_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok()?.checked_mul(1024)
}

/// Starts the peak again from what is resident now (`proc(5)`, `clear_refs`). Where the kernel refuses, the peak
/// goes on from the start of the process, which is never too low.
pub(crate) fn reset_peak() {
    if let Err(error) = fs::write("/proc/self/clear_refs", "5") {
        tracing::debug!(%error, "the memory peak is counted from the start of the process");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_follows_what_is_used() {
        reset_peak();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        // Tests run side by side, so what else there is comes and goes.
        assert!(peak_bytes().unwrap() >= 64 << 20);
        drop(block);
    }
}
