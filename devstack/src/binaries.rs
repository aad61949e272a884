//! Paths of the api and the worker: next to this program, where cargo puts them and where an archive would have them.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The programs that `devstack run` keeps running.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub api: PathBuf,
    pub worker: PathBuf,
}

impl Binaries {
    /// Finds both; an error names the one that is not built.
    pub fn find() -> Result<Self> {
        let folder = binaries_folder()?;
        let program = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                return Ok(path);
            }
            Err(Error::Missing {
                what: path.display().to_string(),
                advice: "build it: cargo build --release --workspace --bins".into(),
            })
        };
        Ok(Self { api: program("polyglot-api")?, worker: program("polyglot-worker")? })
    }
}

/// The folder of this executable and of the other ones.
pub fn binaries_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(Error::io("find this program's own file"))?;
    own.parent().map(Path::to_owned).ok_or_else(|| Error::Refused(format!("{} is in no folder", own.display())))
}
