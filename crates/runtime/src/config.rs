//! Reading configuration from the environment: every variable by name, with its default, or from the file that `NAME_FILE` names.
//! Each part of the service reads its own variables.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
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
#[derive(Clone)]
pub struct Environment(HashMap<String, String>);

/// Without the values, of which some are secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

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

    /// Whether `name` is set to an empty value and no file takes its place.
    #[must_use]
    pub fn is_empty(&self, name: &str) -> bool {
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

    /// `MAX_PARALLELISM`: the largest number of shards of one export that are worked on at a time. The api refuses a request for
    /// more, and a worker limits itself to it.
    pub fn max_parallelism(&self) -> Result<u16, ConfigError> {
        self.number("MAX_PARALLELISM", 16, 1..=1000, "shards at a time")
    }

    /// `LISTEN`: the address that this process listens on, every IPv4 address of the machine unless told.
    pub fn listen_address(&self) -> Result<IpAddr, ConfigError> {
        const NAME: &str = "LISTEN";
        let Some(value) = self.optional(NAME)? else { return Ok(Ipv4Addr::UNSPECIFIED.into()) };
        let bare = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&value);
        bare.parse().map_err(|_| ConfigError::Value {
            name: NAME.to_owned(),
            expected:
                "expected an IP address of this machine without a port, such as 127.0.0.1, ::1, 0.0.0.0 (every IPv4 \
                       address) or :: (every address)"
                    .to_owned(),
            value,
        })
    }

    /// Whether the value of `name` comes from a file.
    #[must_use]
    pub fn has_file(&self, name: &str) -> bool {
        self.0.contains_key(&format!("{name}_FILE"))
    }

    /// One of `choices`, which are pairs of a name and its value.
    pub fn choice<T: Copy>(&self, name: &str, default: T, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let Some(value) = self.optional(name)? else { return Ok(default) };
        choices.iter().find(|(choice, _)| *choice == value).map(|(_, it)| *it).ok_or_else(|| ConfigError::Value {
            name: name.to_owned(),
            value,
            expected: format!("expected one of {}", choices.iter().map(|(c, _)| *c).collect::<Vec<_>>().join(", ")),
        })
    }

    /// A connection URL that `parse` accepts. Its text may hold a password and is kept out of the message.
    pub fn url<T, E: fmt::Display>(
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

/// A duration given as a whole number of milliseconds, where 0 means none.
#[must_use]
pub fn none_if_zero(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_shown() {
        let shown = format!("{:?}", Environment::fixed(&[("DATABASE_URL", "postgres://u:hunter2@db")]));
        assert!(shown.contains("DATABASE_URL") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        let env = Environment::fixed(&[("PORT", "eighty"), ("MODE", "x")]);
        let error = env.number("PORT", 8080_u16, 1..=65535, "port").unwrap_err().to_string();
        assert!(error.starts_with("PORT: expected a whole number") && error.contains("eighty"), "{error}");
        let error = env.choice("MODE", 1, &[("a", 1), ("b", 2)]).unwrap_err().to_string();
        assert_eq!(error, "MODE: expected one of a, b, but it is \"x\"");
    }

    #[test]
    fn addresses_are_read_with_and_without_brackets() {
        let listen = |value: &str| Environment::fixed(&[("LISTEN", value)]).listen_address();
        for (value, address) in
            [("", "0.0.0.0"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("[::1]", "::1"), ("::", "::")]
        {
            assert_eq!(listen(value).unwrap().to_string(), address);
        }
        for bad in ["localhost", "127.0.0.1:80", "[127.0.0.1", "eth0"] {
            let error = listen(bad).unwrap_err().to_string();
            assert!(error.starts_with("LISTEN: expected an IP address") && error.contains("::1"), "{error}");
        }
    }
}
