//! `AMQP_URL` and the files for its TLS: where the broker is, and how it and this process are verified.

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use polyglot_runtime::config::{ConfigError, Environment};
use polyglot_runtime::pem_files::{ClientCertificate, authorities};
use polyglot_runtime::plaintext_hosts::PlaintextHosts;

const URL: &str = "AMQP_URL";
const CA_FILE: &str = "AMQP_CA_FILE";
const CERT_FILE: &str = "AMQP_CERT_FILE";
const KEY_FILE: &str = "AMQP_KEY_FILE";

/// The address of a broker: of one server, or of each node of a cluster. Its text may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// One for each host, at least one.
    urls: Vec<String>,
    /// Authorities, in PEM, that are trusted beside those of the system.
    authorities: Option<String>,
    certificate: Option<ClientCertificate>,
}

impl BrokerAddress {
    /// Reads the variables; `None` if `AMQP_URL` is set to nothing.
    ///
    /// # Errors
    /// Names the variable whose value cannot be used, without the URL.
    pub(crate) fn from_environment(env: &Environment) -> Result<Option<Self>, ConfigError> {
        if env.is_empty(URL) {
            return Ok(None);
        }
        let url = env.url(URL, "amqp://guest:guest@localhost:5672/%2f", uris)?;
        let uris = uris(&url).map_err(|problem| ConfigError::Problem { name: URL.to_owned(), problem })?;
        let authorities = authorities(env, CA_FILE)?;
        let certificate = ClientCertificate::from_environment(env, CERT_FILE, KEY_FILE)?;
        if uris.iter().any(|(_, uri)| uri.scheme == AMQPScheme::AMQP) {
            let plaintext_hosts = PlaintextHosts::from_environment(env)?;
            if let Some((_, uri)) = uris.iter().find(|(_, uri)| !plaintext_hosts.allows(&uri.authority.host)) {
                let host = &uri.authority.host;
                return Err(PlaintextHosts::refusal(URL, host, "amqp", "use an address that begins with amqps://"));
            }
            let unused = [(CA_FILE, authorities.is_some()), (CERT_FILE, certificate.is_some())];
            if let Some((name, _)) = unused.into_iter().find(|(_, is_set)| *is_set) {
                return Err(ConfigError::Problem {
                    name: name.to_owned(),
                    problem: format!(
                        "it is used with an {URL} that begins with amqps:// alone; change that, or unset it"
                    ),
                });
            }
        }
        Ok(Some(Self { urls: uris.into_iter().map(|(url, _)| url).collect(), authorities, certificate }))
    }

    /// What must stay the same while the process runs: hosts, ports and virtual host.
    pub(crate) fn places(&self) -> Vec<(String, u16, String)> {
        let uris = self.urls.iter().filter_map(|url| url.parse().ok());
        uris.map(|AMQPUri { authority, vhost, .. }| (authority.host, authority.port, vhost)).collect()
    }

    /// What a connection to each host takes.
    pub(crate) fn parts(&self) -> Result<(Vec<AMQPUri>, OwnedTLSConfig), String> {
        let identity = self.certificate.as_ref().map(|ClientCertificate { certificates, key }| OwnedIdentity::PKCS8 {
            pem: certificates.clone(),
            key: key.clone(),
        });
        let uris = self.urls.iter().map(|url| url.parse()).collect::<Result<_, _>>()?;
        Ok((uris, OwnedTLSConfig { identity, cert_chain: self.authorities.clone() }))
    }
}

/// The address of each host in a URL that may have several of them, as `amqp://user:password@one:5672,other:5672/%2f`.
fn uris(url: &str) -> Result<Vec<(String, AMQPUri)>, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    if !hosts.contains(',') {
        return Ok(vec![(url.to_owned(), url.parse()?)]);
    }
    let uri = |host: &str| {
        if host.is_empty() || host.starts_with(':') {
            return Err("a host between commas is empty".to_owned());
        }
        let url = format!("{scheme}://{user}{host}{path}");
        let uri = url.parse()?;
        Ok((url, uri))
    };
    hosts.split(',').map(uri).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Option<BrokerAddress>, ConfigError> {
        BrokerAddress::from_environment(&Environment::fixed(variables))
    }

    #[test]
    fn a_broker_that_is_set_to_nothing_is_none() {
        assert!(with(&[(URL, "")]).unwrap().is_none());
        assert!(with(&[]).unwrap().is_some());
        let error = with(&[(URL, ""), ("AMQP_URL_FILE", "/nowhere")]).err().unwrap().to_string();
        assert!(error.starts_with("AMQP_URL_FILE: "), "{error}");
    }

    #[test]
    fn a_broker_on_another_machine_has_tls_unless_told() {
        let with = |url: &str, plaintext_hosts: &str| with(&[(URL, url), ("PLAINTEXT_HOSTS", plaintext_hosts)]);
        for url in ["amqp://u:p@localhost", "amqp://127.0.0.1:5672/%2f", "amqp://[::1]", "amqps://broker/%2f"] {
            assert_eq!(with(url, "").unwrap().unwrap().urls, [url]);
        }
        let url = "amqp://u:hunter2@broker:5672/%2f";
        let error = with(url, "").err().unwrap().to_string();
        assert!(error.starts_with("AMQP_URL: connections to \"broker\" would not be verified"), "{error}");
        assert!(error.contains("amqps://") && !error.contains("hunter2"), "{error}");
        assert_eq!(with(url, "broker").unwrap().unwrap().urls, [url]);
    }

    #[test]
    fn each_node_of_a_cluster_has_an_address() {
        let urls = |url: &str| with(&[(URL, url), ("PLAINTEXT_HOSTS", "one,two")]).map(|broker| broker.unwrap().urls);
        let nodes = urls("amqp://u:p@one:5672,two,[::1]:5673/%2f?heartbeat=5").unwrap();
        let expected = ["one:5672", "two", "[::1]:5673"].map(|host| format!("amqp://u:p@{host}/%2f?heartbeat=5"));
        assert_eq!(nodes, expected);
        assert_eq!(urls("amqp://one,two").unwrap(), ["amqp://one", "amqp://two"]);
        // Each host counts.
        let error = urls("amqp://u:hunter2@one,three:5672/%2f").unwrap_err().to_string();
        assert!(error.contains("\"three\"") && !error.contains("hunter2"), "{error}");
        for url in ["amqp://one,/%2f", "amqp://u:p@,two", "amqp://one,:5672,two", "amqp://one,two:port"] {
            let error = urls(url).unwrap_err().to_string();
            assert!(error.starts_with("AMQP_URL: not a usable URL"), "{url}: {error}");
        }
    }

    #[test]
    fn files_that_would_not_be_used_are_refused() {
        let error = with(&[(CA_FILE, "/nowhere/ca.pem")]).err().unwrap().to_string();
        assert!(error.starts_with("AMQP_CA_FILE: ") && error.contains("cannot be read"), "{error}");
        let error = with(&[(CERT_FILE, "/nowhere/cert.pem")]).err().unwrap().to_string();
        assert!(error.starts_with("AMQP_KEY_FILE: set it as well"), "{error}");
    }
}
