//! Small `KEY=VALUE` files that only their owner may read: the stack's addresses, its secrets, its ports.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, Result};

/// Writes the pairs in their order, a pair a line, unquoted (the form that `docker --env-file` reads too).
///
/// The file has mode 0600 and is replaced in one step, so a reader sees the old one or the new one. A line break in a key
/// or value is an error: the file could not be read back.
pub fn write<'a>(path: &Path, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<()> {
    let mut text = String::new();
    for (key, value) in pairs {
        if key.is_empty() || key.contains(['=', '\n', '\r']) || value.contains(['\n', '\r']) {
            return Err(Error::Refused(format!(
                "{key:?} cannot be written to {}: it contains a line break",
                path.display()
            )));
        }
        text.push_str(&format!("{key}={value}\n"));
    }
    let temporary = path.with_extension("unfinished");
    let save = || -> io::Result<()> {
        if let Err(error) = fs::remove_file(&temporary)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    save().map_err(Error::path("write", path))
}

/// Reads a file of [`write`]. Empty lines and lines that begin with `#` are skipped.
pub fn read(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).map_err(Error::path("read", path))?;
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| match line.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Error::Refused(format!("{}: a line without '=': {line:?}", path.display()))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::scratch_dir::ScratchDir;

    #[test]
    fn what_is_written_is_read_and_only_by_its_owner() {
        let dir = ScratchDir::new("stack-env").unwrap();
        let path = dir.path().join("stack.env");
        let url = "postgres://u:p@127.0.0.1:1/db?sslmode=disable&x='y z'";
        write(&path, [("DATABASE_URL", "first")]).unwrap();
        write(&path, [("DATABASE_URL", url), ("EMPTY", "")]).unwrap();
        let back = read(&path).unwrap();
        assert_eq!(back["DATABASE_URL"], url);
        assert_eq!(back["EMPTY"], "");
        assert_eq!(back.len(), 2);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_line_break_is_refused() {
        let dir = ScratchDir::new("stack-env").unwrap();
        let error = write(&dir.path().join("x.env"), [("KEY", "a\nB=c")]).unwrap_err();
        assert!(error.to_string().contains("KEY"));
    }
}
