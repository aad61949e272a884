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

/// The address of a broker. Its text may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    url: String,
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
        let url = env.url(URL, "amqp://guest:guest@localhost:5672/%2f", str::parse::<AMQPUri>)?;
        let AMQPUri { scheme, authority, .. } =
            url.parse().map_err(|problem| ConfigError::Problem { name: URL.to_owned(), problem })?;
        let authorities = authorities(env, CA_FILE)?;
        let certificate = ClientCertificate::from_environment(env, CERT_FILE, KEY_FILE)?;
        if scheme == AMQPScheme::AMQP {
            let host = &authority.host;
            if !PlaintextHosts::from_environment(env)?.allows(host) {
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
        Ok(Some(Self { url, authorities, certificate }))
    }

    /// What must stay the same while the process runs: host, port and virtual host.
    pub(crate) fn place(&self) -> Option<(String, u16, String)> {
        let AMQPUri { authority, vhost, .. } = self.url.parse().ok()?;
        Some((authority.host, authority.port, vhost))
    }

    /// What a connection takes.
    pub(crate) fn parts(&self) -> Result<(AMQPUri, OwnedTLSConfig), String> {
        let identity = self.certificate.as_ref().map(|ClientCertificate { certificates, key }| OwnedIdentity::PKCS8 {
            pem: certificates.clone(),
            key: key.clone(),
        });
        Ok((self.url.parse()?, OwnedTLSConfig { identity, cert_chain: self.authorities.clone() }))
    }
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
            assert_eq!(with(url, "").unwrap().unwrap().url, url);
        }
        let url = "amqp://u:hunter2@broker:5672/%2f";
        let error = with(url, "").err().unwrap().to_string();
        assert!(error.starts_with("AMQP_URL: connections to \"broker\" would not be verified"), "{error}");
        assert!(error.contains("amqps://") && !error.contains("hunter2"), "{error}");
        assert_eq!(with(url, "broker").unwrap().unwrap().url, url);
    }

    #[test]
    fn files_that_would_not_be_used_are_refused() {
        let error = with(&[(CA_FILE, "/nowhere/ca.pem")]).err().unwrap().to_string();
        assert!(error.starts_with("AMQP_CA_FILE: ") && error.contains("cannot be read"), "{error}");
        let error = with(&[(CERT_FILE, "/nowhere/cert.pem")]).err().unwrap().to_string();
        assert!(error.starts_with("AMQP_KEY_FILE: set it as well"), "{error}");
    }
}
