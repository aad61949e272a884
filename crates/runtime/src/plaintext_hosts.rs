//! `PLAINTEXT_HOSTS`: the servers that may be reached over connections that nobody has verified. Connections to this machine
//! leave no wire to read along on; every other one is verified TLS, unless its host is named here.

use std::net::IpAddr;

use crate::config::{ConfigError, Environment};

const VARIABLE: &str = "PLAINTEXT_HOSTS";

/// The hosts to which connections need not be verified.
#[derive(Debug, Clone, Default)]
pub struct PlaintextHosts(Vec<String>);

impl PlaintextHosts {
    /// Reads `PLAINTEXT_HOSTS`.
    ///
    /// # Errors
    /// If an entry is anything but a host, such as one with a port, or a pattern.
    pub fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let value = env.text(VARIABLE, "")?;
        let entries = value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let hosts: Option<Vec<_>> = entries.map(parse).collect();
        hosts.map(Self).ok_or_else(|| ConfigError::Value {
            name: VARIABLE.to_owned(),
            expected: "expected names or addresses of hosts without a port, separated by commas, such as \
                       postgres,rabbitmq,10.0.0.5; patterns are not supported"
                .to_owned(),
            value,
        })
    }

    /// Whether a connection to `host` may be plain, or to a server whose certificate is not verified.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        is_local(host) || self.0.contains(&normalized(host))
    }

    /// Refuses the URL in the variable `name`, whose connections to `host` are not verified because of `found`; `instead` says
    /// what would be.
    #[must_use]
    pub fn refusal(name: &str, host: &str, found: &str, instead: &str) -> ConfigError {
        ConfigError::Problem {
            name: name.to_owned(),
            problem: format!(
                "connections to {host:?} would not be verified TLS ({found}): {instead}, or name that host in {VARIABLE} if \
                 nobody can read or change what is sent to it"
            ),
        }
    }
}

fn normalized(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase()
}

fn parse(entry: &str) -> Option<String> {
    let host = normalized(entry);
    let is_name = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    (is_name || host.parse::<IpAddr>().is_ok()).then_some(host)
}

/// Whether packets to `host` stay on this machine. Other names under `localhost` are asked of a name server by some resolvers.
#[must_use]
pub fn is_local(host: &str) -> bool {
    let host = normalized(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(value: &str) -> Result<PlaintextHosts, ConfigError> {
        PlaintextHosts::from_environment(&Environment::fixed(&[(VARIABLE, value)]))
    }

    #[test]
    fn this_machine_alone_is_allowed_unless_told() {
        let none = hosts("").unwrap();
        for local in
            ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.1.2.3", "::1", "[::1]", "::ffff:127.0.0.1"]
        {
            assert!(none.allows(local), "{local}");
        }
        for remote in [
            "postgres",
            "10.0.0.1",
            "0.0.0.0",
            "db.localhost",
            "localhost.example.com",
            "127.0.0.1.nip.io",
            "2130706433",
            "",
        ] {
            assert!(!none.allows(remote), "{remote}");
        }
    }

    #[test]
    fn hosts_are_named_exactly() {
        let named = hosts(" postgres, DB.example.com ,[fd00::5],10.0.0.5,").unwrap();
        for host in ["postgres", "Postgres", "db.example.com.", "fd00::5", "10.0.0.5"] {
            assert!(named.allows(host), "{host}");
        }
        for host in ["postgres.example.com", "example.com", "10.0.0.50", "fd00::6"] {
            assert!(!named.allows(host), "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in ["*", "*.example.com", "postgres:5432", "http://store", "a b", "10.0.0.0/8", "[x"] {
            let error = hosts(bad).unwrap_err().to_string();
            assert!(error.starts_with("PLAINTEXT_HOSTS: expected names") && error.contains(bad), "{error}");
        }
    }
}
