//! Metrics of the process from `/proc`, under the names that every Prometheus client uses. A value that Linux does not have is
//! left out.

use std::fs;

use super::sample_writer::SampleWriter;

/// Writes memory, processor time, start time, open files and the version.
pub(super) fn write(samples: &mut SampleWriter) {
    samples.write("polyglot_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    if let Some(bytes) = resident_bytes() {
        samples.write("process_resident_memory_bytes", &[], bytes);
    }
    if let Some(Times { cpu, started }) = times() {
        samples.write("process_start_time_seconds", &[], started);
        samples.write("process_cpu_seconds_total", &[], cpu);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // Reading the directory takes one of them.
        samples.count("process_open_fds", &[], open.count().saturating_sub(1));
    }
}

fn resident_bytes() -> Option<f64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: f64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * f64::from(u32::try_from(rustix::param::page_size()).ok()?))
}

/// Times in seconds.
struct Times {
    cpu: f64,
    /// Since 1970, UTC.
    started: f64,
}

fn times() -> Option<Times> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name is in parentheses and may hold anything; behind it is the third field of proc(5).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    let a_second = f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).ok()?);
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(Times { cpu: (ticks(14)? + ticks(15)?) / a_second, started: booted + ticks(22)? / a_second })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself() {
        assert!(resident_bytes().unwrap() > 100_000.0);
        let Times { cpu, started } = times().unwrap();
        let now = f64::from(u32::try_from(chrono::Utc::now().timestamp()).unwrap());
        assert!((0.0..1e6).contains(&cpu) && started > now - 86_400.0 && started < now + 5.0, "{cpu} {started} {now}");
        let mut samples = SampleWriter::default();
        write(&mut samples);
        let text = samples.into_text();
        for name in ["polyglot_build_info{", "process_open_fds ", "process_cpu_seconds_total "] {
            assert!(text.contains(&format!("\n{name}")), "{text}");
        }
    }
}
