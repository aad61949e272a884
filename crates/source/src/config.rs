//! The connection URLs of the ledger's and of the source's database, and whether any role will do for the source.

use polyglot_runtime::config::{ConfigError, Environment};
use polyglot_runtime::plaintext_hosts::PlaintextHosts;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::database_url::DatabaseUrl;

/// `DATABASE_URL`, the database of the ledger.
///
/// # Errors
/// When it is not a PostgreSQL URL, or one whose connections would not be verified. The message never holds the URL, which may
/// hold a password.
pub fn database_url(env: &Environment) -> Result<DatabaseUrl, ConfigError> {
    url(env, "DATABASE_URL", "postgres://postgres:postgres@localhost:5432/postgres")
}

/// `SOURCE_DATABASE_URL`, the database that rows are read from; by default that of the ledger.
///
/// # Errors
/// As [`database_url`].
pub fn source_database_url(env: &Environment) -> Result<DatabaseUrl, ConfigError> {
    url(env, "SOURCE_DATABASE_URL", &database_url(env)?.text())
}

/// `SOURCE_ALLOW_PRIVILEGED`: whether the role of `SOURCE_DATABASE_URL` may be one that may do more than read.
///
/// # Errors
/// When it is neither `on` nor `off`.
pub fn allows_privileged_role(env: &Environment) -> Result<bool, ConfigError> {
    env.choice("SOURCE_ALLOW_PRIVILEGED", false, &[("on", true), ("off", false)])
}

fn url(env: &Environment, name: &str, default: &str) -> Result<DatabaseUrl, ConfigError> {
    let url = env.url(name, default, check)?;
    Ok(verified(name, url, &PlaintextHosts::from_environment(env)?)?.into())
}

/// The URL with `sslmode=verify-full` where it has no mode of its own and the server is neither local nor one that may be
/// reached without. The driver's own default takes any certificate, and goes on without TLS where the server has none.
fn verified(name: &str, url: String, plaintext_hosts: &PlaintextHosts) -> Result<String, ConfigError> {
    let parse = |url: &str| {
        url.parse::<PgConnectOptions>().map_err(|error| ConfigError::Problem {
            name: name.to_owned(),
            problem: format!("not a usable URL: {error}"),
        })
    };
    let options = parse(&url)?;
    let host = options.get_host();
    let is_socket = options.get_socket().is_some() || host.starts_with('/');
    let is_verified = |options: &PgConnectOptions| matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
    if is_socket || is_verified(&options) || plaintext_hosts.allows(host) {
        return Ok(url);
    }
    let (before, fragment) = url.split_once('#').map_or((&*url, None), |(before, after)| (before, Some(after)));
    let parameters = before.split_once('?').map(|(_, parameters)| parameters);
    let has_mode = parameters.unwrap_or_default().split('&').find(|parameter| {
        let key = parameter.split('=').next();
        matches!(key, Some("sslmode" | "ssl-mode"))
    });
    let refusal = |found: &str| {
        PlaintextHosts::refusal(name, host, found, "set sslmode=verify-full in the URL, or leave sslmode out")
    };
    if let Some(mode) = has_mode {
        return Err(refusal(mode));
    }
    let separator = if parameters.is_some() { '&' } else { '?' };
    let mut verified = format!("{before}{separator}sslmode=verify-full");
    if let Some(fragment) = fragment {
        verified.push('#');
        verified.push_str(fragment);
    }
    if is_verified(&parse(&verified)?) { Ok(verified) } else { Err(refusal("sslmode")) }
}

/// Checks the scheme, because the driver accepts any.
fn check(url: &str) -> Result<(), String> {
    match url.split_once("://") {
        Some(("postgres" | "postgresql", _)) => {
            url.parse::<PgConnectOptions>().map(drop).map_err(|error| error.to_string())
        }
        _ => Err("it does not begin with postgres://".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_a_password_is_not_repeated_in_the_error() {
        let env = Environment::fixed(&[("DATABASE_URL", "mysql//root:hunter2@x")]);
        let error = database_url(&env).unwrap_err().to_string();
        assert!(error.starts_with("DATABASE_URL: "), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_secret_comes_from_a_file() {
        let path = std::env::temp_dir().join(format!("polyglot-config-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, "postgres://u:p@localhost/db\n").unwrap();
        let env = Environment::fixed(&[("DATABASE_URL_FILE", path.to_str().unwrap())]);
        assert_eq!(*database_url(&env).unwrap().text(), "postgres://u:p@localhost/db");
        std::fs::remove_file(&path).unwrap();
        let error = database_url(&env).unwrap_err().to_string();
        assert!(error.starts_with("DATABASE_URL_FILE: cannot read"), "{error}");
    }

    #[test]
    fn the_source_is_the_ledgers_database_by_default() {
        let env = Environment::fixed(&[]);
        assert_eq!(source_database_url(&env).unwrap(), database_url(&env).unwrap());
    }

    fn with(url: &str, plaintext_hosts: &str) -> Result<String, ConfigError> {
        let variables = [("DATABASE_URL", url), ("PLAINTEXT_HOSTS", plaintext_hosts)];
        database_url(&Environment::fixed(&variables)).map(|url| (*url.text()).clone())
    }

    #[test]
    fn a_connection_to_another_machine_is_verified_unless_told() {
        for (url, becomes) in [
            ("postgres://u:p@db/x", "postgres://u:p@db/x?sslmode=verify-full"),
            ("postgres://db", "postgres://db?sslmode=verify-full"),
            ("postgres://db/x?sslrootcert=/ca.pem", "postgres://db/x?sslrootcert=/ca.pem&sslmode=verify-full"),
            ("postgres://db/x#sslmode=disable", "postgres://db/x?sslmode=verify-full#sslmode=disable"),
            // What the driver decodes, and what comes later, counts.
            ("postgres://db/x?ssl%6Dode=disable", "postgres://db/x?ssl%6Dode=disable&sslmode=verify-full"),
            ("postgres://localhost/x?host=db", "postgres://localhost/x?host=db&sslmode=verify-full"),
            (
                "postgres://localhost/x?hostaddr=10.0.0.5",
                "postgres://localhost/x?hostaddr=10.0.0.5&sslmode=verify-full",
            ),
        ] {
            assert_eq!(with(url, "").unwrap(), becomes);
        }
        for url in [
            "postgres://u:p@localhost/x",
            "postgres://127.0.0.1/x?sslmode=disable",
            "postgres://%2Frun%2Fpostgresql/x",
            "postgres:///x?host=/run/postgresql",
            "postgres://db/x?sslmode=verify-full",
        ] {
            assert_eq!(with(url, "").unwrap(), url);
        }
    }

    #[test]
    fn a_weaker_mode_is_refused_unless_the_host_is_named() {
        for mode in ["disable", "allow", "prefer", "require", "verify-ca"] {
            for key in ["sslmode", "ssl-mode"] {
                let url = format!("postgres://u:hunter2@db.example.com/x?{key}={mode}");
                let error = with(&url, "").unwrap_err().to_string();
                assert!(
                    error.starts_with("DATABASE_URL: connections to \"db.example.com\" would not be verified"),
                    "{error}"
                );
                assert!(error.contains(mode) && error.contains("PLAINTEXT_HOSTS"), "{error}");
                assert!(!error.contains("hunter2"), "{error}");
                assert_eq!(with(&url, "other,db.example.com").unwrap(), url);
            }
        }
        assert_eq!(with("postgres://db/x", "db").unwrap(), "postgres://db/x");
        let source = [("SOURCE_DATABASE_URL", "postgres://replica/x?sslmode=require")];
        let error = source_database_url(&Environment::fixed(&source)).unwrap_err().to_string();
        assert!(error.starts_with("SOURCE_DATABASE_URL: "), "{error}");
    }
}
