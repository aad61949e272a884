//! The lock that allows one devstack in a data folder. It is a file lock, so it ends with the process that holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Held while a devstack works in its data folder.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the lock on `data_dir`; an error names the process that holds it.
    pub fn take(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join("devstack.lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(Error::path("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder =
                    if holder.trim().is_empty() { String::new() } else { format!(" (process {})", holder.trim()) };
                return Err(Error::Refused(format!(
                    "a devstack is already running on {}{holder}: stop that one first, or give this one its own DATA_DIR and PORT",
                    data_dir.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(Error::path("lock", &path)(error)),
        }
        // For the message above only.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch_dir::ScratchDir;

    #[test]
    fn a_second_devstack_is_refused_until_the_first_has_ended() {
        let dir = ScratchDir::new("lock").unwrap();
        let first = DataLock::take(dir.path()).unwrap();
        let message = DataLock::take(dir.path()).unwrap_err().to_string();
        assert!(message.contains("already running") && message.contains(&std::process::id().to_string()), "{message}");
        drop(first);
        DataLock::take(dir.path()).unwrap();
    }
}
