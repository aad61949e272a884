//! The peak memory of this process, as Linux measures it.

use std::fs;

/// Returns the peak resident set (`VmHWM`) in bytes since the start, or since the last [`reset_peak`].
pub(crate) fn peak_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok()?.checked_mul(1024)
}

/// Resets the peak to what is resident now (`proc(5)`, `clear_refs`). If the kernel refuses, the peak since the start
/// of the process remains, which is never too low.
pub(crate) fn reset_peak() {
    if let Err(error) = fs::write("/proc/self/clear_refs", "5") {
        tracing::debug!(%error, "the memory peak cannot be reset, it is counted from the start of the process");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_follows_what_is_used() {
        reset_peak();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        // Tests run in parallel, so other memory comes and goes.
        assert!(peak_bytes().unwrap() >= 64 << 20);
        drop(block);
    }
}
