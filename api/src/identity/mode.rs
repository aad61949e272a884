//! `AUTH`: whether clients have to say who they are.

use std::net::IpAddr;

use polyglot_runtime::config::{ConfigError, Environment};

const VARIABLE: &str = "AUTH";

/// Whether clients have to say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMode {
    #[default]
    On,
    /// Everybody on this machine may do everything.
    Off,
    /// Everybody who reaches the listener may do everything: something in front of the service asks who its clients are.
    OffOnAnyAddress,
}

impl AuthMode {
    /// Reads `AUTH`. It is off only where it is said, and on an address that other machines reach only where that is said too.
    pub(crate) fn from_environment(env: &Environment, listen: IpAddr) -> Result<Self, ConfigError> {
        const EVERYWHERE: &str = "off-on-any-address";
        let modes = [("on", Self::On), ("off", Self::Off), (EVERYWHERE, Self::OffOnAnyAddress)];
        let mode = env.choice(VARIABLE, Self::On, &modes)?;
        if mode == Self::Off && !listen.is_loopback() {
            return Err(ConfigError::Problem {
                name: VARIABLE.to_owned(),
                problem: format!(
                    "is off, but LISTEN is {listen}, which other machines may reach; set LISTEN=127.0.0.1, or make a key with \
                     `polyglot-api keys create` and leave {VARIABLE} unset, or, where something in front of the service asks who \
                     its clients are, set {VARIABLE}={EVERYWHERE}"
                ),
            });
        }
        Ok(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(auth: &str, listen: &str) -> Result<AuthMode, String> {
        AuthMode::from_environment(&Environment::fixed(&[("AUTH", auth)]), listen.parse().unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_off_only_where_that_is_said_and_cannot_be_reached() {
        for listen in ["0.0.0.0", "::", "10.0.0.7", "127.0.0.1", "::1"] {
            assert_eq!(mode("", listen), Ok(AuthMode::On));
            assert_eq!(mode("on", listen), Ok(AuthMode::On));
            assert_eq!(mode("off-on-any-address", listen), Ok(AuthMode::OffOnAnyAddress));
        }
        assert_eq!(mode("off", "127.0.0.1"), Ok(AuthMode::Off));
        assert_eq!(mode("off", "::1"), Ok(AuthMode::Off));
        for listen in ["0.0.0.0", "::", "10.0.0.7"] {
            let error = mode("off", listen).unwrap_err();
            assert!(error.starts_with("AUTH: ") && error.contains(listen) && error.contains("keys create"), "{error}");
        }
        assert!(mode("OFF", "127.0.0.1").unwrap_err().starts_with("AUTH: "));
    }
}
