//! The connection settings of ledger, source, broker and object store, and how long the ledger remembers.

use std::time::Duration;

use polyglot_runtime::config::{ConfigError, Environment};
use polyglot_source::{allows_privileged_role, database_url, source_database_url};
use polyglot_storage::StorageConfig;

use crate::broker_address::BrokerAddress;

/// The servers to which both processes connect.
#[derive(Clone)]
pub struct Connections {
    pub database_url: String,
    pub source_database_url: String,
    /// Whether the source's role may do more than read.
    pub source_allow_privileged: bool,
    /// `None`: there is no broker, and workers find their work by polling the ledger.
    pub broker: Option<BrokerAddress>,
    pub amqp_queue: String,
    pub storage: StorageConfig,
}

impl Connections {
    /// Reads the variables, with their defaults.
    ///
    /// # Errors
    /// Names the variable whose value cannot be used.
    pub fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let amqp_queue = env.text("AMQP_QUEUE", "polyglot.exports")?;
        if amqp_queue.len() > 200 || amqp_queue.starts_with("amq.") {
            return Err(ConfigError::Value {
                name: "AMQP_QUEUE".to_owned(),
                value: amqp_queue,
                expected: "expected a queue name of at most 200 bytes that does not begin with amq.".to_owned(),
            });
        }
        Ok(Self {
            database_url: database_url(env)?,
            source_database_url: source_database_url(env)?,
            source_allow_privileged: allows_privileged_role(env)?,
            broker: BrokerAddress::from_environment(env)?,
            amqp_queue,
            storage: StorageConfig::from_environment(env)?,
        })
    }
}

/// `LEDGER_TTL_DAYS`: time after its end for which an export is remembered; `None`: for ever. Every process sweeps, so the
/// smallest one of all processes counts.
///
/// # Errors
/// Names the variable if its value cannot be used.
pub fn ledger_ttl(env: &Environment) -> Result<Option<Duration>, ConfigError> {
    days(env, "LEDGER_TTL_DAYS", 30)
}

/// `AUDIT_TTL_DAYS`: time for which the audit is kept; `None`: for ever. Every process sweeps, so the smallest one counts.
///
/// # Errors
/// Names the variable if its value cannot be used.
pub fn audit_ttl(env: &Environment) -> Result<Option<Duration>, ConfigError> {
    days(env, "AUDIT_TTL_DAYS", 365)
}

fn days(env: &Environment, name: &str, default: u64) -> Result<Option<Duration>, ConfigError> {
    let days = env.number(name, default, 0..=36_500, "days")?;
    Ok((days > 0).then(|| Duration::from_hours(days * 24)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_remembers_for_thirty_days_unless_told() {
        let ttl = |variables: &[(&str, &str)]| ledger_ttl(&Environment::fixed(variables));
        assert_eq!(ttl(&[]).unwrap(), Some(Duration::from_hours(720)));
        assert_eq!(ttl(&[("LEDGER_TTL_DAYS", "1")]).unwrap(), Some(Duration::from_hours(24)));
        assert_eq!(ttl(&[("LEDGER_TTL_DAYS", "0")]).unwrap(), None);
        assert_eq!(audit_ttl(&Environment::fixed(&[])).unwrap(), Some(Duration::from_hours(365 * 24)));
        for bad in ["-1", "1.5", "off", "36501"] {
            let error = ttl(&[("LEDGER_TTL_DAYS", bad)]).unwrap_err().to_string();
            assert!(error.starts_with("LEDGER_TTL_DAYS: "), "{error}");
        }
    }

    #[test]
    fn defaults_are_usable() {
        assert!(Connections::from_environment(&Environment::fixed(&[])).unwrap().broker.is_some());
    }
}
