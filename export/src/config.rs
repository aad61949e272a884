//! Reading configuration from the environment: every variable by name, with its default, or from the file
//! that `NAME_FILE` points to. Which variables a process has is said where they are used; here are the ones
//! the api and the worker share.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A variable whose value cannot be used. The message names the variable and never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{name}: {expected}, but it is {value:?}")]
    Value { name: String, value: String, expected: String },
    #[error("{name}: {problem}")]
    Problem { name: String, problem: String },
    #[error("{name}_FILE: cannot read {path:?}")]
    File { name: String, path: String, source: std::io::Error },
}

/// The variables of a process, or a fixed set in a test.
#[derive(Debug, Clone)]
pub struct Environment(HashMap<String, String>);

impl Environment {
    /// The variables of this process. A name or value that is not UTF-8 counts as unset.
    #[must_use]
    pub fn of_process() -> Self {
        Self(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect())
    }

    #[must_use]
    pub fn fixed(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    /// The value of `name`, or the trimmed content of the file in `NAME_FILE`. An empty value counts as unset.
    pub fn optional(&self, name: &str) -> Result<Option<String>, ConfigError> {
        if let Some(path) = self.0.get(&format!("{name}_FILE")).filter(|path| !path.is_empty()) {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
                name: name.to_owned(),
                path: path.clone(),
                source,
            })?;
            return Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()));
        }
        Ok(self.0.get(name).filter(|value| !value.is_empty()).cloned())
    }

    /// Whether `name` is set, to nothing, and no file takes its place.
    fn is_empty(&self, name: &str) -> bool {
        let is_set = |name: &str| self.0.get(name).is_some_and(|value| !value.is_empty());
        self.0.contains_key(name) && !is_set(name) && !is_set(&format!("{name}_FILE"))
    }

    pub fn text(&self, name: &str, default: &str) -> Result<String, ConfigError> {
        Ok(self.optional(name)?.unwrap_or_else(|| default.to_owned()))
    }

    /// A whole number in `range`; `unit` is for the message.
    pub fn number<T>(
        &self,
        name: &str,
        default: T,
        range: std::ops::RangeInclusive<T>,
        unit: &str,
    ) -> Result<T, ConfigError>
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let Some(value) = self.optional(name)? else { return Ok(default) };
        value.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| ConfigError::Value {
            name: name.to_owned(),
            value,
            expected: format!("expected a whole number from {} to {} ({unit})", range.start(), range.end()),
        })
    }

    /// `MAX_PARALLELISM`: shards of one export that are worked on at a time at most. The api refuses a request for more, and
    /// a worker takes no more.
    pub fn max_parallelism(&self) -> Result<u16, ConfigError> {
        self.number("MAX_PARALLELISM", 16, 1..=1000, "shards at a time")
    }

    /// One of `choices`, which pairs a name with what it means.
    pub fn choice<T: Copy>(&self, name: &str, default: T, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let Some(value) = self.optional(name)? else { return Ok(default) };
        choices.iter().find(|(choice, _)| *choice == value).map(|(_, it)| *it).ok_or_else(|| ConfigError::Value {
            name: name.to_owned(),
            value,
            expected: format!("expected one of {}", choices.iter().map(|(c, _)| *c).collect::<Vec<_>>().join(", ")),
        })
    }

    /// A connection URL that `parse` accepts. Its text may hold a password and is kept out of the message.
    fn url<T, E: fmt::Display>(
        &self,
        name: &str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<String, ConfigError> {
        let value = self.text(name, default)?;
        match parse(&value) {
            Ok(_) => Ok(value),
            Err(error) => {
                Err(ConfigError::Problem { name: name.to_owned(), problem: format!("not a usable URL: {error}") })
            }
        }
    }
}

/// The servers that both processes talk to.
#[derive(Clone)]
pub struct Connections {
    pub database_url: String,
    pub source_database_url: String,
    /// `None`: there is no broker, and workers find their work in the ledger alone.
    pub amqp_url: Option<String>,
    pub amqp_queue: String,
    pub storage: StorageConfig,
}

/// Where the files go.
#[derive(Clone)]
pub struct StorageConfig {
    /// `None`: AWS S3 itself.
    pub endpoint: Option<String>,
    /// What a presigned URL names; `None`: the same as `endpoint`.
    pub public_endpoint: Option<String>,
    pub bucket: String,
    /// Put before every object key; empty, or ends in `/`.
    pub prefix: String,
    pub region: Option<String>,
    /// Set only when a key comes from a `_FILE`; otherwise the AWS chain finds credentials by itself.
    pub static_credentials: Option<(String, String)>,
}

impl Connections {
    pub fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        // The driver itself would take any scheme.
        let pg = |url: &str| match url.split_once("://") {
            Some(("postgres" | "postgresql", _)) => {
                url.parse::<sqlx::postgres::PgConnectOptions>().map(drop).map_err(|error| error.to_string())
            }
            _ => Err("it does not begin with postgres://".to_owned()),
        };
        let database_url = env.url("DATABASE_URL", "postgres://postgres:postgres@localhost:5432/postgres", pg)?;
        let source_database_url = env.url("SOURCE_DATABASE_URL", &database_url, pg)?;
        let amqp_url = if env.is_empty("AMQP_URL") {
            None
        } else {
            let url =
                env.url("AMQP_URL", "amqp://guest:guest@localhost:5672/%2f", str::parse::<lapin::uri::AMQPUri>)?;
            Some(url)
        };
        let amqp_queue = env.text("AMQP_QUEUE", "polyglot.exports")?;
        if amqp_queue.len() > 200 || amqp_queue.starts_with("amq.") {
            return Err(ConfigError::Value {
                name: "AMQP_QUEUE".to_owned(),
                value: amqp_queue,
                expected: "expected a queue name of at most 200 bytes that does not begin with amq.".to_owned(),
            });
        }
        Ok(Self {
            database_url,
            source_database_url,
            amqp_url,
            amqp_queue,
            storage: StorageConfig::from_environment(env)?,
        })
    }
}

impl StorageConfig {
    fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let endpoint = |name: &str| -> Result<Option<String>, ConfigError> {
            let Some(value) = env.optional(name)? else { return Ok(None) };
            let rest = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
            if rest.is_none_or(|host| host.is_empty() || host.contains(char::is_whitespace)) {
                return Err(ConfigError::Value {
                    name: name.to_owned(),
                    value,
                    expected: "expected http://host:port or https://host:port".to_owned(),
                });
            }
            Ok(Some(value.trim_end_matches('/').to_owned()))
        };
        let mut prefix = env.text("S3_PREFIX", "")?;
        if prefix.starts_with('/') {
            return Err(ConfigError::Value {
                name: "S3_PREFIX".to_owned(),
                value: prefix,
                expected: "expected a key prefix that does not begin with /".to_owned(),
            });
        }
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let from_file = |name: &str| env.0.contains_key(&format!("{name}_FILE"));
        let (id, secret) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
        let static_credentials = if from_file(id) || from_file(secret) {
            let required = |name: &str| {
                env.optional(name)?.ok_or_else(|| ConfigError::Problem {
                    name: name.to_owned(),
                    problem: "required, because the other half of the key pair comes from a file".to_owned(),
                })
            };
            Some((required(id)?, required(secret)?))
        } else {
            None
        };
        Ok(Self {
            endpoint: endpoint("S3_ENDPOINT")?,
            public_endpoint: endpoint("S3_PUBLIC_ENDPOINT")?,
            bucket: env.text("S3_BUCKET", "exports")?,
            prefix,
            region: env.optional("AWS_REGION")?,
            static_credentials,
        })
    }
}

/// A duration given as a whole number of milliseconds, where 0 means none.
#[must_use]
pub fn none_if_zero(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_names_its_variable() {
        let env = Environment::fixed(&[("PORT", "eighty"), ("MODE", "x"), ("S3_ENDPOINT", "localhost:9000")]);
        let error = env.number("PORT", 8080_u16, 1..=65535, "port").unwrap_err().to_string();
        assert!(error.starts_with("PORT: expected a whole number") && error.contains("eighty"), "{error}");
        let error = env.choice("MODE", 1, &[("a", 1), ("b", 2)]).unwrap_err().to_string();
        assert_eq!(error, "MODE: expected one of a, b, but it is \"x\"");
        let error = StorageConfig::from_environment(&env).err().unwrap().to_string();
        assert!(error.starts_with("S3_ENDPOINT: "), "{error}");
    }

    #[test]
    fn a_url_with_a_password_is_not_repeated_in_the_error() {
        let env = Environment::fixed(&[("DATABASE_URL", "mysql//root:hunter2@x")]);
        let error = Connections::from_environment(&env).err().unwrap().to_string();
        assert!(error.starts_with("DATABASE_URL: "), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_secret_comes_from_a_file() {
        let path = std::env::temp_dir().join(format!("polyglot-config-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, "postgres://u:p@h/db\n").unwrap();
        let env = Environment::fixed(&[("DATABASE_URL_FILE", path.to_str().unwrap())]);
        assert_eq!(Connections::from_environment(&env).unwrap().database_url, "postgres://u:p@h/db");
        std::fs::remove_file(&path).unwrap();
        let error = Connections::from_environment(&env).err().unwrap().to_string();
        assert!(error.starts_with("DATABASE_URL_FILE: cannot read"), "{error}");
    }

    #[test]
    fn defaults_are_usable() {
        let connections = Connections::from_environment(&Environment::fixed(&[])).unwrap();
        assert_eq!(connections.source_database_url, connections.database_url);
        assert!(connections.amqp_url.is_some());
    }

    #[test]
    fn a_broker_that_is_set_to_nothing_is_none() {
        let connections = Connections::from_environment(&Environment::fixed(&[("AMQP_URL", "")])).unwrap();
        assert_eq!(connections.amqp_url, None);
        let env = Environment::fixed(&[("AMQP_URL", ""), ("AMQP_URL_FILE", "/nowhere")]);
        assert!(Connections::from_environment(&env).err().unwrap().to_string().starts_with("AMQP_URL_FILE: "));
    }

    #[test]
    fn the_default_bucket_is_named() {
        let connections = Connections::from_environment(&Environment::fixed(&[])).unwrap();
        assert_eq!(connections.storage.bucket, "exports");
    }
}
