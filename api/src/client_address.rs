//! `TRUSTED_PROXIES`: from where a request comes, for the audit. A proxy in front of the service says in `X-Forwarded-For` who
//! its client is; anybody else may write anything there.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName};
use polyglot_runtime::config::{ConfigError, Environment};

const VARIABLE: &str = "TRUSTED_PROXIES";

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The addresses of proxies that are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpAddr>);

impl TrustedProxies {
    pub(crate) fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let Some(value) = env.optional(VARIABLE)? else { return Ok(Self::default()) };
        let entries = value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let addresses: Result<Vec<IpAddr>, _> = entries.map(str::parse).collect();
        addresses.map(Self).map_err(|_| ConfigError::Value {
            name: VARIABLE.to_owned(),
            value,
            expected: "expected IP addresses, separated by commas, such as 10.0.0.7,::1".to_owned(),
        })
    }

    /// The address of the client: of the connection, or what the proxies in front have added to `X-Forwarded-For`, from the
    /// last one backwards to the first that is no proxy of ours.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let values = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
        for hop in hops.iter().rev() {
            if !self.0.contains(&client) {
                break;
            }
            let Ok(address) = hop.parse() else { break };
            client = address;
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(value: &str) -> TrustedProxies {
        TrustedProxies::from_environment(&Environment::fixed(&[(VARIABLE, value)])).unwrap()
    }

    #[test]
    fn a_proxy_that_is_trusted_says_who_its_client_is() {
        let headers = |value: &'static str| HeaderMap::from_iter([(FORWARDED_FOR, value.parse().unwrap())]);
        let client = |proxies: &TrustedProxies, peer: &str, forwarded: &'static str| {
            proxies.client(peer.parse().unwrap(), &headers(forwarded)).to_string()
        };
        let trusted = proxies("10.0.0.1, 10.0.0.2");
        assert_eq!(client(&trusted, "10.0.0.1", "192.0.2.7"), "192.0.2.7");
        // What the client itself wrote stands in front.
        assert_eq!(client(&trusted, "10.0.0.1", "203.0.113.9, 192.0.2.7"), "192.0.2.7");
        assert_eq!(client(&trusted, "10.0.0.1", "203.0.113.9, 192.0.2.7, 10.0.0.2"), "192.0.2.7");
        assert_eq!(client(&trusted, "192.0.2.7", "203.0.113.9"), "192.0.2.7");
        assert_eq!(client(&trusted, "10.0.0.1", "nonsense"), "10.0.0.1");
        assert_eq!(client(&proxies(""), "10.0.0.1", "203.0.113.9"), "10.0.0.1");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let error = TrustedProxies::from_environment(&Environment::fixed(&[(VARIABLE, "proxy.internal")])).unwrap_err();
        assert!(error.to_string().starts_with("TRUSTED_PROXIES: "), "{error}");
    }
}
