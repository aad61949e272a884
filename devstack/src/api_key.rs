//! The API key of the trial: made at the first start, kept in `stack.env`, and made anew when the ledger does not know it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::stack_env;

/// The variable of `stack.env` that has the key.
pub const VARIABLE: &str = "API_KEY";

/// What the key may do: everything, because its owner owns the machine.
const SCOPES: &str = "exports:create,exports:read,exports:delete,datasets:read,metrics,admin";

const TIME_LIMIT: Duration = Duration::from_secs(30);

/// A key that the ledger knows.
#[derive(Debug, Clone)]
pub struct TrialKey {
    pub key: String,
    /// It was made now.
    pub is_new: bool,
}

impl TrialKey {
    /// The key in `DATA_DIR/stack.env`, whether or not the ledger knows it.
    pub fn kept(data_dir: &Path) -> Option<String> {
        let mut values = stack_env::read(&data_dir.join("stack.env")).ok()?;
        values.remove(VARIABLE).filter(|key| !key.is_empty())
    }

    /// The key in `DATA_DIR/stack.env` if it is one of the ledger at `database_url`, else a new one. `api` is the program of the
    /// api, which knows how keys are stored.
    pub async fn ensure(api: &Path, database_url: &str, data_dir: &Path) -> Result<Self> {
        if let Some(key) = Self::kept(data_dir) {
            let keys = run(api, database_url, &["keys", "list"]).await?;
            if is_listed(&key, &keys) {
                return Ok(Self { key, is_new: false });
            }
        }
        let create = ["keys", "create", "--name", "trial", "--scopes", SCOPES];
        let key = run(api, database_url, &create).await?.trim().to_owned();
        Ok(Self { key, is_new: true })
    }
}

/// Whether a key is among the valid ones of `polyglot-api keys list`.
fn is_listed(key: &str, listed: &str) -> bool {
    let Some(id) = key.split('_').nth(1) else { return false };
    listed
        .lines()
        .filter(|line| !line.contains("  revoked ") && !line.contains("  expired "))
        .any(|line| line.split_whitespace().next().is_some_and(|listed| listed.replace('-', "") == id))
}

/// Runs the api's program and returns its standard output.
async fn run(api: &Path, database_url: &str, arguments: &[&str]) -> Result<String> {
    let program = format!("{} {}", api.display(), arguments[..2].join(" "));
    let child = Command::new(api)
        .args(arguments)
        // Not as an argument, which every user of the machine could read.
        .env("DATABASE_URL", database_url)
        .env_remove("DATABASE_URL_FILE")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(TIME_LIMIT, child)
        .await
        .map_err(|_| Error::Refused(format!("{program} did not end within {} s", TIME_LIMIT.as_secs())))?
        .map_err(Error::io("run the api's program"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Refused(format!("{program} failed: {}", said.trim())));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| Error::Refused(format!("{program} printed something that is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_the_list_unless_it_is_not_valid_any_more() {
        let listed = "0198c0de-0000-4000-8000-000000000001  \"trial\"  tenant default  scopes admin  made 2026-01-01T00:00:00Z  valid\n\
                      0198c0de-0000-4000-8000-000000000002  \"b\"  tenant a  scopes admin  made 2026-01-01T00:00:00Z  revoked 2026-01-02T00:00:00Z\n";
        assert!(is_listed("polyglot_0198c0de000040008000000000000001_abc", listed));
        assert!(!is_listed("polyglot_0198c0de000040008000000000000002_abc", listed));
        assert!(!is_listed("polyglot_0198c0de000040008000000000000003_abc", listed));
        assert!(!is_listed("nonsense", listed) && !is_listed("", listed));
    }
}
