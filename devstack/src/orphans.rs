//! Orphans: processes that outlived the devstack that started them. They are found by a variable in their environment, asked
//! to stop, and killed.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::launch::{OWNER_VARIABLE, pid_of};

/// Stops every process that was started for the data folder `owner`, except this one, and waits for their end.
///
/// Each gets SIGTERM (PostgreSQL SIGINT, its "fast" shutdown), and SIGKILL after `grace`. Only processes whose environment
/// this user may read are found; those of another user were not started by us. Returns the number of processes.
///
/// The caller holds the lock on the data folder, so no other devstack uses what is found.
pub async fn stop(owner: &Path, grace: Duration) -> usize {
    let first = processes_of(owner);
    for &pid in &first {
        let signal = if is_postgres(pid) { Signal::INT } else { Signal::TERM };
        send(pid, signal);
    }
    let asked = Instant::now();
    while asked.elapsed() < grace && !processes_of(owner).is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    kill(owner).await;
    first.len()
}

/// Kills every process that was started for the data folder `owner`, except this one, and waits for their end.
pub async fn kill(owner: &Path) {
    let started = Instant::now();
    loop {
        let left = processes_of(owner);
        if left.is_empty() || started.elapsed() > Duration::from_secs(10) {
            return;
        }
        for pid in left {
            send(pid, Signal::KILL);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The processes whose environment names `owner`.
fn processes_of(owner: &Path) -> Vec<u32> {
    let mut wanted = format!("{OWNER_VARIABLE}=").into_bytes();
    wanted.extend_from_slice(owner.as_os_str().as_bytes());
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|&pid| pid != own)
        // A process that ended and was not waited for has an empty environment, so it does not count.
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|variable| variable == wanted))
        })
        .collect()
}

fn is_postgres(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
}

pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = pid_of(pid) {
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::Launch;
    use crate::scratch_dir::ScratchDir;
    use crate::wait::wait_until;

    #[tokio::test]
    async fn only_processes_of_the_folder_are_stopped() {
        let (ours, other) = (ScratchDir::new("ours").unwrap(), ScratchDir::new("other").unwrap());
        let sleeper = |dir: &ScratchDir| {
            Launch::new("sleep", "sleep", dir.path(), &dir.path().join("log")).arg("60").spawn().unwrap()
        };
        let (mut first, mut second) = (sleeper(&ours), sleeper(&other));
        // The process has this program's environment until it executes its own.
        for dir in [&ours, &other] {
            wait_until("the process runs", async || processes_of(dir.path()).len() == 1).await;
        }
        assert_eq!(stop(ours.path(), Duration::from_secs(5)).await, 1);
        assert!(!first.wait().await.unwrap().success());
        assert!(second.ended().unwrap().is_none());
        second.kill().await;
    }
}
