//! Folder and user of a private PostgreSQL cluster. The server itself is in `postgres`.
//!
//! PostgreSQL refuses to run as root, so root runs it as the user `postgres`, which must be able to reach the folder. It
//! cannot reach a clone under `/root`; then the cluster is in a folder of its own under `/var/lib` or `/var/tmp`, and
//! `DATA_DIR/postgres` is a link to it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

use crate::console::print_line;
use crate::error::{Error, Result};

/// File in a cluster's folder outside of the data folder, which names the data folder that it belongs to.
const BELONGS_TO: &str = "belongs-to";

/// The folder of a cluster and the user that runs it.
#[derive(Debug)]
pub(crate) struct ClusterFolder {
    pub path: PathBuf,
    /// User and group to change to; `None` for the current user.
    pub run_as: Option<(u32, u32)>,
}

/// The folder for `data_dir`: the one of the last run, or a new one.
pub(crate) fn find_or_create(data_dir: &Path) -> Result<ClusterFolder> {
    let link = data_dir.join("postgres");
    if let Some(folder) = existing(data_dir, &link)? {
        let run_as = user_for(&folder)?;
        return Ok(ClusterFolder { path: folder, run_as });
    }
    if !geteuid().is_root() {
        create_folder(&link, None)?;
        return Ok(ClusterFolder { path: link, run_as: None });
    }
    let user = user_postgres()?;
    if reaches(user, data_dir) {
        create_folder(&link, Some(user))?;
        return Ok(ClusterFolder { path: link, run_as: Some(user) });
    }
    let folder = create_elsewhere(data_dir, user)?;
    symlink(&folder, &link).map_err(Error::path("link", &link))?;
    print_line(format!(
        "PostgreSQL runs as the user postgres, which cannot reach {}: its files are in {}",
        data_dir.display(),
        folder.display()
    ));
    Ok(ClusterFolder { path: folder, run_as: Some(user) })
}

/// Removes the cluster of `data_dir` that is outside of it. The caller has stopped the server.
pub(crate) fn remove(data_dir: &Path) -> Result<()> {
    let link = data_dir.join("postgres");
    match existing(data_dir, &link)? {
        Some(folder) => fs::remove_dir_all(&folder).map_err(Error::path("remove", &folder)),
        None => Ok(()),
    }
}

/// The folder of an earlier run, if there is one and it belongs to this data folder.
fn existing(data_dir: &Path, link: &Path) -> Result<Option<PathBuf>> {
    let target = match fs::read_link(link) {
        Ok(target) => target,
        Err(_) if link.is_dir() => return Ok(Some(link.to_owned())),
        Err(_) => return Ok(None),
    };
    // The link of a data folder that was copied leads to the files of the original.
    let ours = fs::read_to_string(target.join(BELONGS_TO)).is_ok_and(|text| Path::new(&text) == data_dir);
    if ours {
        return Ok(Some(target));
    }
    fs::remove_file(link).map_err(Error::path("remove the stale link", link))?;
    Ok(None)
}

fn create_elsewhere(data_dir: &Path, user: (u32, u32)) -> Result<PathBuf> {
    let name = format!("polyglot-devstack-{:016x}", fingerprint(data_dir));
    let mut failure = None;
    for parent in ["/var/lib", "/var/tmp"] {
        let folder = Path::new(parent).join(&name);
        if folder.exists() && fs::read_to_string(folder.join(BELONGS_TO)).is_ok_and(|text| Path::new(&text) == data_dir)
        {
            // The data folder was removed by hand, and with it the password of the old cluster.
            fs::remove_dir_all(&folder).map_err(Error::path("remove", &folder))?;
        }
        let created = create_folder(&folder, Some(user)).and_then(|()| {
            let file = folder.join(BELONGS_TO);
            fs::write(&file, data_dir.as_os_str().as_encoded_bytes()).map_err(Error::path("write", &file))
        });
        match created {
            Ok(()) if reaches(user, &folder) => return Ok(folder),
            Ok(()) => {
                failure = Some(Error::Refused(format!("the user postgres cannot reach {}", folder.display())));
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| Error::Refused("no folder for PostgreSQL's files".into())))
}

fn create_folder(folder: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    DirBuilder::new().mode(0o700).create(folder).map_err(Error::path("create", folder))?;
    match owner {
        Some((uid, gid)) => chown(folder, Some(uid), Some(gid)).map_err(Error::path("change the owner of", folder)),
        None => Ok(()),
    }
}

/// The user that runs an existing cluster is its owner, to which only root can change.
fn user_for(folder: &Path) -> Result<Option<(u32, u32)>> {
    let metadata = fs::metadata(folder).map_err(Error::path("read the owner of", folder))?;
    let own = geteuid();
    if metadata.uid() == own.as_raw() {
        if own.is_root() {
            return Err(Error::Refused(format!(
                "{} belongs to root, and PostgreSQL refuses to run as root: remove it",
                folder.display()
            )));
        }
        return Ok(None);
    }
    if own.is_root() {
        return Ok(Some((metadata.uid(), metadata.gid())));
    }
    Err(Error::Refused(format!(
        "{} belongs to another user (it was created by `sudo make run`?): use another DATA_DIR or remove it",
        folder.display()
    )))
}

fn user_postgres() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").map_err(Error::io("read /etc/passwd"))?;
    users
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            Some((*fields.first()?, fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
        })
        .find_map(|(name, uid, gid)| (name == "postgres").then_some((uid, gid)))
        .ok_or_else(|| Error::Missing {
            what: "the user postgres".into(),
            advice: "PostgreSQL refuses to run as root; install the package postgresql, which makes that user, or run as an ordinary user".into(),
        })
}

/// Whether `user` can traverse `folder` and everything above it.
pub(crate) fn reaches(user: (u32, u32), folder: &Path) -> bool {
    let probe = || -> io::Result<bool> {
        let status = Command::new("setpriv")
            .args([format!("--reuid={}", user.0), format!("--regid={}", user.1)])
            .args(["--clear-groups", "--", "test", "-x"])
            .arg(folder)
            .status()?;
        Ok(status.success())
    };
    probe().unwrap_or(false)
}

/// FNV-1a: the same for the same path in every version of this program, which the standard library's hasher is not.
fn fingerprint(path: &Path) -> u64 {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_never_changes() {
        // The published test vector of FNV-1a, and a path.
        assert_eq!(fingerprint(Path::new("a")), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fingerprint(Path::new("/root/main/.data")), 11_196_378_205_232_090_479);
    }
}
