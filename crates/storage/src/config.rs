//! Where the files go: the variables of the object store.

use http::Uri;
use polyglot_runtime::config::{ConfigError, Environment};
use polyglot_runtime::pem_files::authorities;
use polyglot_runtime::plaintext_hosts::PlaintextHosts;
use polyglot_runtime::reloadable::Reloadable;

/// Where the files go.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// `None`: AWS S3 itself.
    pub endpoint: Option<String>,
    /// What a presigned URL names; `None`: the same as `endpoint`.
    pub public_endpoint: Option<String>,
    pub bucket: String,
    /// Put before every object key; empty, or ends in `/`.
    pub prefix: String,
    pub region: Option<String>,
    /// Set only when a key comes from a `_FILE`; otherwise the AWS chain finds credentials by itself.
    pub static_credentials: Option<Reloadable<(String, String)>>,
    /// Authorities, in PEM, that are trusted beside those of the system.
    pub authorities: Option<String>,
    /// How the store is to encrypt what it is given; `None`: as the bucket is set up.
    pub encryption: Option<Encryption>,
}

/// Encryption at rest by the store (SSE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// With keys that are the store's own.
    StoreKeys,
    /// With a key of a key management service; `None`: its default key for the store.
    Kms { key_id: Option<String> },
}

impl Encryption {
    fn from_environment(env: &Environment) -> Result<Option<Self>, ConfigError> {
        let key_id = env.optional("S3_SSE_KMS_KEY_ID")?;
        match (env.optional("S3_SSE")?.as_deref(), key_id) {
            (None, None) => Ok(None),
            (Some("AES256"), None) => Ok(Some(Self::StoreKeys)),
            (Some("aws:kms"), key_id) => Ok(Some(Self::Kms { key_id })),
            (None | Some("AES256"), Some(_)) => Err(ConfigError::Problem {
                name: "S3_SSE_KMS_KEY_ID".to_owned(),
                problem: "it is used with S3_SSE=aws:kms alone; set that, or unset the key".to_owned(),
            }),
            (Some(other), _) => Err(ConfigError::Value {
                name: "S3_SSE".to_owned(),
                value: other.to_owned(),
                expected: "expected AES256 or aws:kms".to_owned(),
            }),
        }
    }
}

impl StorageConfig {
    /// What the environment says, or the defaults.
    ///
    /// # Errors
    /// Names the variable whose value cannot be used.
    pub fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let plaintext_hosts = PlaintextHosts::from_environment(env)?;
        let endpoint = |name: &str| -> Result<Option<String>, ConfigError> {
            let Some(value) = env.optional(name)? else { return Ok(None) };
            let parsed = value.parse::<Uri>().ok();
            let address =
                parsed.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host().filter(|host| !host.is_empty())?)));
            let Some((scheme @ ("http" | "https"), host)) = address else {
                return Err(ConfigError::Value {
                    name: name.to_owned(),
                    value,
                    expected: "expected http://host:port or https://host:port".to_owned(),
                });
            };
            if scheme == "http" && !plaintext_hosts.allows(host) {
                return Err(PlaintextHosts::refusal(name, host, "http", "use an address that begins with https://"));
            }
            Ok(Some(value.trim_end_matches('/').to_owned()))
        };
        let mut prefix = env.text("S3_PREFIX", "")?;
        if prefix.starts_with('/') {
            return Err(ConfigError::Value {
                name: "S3_PREFIX".to_owned(),
                value: prefix,
                expected: "expected a key prefix that does not begin with /".to_owned(),
            });
        }
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let (id, secret) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
        let static_credentials = if env.has_file(id) || env.has_file(secret) {
            let required = |name: &str| {
                env.optional(name)?.ok_or_else(|| ConfigError::Problem {
                    name: name.to_owned(),
                    problem: "required, because the other half of the key pair comes from a file".to_owned(),
                })
            };
            Some((required(id)?, required(secret)?).into())
        } else {
            None
        };
        Ok(Self {
            endpoint: endpoint("S3_ENDPOINT")?,
            public_endpoint: endpoint("S3_PUBLIC_ENDPOINT")?,
            bucket: env.text("S3_BUCKET", "exports")?,
            prefix,
            region: env.optional("AWS_REGION")?,
            static_credentials,
            authorities: authorities(env, "S3_CA_FILE")?,
            encryption: Encryption::from_environment(env)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_endpoint_is_named() {
        let env = Environment::fixed(&[("S3_ENDPOINT", "localhost:9000")]);
        let error = StorageConfig::from_environment(&env).err().unwrap().to_string();
        assert!(error.starts_with("S3_ENDPOINT: "), "{error}");
    }

    #[test]
    fn an_endpoint_on_another_machine_has_tls_unless_told() {
        let with = |name: &str, value: &str, plaintext_hosts: &str| {
            let env = Environment::fixed(&[(name, value), ("PLAINTEXT_HOSTS", plaintext_hosts)]);
            StorageConfig::from_environment(&env).map(|config| config.endpoint.or(config.public_endpoint))
        };
        for name in ["S3_ENDPOINT", "S3_PUBLIC_ENDPOINT"] {
            for url in ["http://localhost:4566", "http://127.0.0.1:9000", "http://[::1]:9000", "https://store:9000"] {
                assert_eq!(with(name, url, "").unwrap().as_deref(), Some(url));
            }
            for url in
                ["http://store:9000", "http://localhost@store", "http://localhost.example.com/", "HTTP://10.0.0.5"]
            {
                let error = with(name, url, "other").unwrap_err().to_string();
                assert!(
                    error.starts_with(&format!("{name}: connections to ")) && error.contains("https://"),
                    "{error}"
                );
            }
            assert!(with(name, "http://store:9000/", "store").is_ok());
            for url in ["http://", "https://:9000", "ftp://store", "http://a b", "store:9000", "/store"] {
                let error = with(name, url, "").unwrap_err().to_string();
                assert!(error.starts_with(&format!("{name}: expected http")), "{error}");
            }
        }
    }

    #[test]
    fn encryption_is_asked_for_by_its_name_on_the_wire() {
        let with = |variables: &[(&str, &str)]| {
            StorageConfig::from_environment(&Environment::fixed(variables)).map(|config| config.encryption)
        };
        assert_eq!(with(&[]).unwrap(), None);
        assert_eq!(with(&[("S3_SSE", "AES256")]).unwrap(), Some(Encryption::StoreKeys));
        assert_eq!(with(&[("S3_SSE", "aws:kms")]).unwrap(), Some(Encryption::Kms { key_id: None }));
        let key = ("S3_SSE_KMS_KEY_ID", "alias/exports");
        let with_key = Some(Encryption::Kms { key_id: Some("alias/exports".to_owned()) });
        assert_eq!(with(&[("S3_SSE", "aws:kms"), key]).unwrap(), with_key);
        for (variables, name) in [
            (&[("S3_SSE", "on")][..], "S3_SSE: "),
            (&[("S3_SSE", "aes256"), key], "S3_SSE: "),
            (&[("S3_SSE", "AES256"), key], "S3_SSE_KMS_KEY_ID: "),
            (&[key], "S3_SSE_KMS_KEY_ID: "),
        ] {
            let error = with(variables).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }

    #[test]
    fn the_default_bucket_is_named() {
        assert_eq!(StorageConfig::from_environment(&Environment::fixed(&[])).unwrap().bucket, "exports");
    }
}
