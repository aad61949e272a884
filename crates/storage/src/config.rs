//! Where the files go: the variables of the object store.

use polyglot_runtime::config::{ConfigError, Environment};

/// Where the files go.
#[derive(Clone)]
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
    pub static_credentials: Option<(String, String)>,
}

impl StorageConfig {
    /// What the environment says, or the defaults.
    ///
    /// # Errors
    /// Names the variable whose value cannot be used.
    pub fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let endpoint = |name: &str| -> Result<Option<String>, ConfigError> {
            let Some(value) = env.optional(name)? else { return Ok(None) };
            let rest = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
            if rest.is_none_or(|host| host.is_empty() || host.contains(char::is_whitespace)) {
                return Err(ConfigError::Value {
                    name: name.to_owned(),
                    value,
                    expected: "expected http://host:port or https://host:port".to_owned(),
                });
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
            Some((required(id)?, required(secret)?))
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
    fn the_default_bucket_is_named() {
        assert_eq!(StorageConfig::from_environment(&Environment::fixed(&[])).unwrap().bucket, "exports");
    }
}
