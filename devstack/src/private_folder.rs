//! Folders that only their owner may enter: files of exports, logs, the broker's messages.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, Result};

const MODE: u32 = 0o700;

/// Creates the folder with its parents if it is not there, and takes the rights of others away if it is.
pub fn create(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(MODE)))
        .map_err(Error::path("create", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch_dir::ScratchDir;

    #[test]
    fn others_may_not_enter_a_folder_even_if_an_earlier_version_let_them() {
        let dir = ScratchDir::new("private-folder").unwrap();
        let path = dir.path().join("logs");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        create(&path).unwrap();
        create(&dir.path().join("s3")).unwrap();
        for name in ["logs", "s3"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{name}");
        }
    }
}
