//! The connection URLs of the ledger's and of the source's database, and whether any role will do for the source.

use polyglot_runtime::config::{ConfigError, Environment};
use sqlx::postgres::PgConnectOptions;

/// `DATABASE_URL`, the database of the ledger.
///
/// # Errors
/// When it is not a PostgreSQL URL. The message never holds the URL, which may hold a password.
pub fn database_url(env: &Environment) -> Result<String, ConfigError> {
    env.url("DATABASE_URL", "postgres://postgres:postgres@localhost:5432/postgres", check)
}

/// `SOURCE_DATABASE_URL`, the database that rows are read from; by default that of the ledger.
///
/// # Errors
/// As [`database_url`].
pub fn source_database_url(env: &Environment) -> Result<String, ConfigError> {
    env.url("SOURCE_DATABASE_URL", &database_url(env)?, check)
}

/// `SOURCE_ALLOW_PRIVILEGED`: whether the role of `SOURCE_DATABASE_URL` may be one that may do more than read.
///
/// # Errors
/// When it is neither `on` nor `off`.
pub fn allows_privileged_role(env: &Environment) -> Result<bool, ConfigError> {
    env.choice("SOURCE_ALLOW_PRIVILEGED", false, &[("on", true), ("off", false)])
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
        std::fs::write(&path, "postgres://u:p@h/db\n").unwrap();
        let env = Environment::fixed(&[("DATABASE_URL_FILE", path.to_str().unwrap())]);
        assert_eq!(database_url(&env).unwrap(), "postgres://u:p@h/db");
        std::fs::remove_file(&path).unwrap();
        let error = database_url(&env).unwrap_err().to_string();
        assert!(error.starts_with("DATABASE_URL_FILE: cannot read"), "{error}");
    }

    #[test]
    fn the_source_is_the_ledgers_database_by_default() {
        let env = Environment::fixed(&[]);
        assert_eq!(source_database_url(&env).unwrap(), database_url(&env).unwrap());
    }
}
