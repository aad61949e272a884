//! `ALLOWED_HOSTS`: the names under which the service may be requested. A page of another site can point a name of its own at
//! this address (DNS rebinding) and would then be taken for the service's own page by the browser; such a request has the
//! page's name in `Host`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use polyglot_runtime::config::{ConfigError, Environment};

use crate::problem::RouteError;

const VARIABLE: &str = "ALLOWED_HOSTS";

/// Probes of orchestrators request these by the address of a container, and they tell nothing.
const ALWAYS_ALLOWED: [&str; 2] = ["/health", "/health/ready"];

/// The hosts that requests may name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowedHosts(Option<Vec<Pattern>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Name(String),
    /// Every name that ends in this, which begins with a dot.
    Suffix(String),
    Address(IpAddr),
}

impl AllowedHosts {
    /// Reads `ALLOWED_HOSTS`; not set: every host is allowed.
    pub(crate) fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let Some(value) = env.optional(VARIABLE)? else { return Ok(Self::default()) };
        let entries = value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let patterns: Option<Vec<Pattern>> = entries.map(Pattern::parse).collect();
        match patterns {
            Some(patterns) if !patterns.is_empty() => Ok(Self(Some(patterns))),
            _ => Err(ConfigError::Value {
                name: VARIABLE.to_owned(),
                value,
                expected: "expected host names or addresses without a port, separated by commas, such as \
                           export.example.com,*.internal.example.com,[::1]; leave it unset to allow every host"
                    .to_owned(),
            }),
        }
    }

    /// The names of this machine alone, and `listen`.
    pub(crate) fn of_this_machine(listen: IpAddr) -> Self {
        let addresses = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), listen];
        let names = [Pattern::Name("localhost".to_owned())];
        Self(Some(names.into_iter().chain(addresses.map(Pattern::Address)).collect()))
    }

    /// Whether every host is allowed.
    pub(crate) fn is_any(&self) -> bool {
        self.0.is_none()
    }

    fn allows(&self, host: &str) -> bool {
        let Some(patterns) = &self.0 else { return true };
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let address = parse_address(&name);
        patterns.iter().any(|pattern| match pattern {
            Pattern::Name(allowed) => *allowed == name,
            Pattern::Suffix(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
            Pattern::Address(allowed) => address == Some(*allowed),
        })
    }
}

impl Pattern {
    fn parse(entry: &str) -> Option<Self> {
        if let Some(address) = parse_address(entry) {
            return Some(Self::Address(address));
        }
        let name = entry.to_ascii_lowercase();
        let (wildcard, labels) = match name.strip_prefix("*.") {
            Some(labels) => (true, labels),
            None => (false, name.as_str()),
        };
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if !labels.split('.').all(is_label) {
            return None;
        }
        Some(if wildcard { Self::Suffix(format!(".{labels}")) } else { Self::Name(name) })
    }
}

/// An address as a URL or a person writes it: IPv6 with or without brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// The host and port that a request is for: of its URI if that has one, else of the one `Host` header.
pub(crate) fn requested_authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    if let Some(authority) = uri.authority() {
        return Some(authority.clone());
    }
    let mut values = headers.get_all(header::HOST).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok()?.parse().ok(),
        _ => None,
    }
}

/// Answers 421 to requests for a host that is not allowed.
pub(crate) async fn check(State(allowed): State<Arc<AllowedHosts>>, request: Request, next: Next) -> Response {
    let authority = requested_authority(request.uri(), request.headers());
    let host = authority.as_ref().map_or("", Authority::host);
    if allowed.allows(host) || ALWAYS_ALLOWED.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    RouteError::HostNotAllowed { host: host.to_owned() }.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(value: &str) -> Result<AllowedHosts, ConfigError> {
        AllowedHosts::from_environment(&Environment::fixed(&[(VARIABLE, value)]))
    }

    #[test]
    fn names_wildcards_and_addresses_are_allowed() {
        let hosts = allowed("Export.Example.com, *.internal.example.com,127.0.0.1,[::1],2001:db8::5").unwrap();
        for good in [
            "export.example.com",
            "EXPORT.example.COM",
            "export.example.com.",
            "a.internal.example.com",
            "a.b.internal.example.com",
            "127.0.0.1",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[2001:db8::5]",
        ] {
            assert!(hosts.allows(good), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "internal.example.com",
            ".internal.example.com",
            "evilinternal.example.com",
            "export.example.com.evil.com",
            "127.0.0.2",
            "[::2]",
            "localhost",
        ] {
            assert!(!hosts.allows(bad), "{bad}");
        }
    }

    #[test]
    fn this_machine_has_its_own_names() {
        let hosts = AllowedHosts::of_this_machine([127, 0, 0, 7].into());
        for good in ["localhost", "127.0.0.1", "[::1]", "127.0.0.7"] {
            assert!(hosts.allows(good), "{good}");
        }
        assert!(!hosts.allows("evil.example") && !hosts.allows("127.0.0.8"));
    }

    #[test]
    fn without_the_variable_every_host_is_allowed() {
        assert!(allowed("").unwrap().allows("evil.example"));
        assert!(allowed("").unwrap().is_any());
    }

    #[test]
    fn an_entry_that_is_no_host_is_refused_and_an_example_given() {
        for bad in
            ["*", "example.com:8080", "http://example.com", "a..b", "*.", "*.*.com", "a b", ",", "[::1", "[1.2.3.4]"]
        {
            let error = allowed(bad).expect_err(bad).to_string();
            assert!(
                error.starts_with("ALLOWED_HOSTS: expected host names") && error.contains(".example.com"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_host_of_a_request_is_that_of_its_uri_or_of_one_header() {
        let headers = |hosts: &[&'static str]| {
            hosts.iter().map(|host| (header::HOST, header::HeaderValue::from_static(host))).collect::<HeaderMap>()
        };
        let host = |uri: &'static str, hosts: &[&'static str]| {
            requested_authority(&Uri::from_static(uri), &headers(hosts)).map(|authority| authority.host().to_owned())
        };
        assert_eq!(host("/", &["a.example:80"]).as_deref(), Some("a.example"));
        assert_eq!(host("/", &["[::1]:8080"]).as_deref(), Some("[::1]"));
        assert_eq!(host("http://b.example/", &["a.example"]).as_deref(), Some("b.example"));
        assert_eq!(host("/", &["a.example", "b.example"]), None);
        assert_eq!(host("/", &[]), None);
        assert_eq!(host("/", &["a b"]), None);
    }
}
