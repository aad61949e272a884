//! Configuration of the api from environment variables. Those of the servers that it shares with the worker are in
//! `polyglot_ledger`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::client_address::TrustedProxies;
use crate::cors::CorsOrigins;
use crate::dataset_config::Datasets;
use crate::hosts::AllowedHosts;
use crate::identity::{AuthMode, JwtConfig};
use crate::tenant_limits::LimitsByTenant;
use polyglot_ledger::{Connections, audit_ttl, ledger_ttl};
use polyglot_runtime::config::{ConfigError, Environment};
use polyglot_runtime::quota::QuotaLimits;
use polyglot_runtime::tls::TlsCertificate;
use polyglot_source::mask::MaskKey;
use utoipa::ToSchema;

/// Upper bound of the time that a download waits for its export, by configuration or by a client's `Prefer: wait`.
pub(crate) const MAX_WAIT: Duration = Duration::from_mins(2);

/// The api's settings.
#[derive(Clone)]
pub struct Config {
    /// `LISTEN`: the address that is listened on, an unspecified one for all of the machine.
    pub listen: IpAddr,
    /// `PORT`.
    pub port: u16,
    /// `API_METRICS_PORT`: the port of a listener for the metrics alone; `None`: they are served on `port`.
    pub metrics_port: Option<u16>,
    /// `TLS_CERT_FILE` and `TLS_KEY_FILE`: the certificate of `port`, which serves TLS alone then.
    pub tls: Option<Arc<TlsCertificate>>,
    pub access: AccessConfig,
    pub download: DownloadConfig,
    /// `MAX_PARALLELISM`: largest `parallelism` that a request may ask for.
    pub max_parallelism: u16,
    /// `MAX_CONNECTIONS` and `MAX_CONNECTIONS_PER_PEER`. Other limits for clients are parts of them.
    pub max_connections: QuotaLimits,
    /// Datasets from the file in `DATASETS`.
    pub datasets: Datasets,
    /// What each tenant may have, from the file in `TENANT_LIMITS`.
    pub(crate) tenant_limits: LimitsByTenant,
    /// `MASK_KEY`: the key of masks that hash.
    pub mask_key: Option<MaskKey>,
    /// `LEDGER_TTL_DAYS`: time after its end for which the ledger remembers an export; `None`: for ever.
    pub ledger_ttl: Option<Duration>,
    /// `AUDIT_TTL_DAYS`: time for which the audit is kept; `None`: for ever.
    pub audit_ttl: Option<Duration>,
    pub connections: Connections,
}

/// Settings of who may request what.
#[derive(Debug, Clone, Default)]
pub struct AccessConfig {
    /// `AUTH`: whether clients have to say who they are.
    pub auth: AuthMode,
    /// `JWT_…`: whose tokens are accepted; `None`: API keys alone.
    pub(crate) jwt: Option<JwtConfig>,
    /// `SECURE_COOKIES`: whether browsers are to send the page's cookie over TLS alone.
    pub secure_cookies: bool,
    /// `TRUSTED_PROXIES`: the proxies that say who their clients are.
    pub trusted_proxies: TrustedProxies,
    /// `ALLOWED_HOSTS`: the hosts that requests may name.
    pub allowed_hosts: AllowedHosts,
    /// `CORS_ORIGINS`: the pages of other origins that may use the service.
    pub cors: CorsOrigins,
    /// `BENCHMARK`: whether `GET /exports/benchmark` runs.
    pub benchmark: bool,
}

/// Settings of downloads.
#[derive(Debug, Clone, Copy)]
pub struct DownloadConfig {
    /// `DOWNLOAD_MODE`: delivery for requests that do not choose one.
    pub delivery: Delivery,
    /// `DOWNLOAD_WAIT_MS`: time that a download waits for its export to end.
    pub wait: Duration,
    /// `PRESIGN_TTL_SECONDS`: lifetime of presigned URLs.
    pub presign_ttl: Duration,
}

/// Who sends the bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Delivery {
    /// The object store, after a redirect to a presigned URL.
    Redirect,
    /// The api, which passes the object through.
    Proxy,
}

impl Delivery {
    pub(crate) const ALL: [(&'static str, Self); 2] = [("redirect", Self::Redirect), ("proxy", Self::Proxy)];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Proxy => "proxy",
        }
    }
}

/// Returns the address on which the api answers `GET /health` without TLS: the listener for the metrics if there is one.
///
/// # Errors
/// Names the variable whose value cannot be used, or that is missing.
pub fn health_address(env: &Environment) -> Result<SocketAddr, ConfigError> {
    let port = match env.number("API_METRICS_PORT", 0_u16, 1..=65535, "TCP port")? {
        0 if env.optional("TLS_CERT_FILE")?.is_some() => {
            return Err(ConfigError::Problem {
                name: "API_METRICS_PORT".to_owned(),
                problem: "not set, and PORT serves TLS alone, which the health check does not speak; set it".to_owned(),
            });
        }
        0 => env.number("PORT", 8080, 1..=65535, "TCP port")?,
        metrics_port => metrics_port,
    };
    Ok(SocketAddr::new(env.listen_address()?, port))
}

impl Config {
    /// # Errors
    /// For the first variable whose value cannot be used.
    pub fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let max_wait = MAX_WAIT.as_secs() * 1000;
        let wait = env.number("DOWNLOAD_WAIT_MS", 25_000, 0..=max_wait, "milliseconds")?;
        // Seven days is the limit of S3's own signatures.
        let presign_ttl = env.number("PRESIGN_TTL_SECONDS", 900, 1..=604_800, "seconds")?;
        let total = env.number("MAX_CONNECTIONS", 1024_usize, 16..=65_536, "connections")?;
        // As a rule half of what there is.
        let per_peer = env.number("MAX_CONNECTIONS_PER_PEER", total.div_ceil(2), 1..=total, "connections")?;
        let port = env.number("PORT", 8080, 1..=65535, "TCP port")?;
        let metrics_port = env.number("API_METRICS_PORT", 0_u16, 1..=65535, "TCP port")?;
        if metrics_port == port {
            return Err(ConfigError::Problem {
                name: "API_METRICS_PORT".to_owned(),
                problem: format!(
                    "{port} is the PORT already; choose another, or leave it unset to serve metrics there"
                ),
            });
        }
        let listen = env.listen_address()?;
        let auth = AuthMode::from_environment(env, listen)?;
        let mut allowed_hosts = AllowedHosts::from_environment(env)?;
        // A page of any site could give this machine a name of its own and would then be asked for nothing.
        if auth == AuthMode::Off && allowed_hosts.is_any() {
            allowed_hosts = AllowedHosts::of_this_machine(listen);
        }
        let tls = TlsCertificate::from_environment(env)?;
        let secure_cookies = env.choice("SECURE_COOKIES", tls.is_some(), &[("on", true), ("off", false)])?;
        let (datasets, mask_key) = (Datasets::from_environment(env)?, MaskKey::from_environment(env)?);
        if let (Some(name), None) = (datasets.first_that_needs_mask_key(), &mask_key) {
            return Err(ConfigError::Problem {
                name: "MASK_KEY".to_owned(),
                problem: format!(
                    "the dataset {name:?} of DATASETS has a mask \"hash\", which needs a key; make one with: openssl rand -hex 32, and \
                     give every api and worker the same"
                ),
            });
        }
        Ok(Self {
            listen,
            port,
            metrics_port: (metrics_port > 0).then_some(metrics_port),
            tls,
            access: AccessConfig {
                auth,
                jwt: JwtConfig::from_environment(env)?,
                secure_cookies,
                trusted_proxies: TrustedProxies::from_environment(env)?,
                allowed_hosts,
                cors: CorsOrigins::from_environment(env)?,
                benchmark: env.choice("BENCHMARK", false, &[("on", true), ("off", false)])?,
            },
            download: DownloadConfig {
                delivery: env.choice("DOWNLOAD_MODE", Delivery::Redirect, &Delivery::ALL)?,
                wait: Duration::from_millis(wait),
                presign_ttl: Duration::from_secs(presign_ttl),
            },
            max_parallelism: env.max_parallelism()?,
            max_connections: QuotaLimits { total, per_peer },
            tenant_limits: LimitsByTenant::from_environment(env)?,
            datasets,
            mask_key,
            ledger_ttl: ledger_ttl(env)?,
            audit_ttl: audit_ttl(env)?,
            connections: Connections::from_environment(env)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = Config::from_environment(&Environment::fixed(&[])).unwrap();
        assert_eq!((config.listen, config.port), (Ipv4Addr::UNSPECIFIED.into(), 8080));
        assert_eq!(config.metrics_port, None);
        assert!(config.access.allowed_hosts.is_any() && config.access.cors == CorsOrigins::None);
        assert!(!config.access.benchmark && !config.access.secure_cookies);
        assert_eq!(config.access.auth, AuthMode::On);
        assert_eq!(config.download.delivery, Delivery::Redirect);
        assert_eq!(config.download.wait, Duration::from_secs(25));
        assert_eq!(config.download.presign_ttl, Duration::from_mins(15));
        assert_eq!(config.max_parallelism, 16);
        assert_eq!(config.max_connections, QuotaLimits { total: 1024, per_peer: 512 });
        assert_eq!(config.datasets.entries().len(), 1);
    }

    #[test]
    fn the_health_check_asks_the_listener_without_tls() {
        let address = |variables: &[(&str, &str)]| {
            health_address(&Environment::fixed(variables)).map(|address| address.to_string())
        };
        assert_eq!(address(&[]).unwrap(), "0.0.0.0:8080");
        assert_eq!(address(&[("PORT", "81"), ("LISTEN", "::1")]).unwrap(), "[::1]:81");
        let tls = ("TLS_CERT_FILE", "/etc/polyglot/tls.crt");
        assert_eq!(address(&[tls, ("API_METRICS_PORT", "9465")]).unwrap(), "0.0.0.0:9465");
        let error = address(&[tls]).unwrap_err().to_string();
        assert!(error.starts_with("API_METRICS_PORT: not set"), "{error}");
    }

    #[test]
    fn every_bad_value_names_its_variable() {
        for (name, value) in [
            ("PORT", "0"),
            ("PORT", "http"),
            ("PORT", "65536"),
            ("LISTEN", "eth0"),
            ("LISTEN", "127.0.0.1:8080"),
            ("API_METRICS_PORT", "0"),
            ("TLS_KEY_FILE", "/nowhere/key.pem"),
            ("API_METRICS_PORT", "8080"),
            ("ALLOWED_HOSTS", "http://example.com"),
            ("CORS_ORIGINS", "example.com"),
            ("BENCHMARK", "yes"),
            ("AUTH", "off"),
            ("TRUSTED_PROXIES", "proxy"),
            ("AUDIT_TTL_DAYS", "-1"),
            ("AUTH", "none"),
            ("SECURE_COOKIES", "yes"),
            ("DOWNLOAD_MODE", "stream"),
            ("DOWNLOAD_WAIT_MS", "120001"),
            ("DOWNLOAD_WAIT_MS", "-1"),
            ("PRESIGN_TTL_SECONDS", "0"),
            ("PRESIGN_TTL_SECONDS", "604801"),
            ("MAX_PARALLELISM", "0"),
            ("MAX_PARALLELISM", "1001"),
            ("MAX_CONNECTIONS", "15"),
            ("MAX_CONNECTIONS", "65537"),
            ("MAX_CONNECTIONS_PER_PEER", "1025"),
            ("LEDGER_TTL_DAYS", "36501"),
            ("DATASETS", "/nowhere/datasets.toml"),
            ("TENANT_LIMITS", "/nowhere/limits.toml"),
            ("DATABASE_URL", "mysql://x"),
            ("SOURCE_ALLOW_PRIVILEGED", "yes"),
            ("AMQP_URL", "http://x"),
            ("MASK_KEY", "too short"),
            ("S3_ENDPOINT", "localhost"),
        ] {
            let error = Config::from_environment(&Environment::fixed(&[(name, value)])).err();
            let error = error.unwrap_or_else(|| panic!("{name}={value} was taken")).to_string();
            // The one that is missing is named.
            let name = if name == "TLS_KEY_FILE" { "TLS_CERT_FILE" } else { name };
            assert!(error.starts_with(&format!("{name}: ")), "{error}");
        }
    }
}
