//! Passwords and keys of the private servers: generated once and kept in the data folder. External servers have their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::stack_env;

/// The secrets of one data folder.
#[derive(Debug)]
pub struct Secrets {
    file: PathBuf,
    known: BTreeMap<String, String>,
}

impl Secrets {
    /// Opens the file. A file that cannot be read is an error: the servers would refuse new secrets.
    pub fn open(file: &Path) -> Result<Self> {
        let known = if file.exists() { stack_env::read(file)? } else { BTreeMap::new() };
        Ok(Self { file: file.to_owned(), known })
    }

    /// The secret called `name`: 32 hexadecimal digits (122 random bits), the same in every run.
    pub fn get(&mut self, name: &str) -> Result<String> {
        if let Some(secret) = self.known.get(name) {
            return Ok(secret.clone());
        }
        let secret = random();
        self.known.insert(name.to_owned(), secret.clone());
        stack_env::write(&self.file, self.known.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
        Ok(secret)
    }
}

/// A new secret of 32 hexadecimal digits.
pub fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch_dir::ScratchDir;

    #[test]
    fn a_secret_stays() {
        let dir = ScratchDir::new("secrets").unwrap();
        let file = dir.path().join("secrets.env");
        let first = Secrets::open(&file).unwrap().get("A").unwrap();
        let mut again = Secrets::open(&file).unwrap();
        assert_eq!(again.get("A").unwrap(), first);
        assert_ne!(again.get("B").unwrap(), first);
    }
}
