//! Settings of `devstack run` from the environment. All are checked here, before anything is started.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::listen;

/// The settings of `devstack run`.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// `LISTEN`: the address of the api and of the workers' metrics; this machine alone unless told.
    pub listen: IpAddr,
    /// `PORT`: the port of the api.
    pub port: u16,
    /// `API_METRICS_PORT`: the port of the api's metrics, where they have one of their own.
    pub api_metrics_port: Option<u16>,
    /// `ALLOWED_HOSTS`: hosts for which the api answers beside this machine's own names.
    pub allowed_hosts: Option<String>,
    /// `AUTH`, which the api reads: whether it is off.
    pub auth_is_off: bool,
    /// `BENCHMARK`: passed to the api.
    pub benchmark: String,
    /// `DOWNLOAD_MODE`: passed to the api.
    pub download_mode: Option<String>,
    /// `DATA_DIR`: the folder of everything that is kept between runs, as an absolute path.
    pub data_dir: PathBuf,
    /// `SEED_ROWS`: rows of the sample table when it is empty.
    pub seed_rows: u64,
    /// `WORKERS`: number of workers.
    pub workers: u16,
    /// `DATABASE_URL`: a server of the user's, in place of a private one.
    pub database_url: Option<String>,
    /// `SOURCE_DATABASE_URL`: passed to the services; that database is not seeded.
    pub source_database_url: Option<String>,
    pub broker: Broker,
    /// `S3_ENDPOINT` and its keys: a storage of the user's, in place of the embedded one.
    pub s3: Option<ExternalS3>,
    /// `S3_BUCKET`.
    pub bucket: String,
    /// `AWS_REGION`.
    pub region: String,
}

/// The broker that is used, by `AMQP_URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broker {
    /// A private one where RabbitMQ is installed: the variable is not set.
    Private,
    /// The user's broker.
    External(String),
    /// No broker: the variable is empty.
    Without,
}

/// An object store that the devstack does not run. Without keys the api and the workers find theirs as AWS clients do.
#[derive(Clone, Debug)]
pub struct ExternalS3 {
    pub endpoint: String,
    pub access_key: Option<String>,
    pub secret_key: Option<String>,
}

impl RunConfig {
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads the variables through `lookup`. An empty value counts as not set, except for `AMQP_URL`. Where a secret `NAME` is
    /// not set, the file that `NAME_FILE` names is read.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let vars = Variables { lookup };
        let data_dir = PathBuf::from(vars.text("DATA_DIR").unwrap_or_else(|| ".data".into()));
        let s3 = match vars.url("S3_ENDPOINT", &["http://", "https://"])? {
            None => None,
            Some(endpoint) => {
                let (access_key, secret_key) =
                    (vars.secret("AWS_ACCESS_KEY_ID")?, vars.secret("AWS_SECRET_ACCESS_KEY")?);
                match (&access_key, &secret_key) {
                    (Some(_), None) => {
                        return Err(Error::config("AWS_SECRET_ACCESS_KEY", "is missing; AWS_ACCESS_KEY_ID is set"));
                    }
                    (None, Some(_)) => {
                        return Err(Error::config("AWS_ACCESS_KEY_ID", "is missing; AWS_SECRET_ACCESS_KEY is set"));
                    }
                    _ => Some(ExternalS3 { endpoint, access_key, secret_key }),
                }
            }
        };
        let bucket = vars.text("S3_BUCKET").unwrap_or_else(|| "exports".into());
        let bucket_fits = (3..=63).contains(&bucket.len())
            && bucket
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
            && bucket.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !bucket_fits {
            let problem =
                format!("{bucket:?} is not a bucket name: 3 to 63 of a-z, 0-9, '-' and '.', a letter or digit first");
            return Err(Error::config("S3_BUCKET", problem));
        }
        for name in ["TLS_CERT_FILE", "TLS_KEY_FILE"] {
            if vars.text(name).is_some() {
                let problem =
                    "the api of the trial speaks HTTP: unset it, or start polyglot-api itself (docs/operations/tls.md)";
                return Err(Error::config(name, problem));
            }
        }
        let listen = match vars.text("LISTEN") {
            Some(text) => listen::parse(&text)?,
            None => Ipv4Addr::LOCALHOST.into(),
        };
        let api_metrics_port = vars.number("API_METRICS_PORT", 0, 1, u16::MAX.into())?;
        // The embedded store listens on the loopback address, to which a redirect would send clients on other machines.
        let download_mode = vars.text("DOWNLOAD_MODE");
        let proxy = (s3.is_none() && !listen.is_loopback()).then(|| "proxy".to_owned());
        Ok(Self {
            listen,
            port: vars.number("PORT", 8080, 1, u16::MAX.into())?,
            api_metrics_port: (api_metrics_port > 0).then_some(api_metrics_port),
            allowed_hosts: vars.secret("ALLOWED_HOSTS")?,
            auth_is_off: vars.text("AUTH").is_some_and(|auth| auth.starts_with("off")),
            benchmark: vars.text("BENCHMARK").unwrap_or_else(|| "on".into()),
            download_mode: download_mode.or(proxy),
            data_dir: std::path::absolute(&data_dir)
                .map_err(|error| Error::config("DATA_DIR", format!("{}: {error}", data_dir.display())))?,
            seed_rows: vars.number("SEED_ROWS", 1_000_000, 0, 10_000_000_000)?,
            workers: vars.number("WORKERS", 1, 1, 256)?,
            database_url: vars.url("DATABASE_URL", &["postgres://", "postgresql://"])?,
            source_database_url: vars.url("SOURCE_DATABASE_URL", &["postgres://", "postgresql://"])?,
            broker: match vars.url("AMQP_URL", &["amqp://", "amqps://"])? {
                Some(url) => Broker::External(url),
                None if vars.is_set("AMQP_URL") => Broker::Without,
                None => Broker::Private,
            },
            s3,
            bucket,
            region: vars.text("AWS_REGION").unwrap_or_else(|| "us-east-1".into()),
        })
    }
}

struct Variables<F> {
    lookup: F,
}

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// Whether the variable is set, even if it is empty.
    fn is_set(&self, name: &str) -> bool {
        (self.lookup)(name).is_some()
    }

    /// The value, or the content of the file that `NAME_FILE` names.
    fn secret(&self, name: &'static str) -> Result<Option<String>> {
        if let Some(value) = self.text(name) {
            return Ok(Some(value));
        }
        let Some(file) = self.text(&format!("{name}_FILE")) else { return Ok(None) };
        match fs::read_to_string(&file) {
            Ok(value) => Ok(Some(value.trim_end_matches(['\r', '\n']).to_owned())),
            Err(error) => Err(Error::config(name, format!("cannot read {file}, which {name}_FILE names: {error}"))),
        }
    }

    fn url(&self, name: &'static str, schemes: &[&str]) -> Result<Option<String>> {
        let value = self.secret(name)?;
        match &value {
            Some(url) if !schemes.iter().any(|scheme| url.starts_with(scheme) && url.len() > scheme.len()) => {
                // Without the value, which may have a password.
                Err(Error::config(name, format!("is not a URL that begins with {}", schemes.join(" or "))))
            }
            _ => Ok(value),
        }
    }

    fn number<T: TryFrom<u64>>(&self, name: &'static str, default: u64, least: u64, most: u64) -> Result<T> {
        let text = self.text(name);
        let value = match &text {
            None => Some(default),
            Some(text) => text.parse().ok().filter(|value| (least..=most).contains(value)),
        };
        value.and_then(|value| T::try_from(value).ok()).ok_or_else(|| {
            let text = text.unwrap_or_default();
            Error::config(name, format!("{text:?} is not a whole number from {least} to {most}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<RunConfig> {
        RunConfig::from_lookup(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn every_variable_has_a_default() {
        let config = with(&[("PORT", "")]).unwrap();
        assert_eq!((config.port, config.seed_rows, config.workers), (8080, 1_000_000, 1));
        assert_eq!(config.listen, IpAddr::from(Ipv4Addr::LOCALHOST));
        assert_eq!((config.api_metrics_port, config.allowed_hosts, config.download_mode), (None, None, None));
        assert_eq!(config.benchmark, "on");
        assert!(!config.auth_is_off && with(&[("AUTH", "off")]).unwrap().auth_is_off);
        assert!(config.data_dir.is_absolute() && config.data_dir.ends_with(".data"));
        assert!(config.database_url.is_none() && config.broker == Broker::Private && config.s3.is_none());
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        let cases = [
            ("PORT", "0"),
            ("PORT", "65536"),
            ("PORT", "http"),
            ("LISTEN", "localhost"),
            ("API_METRICS_PORT", "0"),
            ("SEED_ROWS", "-1"),
            ("SEED_ROWS", "1e6"),
            ("WORKERS", "0"),
            ("WORKERS", "two"),
            ("DATABASE_URL", "mysql://x"),
            ("SOURCE_DATABASE_URL", "x"),
            ("AMQP_URL", "http://x"),
            ("S3_ENDPOINT", "localhost:9000"),
            ("S3_BUCKET", "../etc"),
            ("S3_BUCKET", "A"),
            ("TLS_CERT_FILE", "/etc/cert.pem"),
        ];
        for (name, value) in cases {
            let message = with(&[(name, value)]).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{name}: ")), "{name}={value}: {message}");
        }
    }

    #[test]
    fn other_machines_get_files_from_the_embedded_store_through_the_api() {
        let mode = |pairs: &[(&str, &str)]| with(pairs).unwrap().download_mode;
        assert_eq!(mode(&[("LISTEN", "::1")]), None);
        assert_eq!(mode(&[("LISTEN", "0.0.0.0")]).as_deref(), Some("proxy"));
        assert_eq!(mode(&[("LISTEN", "0.0.0.0"), ("DOWNLOAD_MODE", "redirect")]).as_deref(), Some("redirect"));
        assert_eq!(mode(&[("LISTEN", "0.0.0.0"), ("S3_ENDPOINT", "http://store:9000")]), None);
    }

    #[test]
    fn a_broker_that_is_set_to_nothing_is_none() {
        assert_eq!(with(&[("AMQP_URL", "")]).unwrap().broker, Broker::Without);
    }

    #[test]
    fn a_password_is_not_shown() {
        let message = with(&[("DATABASE_URL", "pg://u:topsecret@h/d")]).unwrap_err().to_string();
        assert!(!message.contains("topsecret"), "{message}");
    }

    #[test]
    fn half_a_key_pair_is_refused() {
        let message = with(&[("S3_ENDPOINT", "http://h:1"), ("AWS_ACCESS_KEY_ID", "x")]).unwrap_err().to_string();
        assert!(message.starts_with("AWS_SECRET_ACCESS_KEY"), "{message}");
    }

    #[test]
    fn a_secret_may_come_from_a_file() {
        let dir = crate::scratch_dir::ScratchDir::new("config").unwrap();
        let file = dir.path().join("url");
        fs::write(&file, "amqp://u:p@h/%2f\n").unwrap();
        let config = with(&[("AMQP_URL_FILE", file.to_str().unwrap())]).unwrap();
        assert_eq!(config.broker, Broker::External("amqp://u:p@h/%2f".into()));
        let message = with(&[("AMQP_URL_FILE", "/no/such/file")]).unwrap_err().to_string();
        assert!(message.starts_with("AMQP_URL: ") && message.contains("/no/such/file"), "{message}");
    }
}
