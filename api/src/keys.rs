//! `polyglot-api keys`: making, listing, revoking and rotating API keys, in the ledger. A key is printed when it is made, and
//! never again.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use polyglot_core::scope::{Scope, Scopes};
use polyglot_core::tenant::{self, DEFAULT_TENANT};
use polyglot_ledger::{ApiKey, AuditAction, AuditEvent, AuditOrigin, Ledger, LedgerError, NewApiKey, with_timeout};
use uuid::Uuid;

use crate::identity::GeneratedKey;
use crate::problem::listed;
use crate::timestamp::timestamp;

/// Longest name of a key in bytes.
const MAX_NAME_BYTES: usize = 100;
const LONGEST_LIFETIME_DAYS: u64 = 3650;
const LONGEST_GRACE_HOURS: u64 = 24 * 365;

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key. It alone goes to standard output, once; what it may do goes to standard error.
    Create(Create),
    /// List the keys, without their secrets.
    List,
    /// Make a key useless, within five seconds.
    Revoke {
        /// The key's id, as `list` shows it.
        id: Uuid,
    },
    /// Make a key with the name, tenant, scopes and expiry of another, which expires after a while.
    Rotate {
        /// The id of the key to replace, as `list` shows it.
        id: Uuid,
        /// Hours for which the old key still works.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(0..=LONGEST_GRACE_HOURS))]
        grace_hours: u64,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    /// What the key is for, as lists and the log show it.
    #[arg(long, value_parser = read_name)]
    name: String,
    /// The tenant that the key's exports belong to. Keys of another tenant do not see them.
    #[arg(long, default_value = DEFAULT_TENANT, value_parser = read_tenant)]
    tenant: String,
    /// What the key may do, separated by commas: exports:create, exports:read, exports:delete, datasets:read, metrics, admin.
    #[arg(long, value_delimiter = ',', value_parser = read_scope, default_values_t = Scope::OF_CLIENTS)]
    scopes: Vec<Scope>,
    /// Days after which the key expires; without it, it does not.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=LONGEST_LIFETIME_DAYS))]
    expires_in_days: Option<u64>,
}

/// What a command prints.
#[derive(Debug, Default)]
pub struct Printed {
    pub out: String,
    pub err: String,
}

/// The reason why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("the ledger cannot be read or changed")]
    Ledger(#[from] LedgerError),
    #[error("there is no valid key with the id {0}; `polyglot-api keys list` shows the ids")]
    Unknown(Uuid),
}

/// Runs a command on a ledger whose tables are up to date.
///
/// # Errors
/// When the ledger is not available, or there is no such key.
pub async fn run(command: KeysCommand, ledger: &Ledger) -> Result<Printed, KeysError> {
    match command {
        KeysCommand::Create(create) => {
            let generated = GeneratedKey::new();
            let key = NewApiKey {
                id: generated.id,
                name: &create.name,
                tenant: &create.tenant,
                scopes: create.scopes.into_iter().collect(),
                secret_hash: generated.secret_hash,
                lifetime: create.expires_in_days.map(|days| DAY * u32::try_from(days).unwrap_or(u32::MAX)),
            };
            record(ledger, AuditAction::CreateKey, generated.id, &create.tenant, &create.name).await?;
            with_timeout(ledger.create_api_key(&key)).await?;
            let stored =
                with_timeout(ledger.find_api_key(generated.id)).await?.ok_or(KeysError::Unknown(generated.id))?;
            Ok(made(&generated, &stored.key, ""))
        }
        KeysCommand::List => {
            let keys = with_timeout(ledger.api_keys()).await?;
            let mut out = String::new();
            for key in &keys {
                let _ = writeln!(out, "{}", line(key));
            }
            let err = if keys.is_empty() { "There is no key.\n".to_owned() } else { String::new() };
            Ok(Printed { out, err })
        }
        KeysCommand::Revoke { id } => {
            let stored = with_timeout(ledger.find_api_key(id)).await?.ok_or(KeysError::Unknown(id))?;
            record(ledger, AuditAction::RevokeKey, id, &stored.key.tenant, &stored.key.name).await?;
            if !with_timeout(ledger.revoke_api_key(id)).await? {
                return Err(KeysError::Unknown(id));
            }
            Ok(Printed {
                err: format!("Revoked {id}. Every api refuses it within five seconds.\n"),
                ..Printed::default()
            })
        }
        KeysCommand::Rotate { id, grace_hours } => {
            let stored = with_timeout(ledger.find_api_key(id)).await?.ok_or(KeysError::Unknown(id))?;
            record(ledger, AuditAction::RotateKey, id, &stored.key.tenant, &stored.key.name).await?;
            let generated = GeneratedKey::new();
            let grace = HOUR * u32::try_from(grace_hours).unwrap_or(u32::MAX);
            let rotated = with_timeout(ledger.rotate_api_key(id, generated.id, generated.secret_hash, grace)).await?;
            let rotated = rotated.ok_or(KeysError::Unknown(id))?;
            let until = format!("The old key {id} works until {}.\n", timestamp(rotated.old_expires_at));
            Ok(made(&generated, &rotated.key, &until))
        }
    }
}

/// Records what is about to be done with a key. Who may run this program has the ledger's password, which is all that is known of
/// them.
async fn record(ledger: &Ledger, action: AuditAction, id: Uuid, tenant: &str, name: &str) -> Result<(), LedgerError> {
    let origin = AuditOrigin { tenant: Some(tenant), caller: Some("polyglot-api keys"), ..AuditOrigin::default() };
    let detail = format!("{id} {name}");
    with_timeout(ledger.record(&AuditEvent { detail: Some(&detail), ..AuditEvent::new(action, origin) })).await
}

fn made(generated: &GeneratedKey, key: &ApiKey, more: &str) -> Printed {
    let err = format!(
        "{}\nThe key is shown once; only a hash of it is stored.\n{more}",
        line(&ApiKey { id: generated.id, ..key.clone() })
    );
    Printed { out: format!("{}\n", generated.text), err }
}

/// A key in one line.
fn line(key: &ApiKey) -> String {
    let state = match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {}", timestamp(at)),
        (None, Some(at)) if key.is_valid => format!("expires {}", timestamp(at)),
        (None, Some(at)) => format!("expired {}", timestamp(at)),
        (None, None) => "valid".to_owned(),
    };
    format!(
        "{}  {:?}  tenant {}  scopes {}  made {}  {state}",
        key.id,
        key.name,
        key.tenant,
        scopes(key.scopes),
        timestamp(key.created_at),
    )
}

fn scopes(scopes: Scopes) -> String {
    scopes.iter().map(Scope::name).collect::<Vec<_>>().join(",")
}

fn read_name(name: &str) -> Result<String, String> {
    let name = name.trim();
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(format!("expected 1 to {MAX_NAME_BYTES} bytes without control characters"));
    }
    Ok(name.to_owned())
}

fn read_tenant(name: &str) -> Result<String, String> {
    if tenant::is_valid(name) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "expected 1 to {} of A-Z, a-z, 0-9, '.', '_' and '-', the first a letter or a digit",
        tenant::MAX_BYTES
    ))
}

fn read_scope(name: &str) -> Result<Scope, String> {
    Scope::from_name(name.trim()).ok_or_else(|| format!("there is {}", listed(Scope::ALL)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tenants_are_checked() {
        assert_eq!(read_name(" nightly report ").as_deref(), Ok("nightly report"));
        for bad in ["", "  ", "a\nb", &"x".repeat(101)] {
            assert!(read_name(bad).is_err(), "{bad:?}");
        }
        assert!(read_tenant("acme").is_ok() && read_tenant("a/b").unwrap_err().contains("1 to 64"));
        assert_eq!(read_scope("metrics"), Ok(Scope::Metrics));
        assert!(read_scope("all").unwrap_err().contains("exports:create"));
    }
}
