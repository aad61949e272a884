//! Runs a command under a memory limit of the kernel (a version 1 cgroup) and measures its memory. For tests, as root.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};

const ROOT: &str = "/sys/fs/cgroup/memory";

/// A cgroup with a limit on memory and on memory plus swap. Dropping it removes it, which needs its processes to have ended.
#[derive(Debug)]
pub struct MemoryLimit {
    folder: PathBuf,
}

impl MemoryLimit {
    /// Creates a group whose processes together may use `bytes`, swap included, before the kernel kills one of them.
    ///
    /// An error says what is missing: root, a version 1 memory controller, or a writable folder.
    pub fn new(bytes: u64) -> Result<Self> {
        let folder = Path::new(ROOT).join(format!("polyglot-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&folder).map_err(Error::io(format!(
            "make a memory limit: it takes root and a writable version 1 memory controller at {ROOT}; make {}",
            folder.display()
        )))?;
        let group = Self { folder };
        group.write("memory.limit_in_bytes", &bytes.to_string())?;
        // Missing where the kernel does not account for swap. Without swap it makes no difference.
        if group.folder.join("memory.memsw.limit_in_bytes").exists() {
            group.write("memory.memsw.limit_in_bytes", &bytes.to_string())?;
        }
        Ok(group)
    }

    /// A command that joins the group and then becomes `program`, so that all of its memory is counted. Arguments,
    /// environment and streams are set on the result as usual; its process id is that of the program.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.folder.join("cgroup.procs")).arg(program);
        command
    }

    /// Number of processes of the group that the kernel has killed for lack of memory.
    pub fn oom_kills(&self) -> Result<u64> {
        let text = self.read("memory.oom_control")?;
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
            .ok_or_else(|| Error::Refused(format!("memory.oom_control names no oom_kill: {text:?}")))
    }

    /// The peak of the memory that is charged to the group. It includes cached file pages, so it may reach the limit without
    /// harm; [`PeakMemory`] measures a process.
    pub fn peak_with_page_cache(&self) -> Result<u64> {
        let text = self.read("memory.max_usage_in_bytes")?;
        text.trim().parse().map_err(|_| Error::Refused(format!("memory.max_usage_in_bytes holds {text:?}")))
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, value).map_err(Error::path("write", &path))
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.folder.join(file);
        fs::read_to_string(&path).map_err(Error::path("read", &path))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // The kernel removes a process that has just ended after a moment. One that still runs keeps the group.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            pause(Duration::from_millis(20));
        }
        eprintln!("could not remove {}: a process is still in it", self.folder.display());
    }
}

#[expect(clippy::disallowed_methods, reason = "called on a thread of its own, or while a test ends")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The peak resident memory of a process so far, in bytes (`VmHWM`); `None` when it has ended.
pub fn peak_resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Samples a process's peak memory until it ends: afterwards the kernel no longer has it.
#[derive(Debug)]
pub struct PeakMemory {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PeakMemory {
    /// Samples every 10 ms. A peak between the last sample and the end of the process is missed.
    pub fn watch(pid: u32) -> Self {
        let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (Arc::clone(&peak), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let Some(bytes) = peak_resident(pid) else { return };
                seen.fetch_max(bytes, Ordering::Relaxed);
                pause(Duration::from_millis(10));
            }
        });
        Self { peak, stop, thread: Some(thread) }
    }

    /// The peak so far, in bytes.
    pub fn bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for PeakMemory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_process_has_a_peak() {
        let own = peak_resident(std::process::id()).unwrap();
        assert!(own > 100_000, "{own}");
        assert_eq!(peak_resident(u32::MAX - 1), None);
    }

    /// Where no limit can be created, the error has to say what is missing.
    #[test]
    fn a_process_over_the_limit_is_killed_and_a_small_one_is_not() {
        let group = match MemoryLimit::new(32 * 1024 * 1024) {
            Ok(group) => group,
            Err(error) => {
                assert!(error.to_string().contains("it takes root"), "{error}");
                return;
            }
        };
        let small = group.command("true").status().unwrap();
        assert!(small.success());
        assert_eq!(group.oom_kills().unwrap(), 0);
        // tail keeps the one endless line in memory.
        let large = group.command("sh").args(["-c", "exec tail -n 1 /dev/zero"]).status().unwrap();
        assert_eq!(large.signal(), Some(9), "{large:?}");
        assert_eq!(group.oom_kills().unwrap(), 1);
        assert!(group.peak_with_page_cache().unwrap() > 16 * 1024 * 1024);
    }
}
