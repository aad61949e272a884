//! `TLS_CERT_FILE` and `TLS_KEY_FILE`: the certificate of a listener, and reading it again when its files change, so that a
//! renewed certificate needs no restart. A pair that cannot be used changes nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polyglot_core::failure::chain;
use rustls::ServerConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{ConfigError, Environment};
use crate::pem_files::{PemError, PemFiles, PemPair};

const CERT_FILE: &str = "TLS_CERT_FILE";
const KEY_FILE: &str = "TLS_KEY_FILE";

/// Time between two looks at the files.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The protocol of the connections. A client that wants only others is refused in the handshake.
const HTTP_1_1: &[u8] = b"http/1.1";

/// TLS 1.2 and 1.3 with the certificate of `pair`.
fn server_config(files: &PemFiles, pair: &PemPair) -> Result<Arc<ServerConfig>, PemError> {
    let (chain, key) = files.parse(pair)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(Arc::new(config))
}

/// The certificate of a listener and its key.
pub struct TlsCertificate {
    files: PemFiles,
    current: Mutex<Arc<ServerConfig>>,
    /// What was in the files when they were last read, whether it could be used or not; `None` if they could not be read.
    last_read: Mutex<Option<PemPair>>,
}

impl TlsCertificate {
    /// Reads the files that the variables name; `None` if neither is set.
    ///
    /// # Errors
    /// If only one is set, or the files are no certificate and its key.
    pub fn from_environment(env: &Environment) -> Result<Option<Arc<Self>>, ConfigError> {
        let Some(files) = PemFiles::from_environment(env, CERT_FILE, KEY_FILE)? else { return Ok(None) };
        let pair = files.read().map_err(|error| files.problem(&error))?;
        let current = Mutex::new(server_config(&files, &pair).map_err(|error| files.problem(&error))?);
        Ok(Some(Arc::new(Self { files, current, last_read: Mutex::new(Some(pair)) })))
    }

    /// The present configuration, for one handshake.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        // Nothing panics while it is locked.
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again every few seconds, and on SIGHUP, until `stopping`.
    pub async fn reload_on_change(self: Arc<Self>, stopping: CancellationToken) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => Some(hangup),
            Err(error) => {
                tracing::warn!(error = chain(&error), "SIGHUP cannot be handled; the certificate is still polled");
                None
            }
        };
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                _ = asked => {}
                () = stopping.cancelled() => return,
            }
            let this = Arc::clone(&self);
            // Neither reading files nor checking a key should hold up requests.
            let Ok(()) = tokio::task::spawn_blocking(move || this.reload()).await else { return };
        }
    }

    /// Takes the files' content if it has changed and can be used. A pair of which only one file has been replaced so far is
    /// refused, and taken when the other one follows.
    fn reload(&self) {
        let read = self.files.read();
        let mut last_read = self.last_read.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = match (&read, last_read.as_ref()) {
            (Ok(pair), Some(last)) => pair != last,
            (Err(_), None) => false,
            _ => true,
        };
        if !is_new {
            return;
        }
        let (pair, config) = match read {
            Ok(pair) => {
                let config = server_config(&self.files, &pair);
                (Some(pair), config)
            }
            Err(error) => (None, Err(error)),
        };
        *last_read = pair;
        match config {
            Ok(config) => {
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = config;
                tracing::info!("the TLS certificate was replaced");
            }
            Err(error) => tracing::error!(
                variable = self.files.variable(&error),
                error = chain(&error),
                "the new TLS certificate or key cannot be used; the ones before stay in use"
            ),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use rcgen::generate_simple_self_signed;
    use rustls::pki_types::CertificateDer;

    use super::*;

    /// Two files with a new certificate for `localhost`, which a client can be told to trust.
    pub(crate) fn write_pair(folder: &Path) -> CertificateDer<'static> {
        let pair = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("cert.pem"), pair.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
        pair.cert.der().clone()
    }

    pub(crate) fn from_folder(folder: &Path) -> Result<Option<Arc<TlsCertificate>>, ConfigError> {
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let variables = [(CERT_FILE, cert.to_str().unwrap()), (KEY_FILE, key.to_str().unwrap())];
        TlsCertificate::from_environment(&Environment::fixed(&variables))
    }

    #[test]
    fn both_files_are_needed_or_neither() {
        assert!(TlsCertificate::from_environment(&Environment::fixed(&[])).unwrap().is_none());
        for (set, missing) in [(CERT_FILE, KEY_FILE), (KEY_FILE, CERT_FILE)] {
            let error =
                TlsCertificate::from_environment(&Environment::fixed(&[(set, "/x")])).err().unwrap().to_string();
            assert!(error.starts_with(&format!("{missing}: set it as well")) && error.contains(set), "{error}");
        }
    }

    #[test]
    fn files_that_are_no_pair_are_refused_by_name_and_without_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let refused = |variable: &str, words: &str| {
            let error = from_folder(folder.path()).err().unwrap().to_string();
            assert!(error.starts_with(&format!("{variable}: ")) && error.contains(words), "{error}");
            assert!(!error.contains("secret"), "{error}");
        };
        refused(CERT_FILE, "cannot be read");
        write_pair(folder.path());
        assert!(from_folder(folder.path()).unwrap().is_some());
        std::fs::remove_file(&key).unwrap();
        refused(KEY_FILE, "cannot be read");
        const NO_KEY: &str = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n";
        for (bad, words) in [("", "no private key"), ("secret", "no private key"), (NO_KEY, "not supported")] {
            std::fs::write(&key, bad).unwrap();
            refused(KEY_FILE, words);
        }
        // The key of another certificate.
        let other = tempfile::tempdir().unwrap();
        write_pair(other.path());
        std::fs::copy(other.path().join("key.pem"), &key).unwrap();
        refused(KEY_FILE, "not that of the certificate");
        std::fs::write(&cert, std::fs::read(&key).unwrap()).unwrap();
        refused(CERT_FILE, "no certificate");
    }

    #[test]
    fn a_new_pair_is_taken_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        write_pair(folder.path());
        let certificate = from_folder(folder.path()).unwrap().unwrap();
        let first = certificate.config();
        let is_first = || Arc::ptr_eq(&certificate.config(), &first);
        certificate.reload();
        assert!(is_first(), "nothing has changed");
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let old_key = std::fs::read(&key).unwrap();
        // Half of a new pair, no key, no files.
        write_pair(folder.path());
        let new_key = std::fs::read(&key).unwrap();
        for content in [&old_key[..], b"x"] {
            std::fs::write(&key, content).unwrap();
            certificate.reload();
            assert!(is_first());
        }
        std::fs::remove_file(&key).unwrap();
        certificate.reload();
        certificate.reload();
        assert!(is_first());
        std::fs::write(&key, new_key).unwrap();
        certificate.reload();
        assert!(!is_first());
        let second = certificate.config();
        std::fs::remove_file(&cert).unwrap();
        certificate.reload();
        assert!(Arc::ptr_eq(&certificate.config(), &second));
    }
}
