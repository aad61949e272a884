//! Certificates in PEM files that variables name: those of a listener or of a client with the private key, and those of
//! authorities that sign the certificates of servers.

use std::path::PathBuf;

use polyglot_core::failure::chain;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{ConfigError, Environment};

/// Why a pair of files cannot be used. It holds nothing of the private key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PemError {
    #[error("{path:?} cannot be read", path = .0)]
    ReadCertificate(PathBuf, #[source] std::io::Error),
    #[error("{path:?} cannot be read", path = .0)]
    ReadKey(PathBuf, #[source] std::io::Error),
    #[error("{path:?} holds no certificate in PEM", path = .0)]
    Certificate(PathBuf),
    #[error("{path:?} holds no private key in PEM", path = .0)]
    Key(PathBuf),
    #[error("the key is not that of the certificate, or of a type that is not supported")]
    Pair(#[from] rustls::Error),
}

/// The content of the two files.
#[derive(PartialEq, Eq)]
pub(crate) struct PemPair {
    certificates: Vec<u8>,
    key: Vec<u8>,
}

/// A file with a certificate, which those of its authorities may follow, and one with its key.
pub(crate) struct PemFiles {
    certificate: PathBuf,
    key: PathBuf,
    certificate_variable: &'static str,
    key_variable: &'static str,
}

impl PemFiles {
    /// The files that the two variables name; `None` if neither is set.
    pub(crate) fn from_environment(
        env: &Environment,
        certificate_variable: &'static str,
        key_variable: &'static str,
    ) -> Result<Option<Self>, ConfigError> {
        let missing = |name: &str, other: &str| ConfigError::Problem {
            name: name.to_owned(),
            problem: format!("set it as well, or unset {other}; TLS needs both"),
        };
        match (env.optional(certificate_variable)?, env.optional(key_variable)?) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(missing(key_variable, certificate_variable)),
            (None, Some(_)) => Err(missing(certificate_variable, key_variable)),
            (Some(certificate), Some(key)) => {
                Ok(Some(Self { certificate: certificate.into(), key: key.into(), certificate_variable, key_variable }))
            }
        }
    }

    pub(crate) fn read(&self) -> Result<PemPair, PemError> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| (path.clone(), error));
        Ok(PemPair {
            certificates: read(&self.certificate).map_err(|(path, error)| PemError::ReadCertificate(path, error))?,
            key: read(&self.key).map_err(|(path, error)| PemError::ReadKey(path, error))?,
        })
    }

    /// The certificate with the chain that follows it in the file, and its key.
    pub(crate) fn parse(
        &self,
        pair: &PemPair,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PemError> {
        let chain = certificates(&pair.certificates).ok_or_else(|| PemError::Certificate(self.certificate.clone()))?;
        // The reason is left out: it could quote the file.
        let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|_| PemError::Key(self.key.clone()))?;
        Ok((chain, key))
    }

    /// The variable to which the error belongs.
    pub(crate) fn variable(&self, error: &PemError) -> &'static str {
        match error {
            PemError::ReadCertificate(..) | PemError::Certificate(_) => self.certificate_variable,
            PemError::ReadKey(..) | PemError::Key(_) | PemError::Pair(_) => self.key_variable,
        }
    }

    pub(crate) fn problem(&self, error: &PemError) -> ConfigError {
        ConfigError::Problem { name: self.variable(error).to_owned(), problem: chain(error) }
    }
}

/// The certificates of a text in PEM; `None` if there are none, or one is broken.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()?;
    (!certificates.is_empty()).then_some(certificates)
}

/// A certificate by which this process tells a server who it is, and its key, both in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    pub certificates: Vec<u8>,
    pub key: Vec<u8>,
}

impl ClientCertificate {
    /// Reads the files that the two variables name; `None` if neither is set.
    ///
    /// # Errors
    /// If only one is set, or the files are no certificate and its key.
    pub fn from_environment(
        env: &Environment,
        certificate_variable: &'static str,
        key_variable: &'static str,
    ) -> Result<Option<Self>, ConfigError> {
        let Some(files) = PemFiles::from_environment(env, certificate_variable, key_variable)? else {
            return Ok(None);
        };
        let pair = files.read().map_err(|error| files.problem(&error))?;
        let (chain, key) = files.parse(&pair).map_err(|error| files.problem(&error))?;
        // The client that is made compares the two, and nothing else looks at a key before it is used.
        ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_root_certificates(RootCertStore::empty()).with_client_auth_cert(chain, key))
            .map_err(|error| files.problem(&error.into()))?;
        Ok(Some(Self { certificates: pair.certificates, key: pair.key }))
    }
}

/// The certificates, in PEM, of the file that the variable `name` has: authorities that are trusted beside those of the system.
///
/// # Errors
/// If the file cannot be read, or holds anything but certificates that can be trusted.
pub fn authorities(env: &Environment, name: &str) -> Result<Option<String>, ConfigError> {
    let Some(path) = env.optional(name)? else { return Ok(None) };
    let problem = |problem: String| ConfigError::Problem { name: name.to_owned(), problem };
    let pem = std::fs::read_to_string(&path)
        .map_err(|error| problem(format!("{path:?} cannot be read: {}", chain(&error))))?;
    let certificates =
        certificates(pem.as_bytes()).ok_or_else(|| problem(format!("{path:?} holds no certificate in PEM")))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| problem(format!("{path:?} holds a certificate that cannot be used: {}", chain(&error))))?;
    }
    Ok(Some(pem))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::tls::tests::write_pair;

    fn with(name: &str, path: &Path) -> Result<Option<String>, ConfigError> {
        authorities(&Environment::fixed(&[(name, path.to_str().unwrap())]), name)
    }

    #[test]
    fn authorities_are_certificates() {
        let folder = tempfile::tempdir().unwrap();
        write_pair(folder.path());
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        assert_eq!(with("X_CA_FILE", &cert).unwrap().unwrap(), std::fs::read_to_string(&cert).unwrap());
        for (path, words) in [(folder.path().join("none"), "cannot be read"), (key, "no certificate")] {
            let error = with("X_CA_FILE", &path).unwrap_err().to_string();
            assert!(error.starts_with("X_CA_FILE: ") && error.contains(words), "{error}");
        }
        std::fs::write(&cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let error = with("X_CA_FILE", &cert).unwrap_err().to_string();
        assert!(error.contains("cannot be used"), "{error}");
        assert!(authorities(&Environment::fixed(&[]), "X_CA_FILE").unwrap().is_none());
    }

    #[test]
    fn a_client_certificate_is_one_with_its_key() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_pair(folder.path());
        write_pair(other.path());
        let of = |cert: &Path, key: &Path| {
            let paths = [("C", cert.join("cert.pem")), ("K", key.join("key.pem"))];
            let variables = paths.each_ref().map(|(name, path)| (*name, path.to_str().unwrap()));
            ClientCertificate::from_environment(&Environment::fixed(&variables), "C", "K")
        };
        assert!(of(folder.path(), folder.path()).unwrap().is_some());
        let error = of(folder.path(), other.path()).err().unwrap().to_string();
        assert!(error.starts_with("K: ") && error.contains("not that of the certificate"), "{error}");
        let error = ClientCertificate::from_environment(&Environment::fixed(&[("C", "/x")]), "C", "K").err().unwrap();
        assert!(error.to_string().starts_with("K: set it as well"), "{error}");
    }
}
