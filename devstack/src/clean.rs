//! `devstack clean`: removes from the data folder what `devstack run` keeps there, and nothing else.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::console::print_line;
use crate::data_lock::DataLock;
use crate::error::{Error, Result};
use crate::orphans;
use crate::postgres_folder;

const FOLDERS: [&str; 5] = ["postgres", "rabbitmq", "s3", "logs", "pids"];
const FILES: [&str; 6] =
    ["stack.env", "secrets.env", "ports.env", "sample-export.csv", "sample-export.csv.unfinished", "devstack.lock"];

/// Removes the data. An error while a devstack runs on the folder.
pub async fn clean(data_dir: &Path) -> Result<()> {
    let Ok(data_dir) = data_dir.canonicalize() else {
        print_line(format!("{} does not exist: nothing to remove", data_dir.display()));
        return Ok(());
    };
    let lock = DataLock::take(&data_dir)?;
    orphans::stop(&data_dir, Duration::from_secs(10)).await;
    postgres_folder::remove(&data_dir)?;
    for name in FOLDERS.iter().chain(&FILES) {
        let path = data_dir.join(name);
        let removed = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        removed.map_err(Error::path("remove", &path))?;
    }
    drop(lock);
    // The folder stays when it has other files.
    let removed = fs::remove_dir(&data_dir).is_ok();
    print_line(format!("removed {}{}", if removed { "" } else { "the devstack's data in " }, data_dir.display()));
    Ok(())
}
