//! A throw-away folder that is removed with its value. Its user stops servers in it first.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Extension of a folder that is being removed.
pub(crate) const GARBAGE: &str = "removed";

/// Starts a process that removes a folder with low priority.
pub(crate) fn remove_garbage(folder: &Path) {
    let removing = Command::new("setsid")
        .args(["nice", "-n", "19", "rm", "-rf", "--"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = removing {
        eprintln!("{} is left, its removal could not be started: {error}", folder.display());
    }
}

/// A new folder in the system's temporary folder, removed when dropped.
#[derive(Debug)]
pub struct ScratchDir {
    path: PathBuf,
}

impl ScratchDir {
    /// Creates `polyglot-PURPOSE-…`. Other users may traverse it (a server may run as one) but not list it.
    pub fn new(purpose: &str) -> Result<Self> {
        let name = format!("polyglot-{purpose}-{}", uuid::Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o711).create(&path).map_err(Error::path("create", &path))?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder in the background, by a process that goes on after this one has ended: the databases of all tests
    /// together take minutes. Every process that used the folder has ended.
    pub(crate) fn remove_later(self) {
        // Under another name it is known to be garbage, even if the removal is interrupted.
        let garbage = self.path.with_extension(GARBAGE);
        if fs::rename(&self.path, &garbage).is_ok() {
            remove_garbage(&garbage);
        }
    }
}

impl Drop for ScratchDir {
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing can be awaited in a drop, and the pauses are short and rare"
    )]
    fn drop(&mut self) {
        // A server that has just been killed may still add a file.
        for _ in 0..20 {
            match fs::remove_dir_all(&self.path) {
                Ok(()) => return,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
            }
        }
        eprintln!("could not remove {}", self.path.display());
    }
}
