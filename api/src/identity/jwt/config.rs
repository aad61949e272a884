//! `JWT_…`: whose tokens are accepted, and what their claims mean.

use axum::http::Uri;
use chrono::TimeDelta;
use polyglot_runtime::config::{ConfigError, Environment};
use polyglot_runtime::plaintext_hosts::is_local;

use super::algorithm::Algorithm;

/// The variables that mean nothing without `JWT_ISSUER`.
const OTHERS: [&str; 6] =
    ["JWT_AUDIENCE", "JWT_JWKS_URL", "JWT_ALGORITHMS", "JWT_TENANT_CLAIM", "JWT_SCOPE_CLAIM", "JWT_LEEWAY_SECONDS"];

#[derive(Debug, Clone)]
pub(crate) struct JwtConfig {
    /// `JWT_ISSUER`: the `iss` of every token.
    pub(super) issuer: String,
    /// `JWT_AUDIENCE`: what `aud` is or holds.
    pub(super) audience: String,
    /// `JWT_JWKS_URL`: where the issuer publishes its keys (RFC 7517).
    pub(super) jwks_url: Uri,
    /// `JWT_ALGORITHMS`: the algorithms that tokens may be signed with.
    pub(super) algorithms: Vec<Algorithm>,
    /// `JWT_TENANT_CLAIM`: the claim that holds the tenant.
    pub(super) tenant_claim: String,
    /// `JWT_SCOPE_CLAIM`: the claim that holds the scopes.
    pub(super) scope_claim: String,
    /// `JWT_LEEWAY_SECONDS`: how much the issuer's clock may differ from this machine's.
    pub(super) leeway: TimeDelta,
}

impl JwtConfig {
    /// Reads the variables; `None` if no issuer is set.
    ///
    /// # Errors
    /// For the first variable whose value cannot be used, that is missing beside `JWT_ISSUER`, or that is set without it.
    pub(crate) fn from_environment(env: &Environment) -> Result<Option<Self>, ConfigError> {
        let Some(issuer) = env.optional("JWT_ISSUER")? else {
            for name in OTHERS {
                if env.optional(name)?.is_some() {
                    return Err(problem(
                        "JWT_ISSUER",
                        format!("set it, or unset {name}, which has no effect without it"),
                    ));
                }
            }
            return Ok(None);
        };
        let audience = required(env.optional("JWT_AUDIENCE")?, "JWT_AUDIENCE", "the aud of tokens for this service")?;
        let jwks_url =
            required(env.optional("JWT_JWKS_URL")?, "JWT_JWKS_URL", "the https URL of the issuer's key set")?;
        let leeway = env.number("JWT_LEEWAY_SECONDS", 30_u32, 0..=300, "seconds")?;
        Ok(Some(Self {
            issuer,
            audience,
            jwks_url: parse_jwks_url(&jwks_url)?,
            algorithms: parse_algorithms(&env.text("JWT_ALGORITHMS", "RS256,ES256")?)?,
            tenant_claim: env.text("JWT_TENANT_CLAIM", "tenant")?,
            scope_claim: env.text("JWT_SCOPE_CLAIM", "scope")?,
            leeway: TimeDelta::seconds(leeway.into()),
        }))
    }
}

fn problem(name: &str, problem: String) -> ConfigError {
    ConfigError::Problem { name: name.to_owned(), problem }
}

fn required(value: Option<String>, name: &str, meaning: &str) -> Result<String, ConfigError> {
    value.ok_or_else(|| problem(name, format!("set it to {meaning}; JWT_ISSUER needs it")))
}

/// The URL, which is one of https: who can answer in the issuer's place can make tokens. It is kept out of the message, because
/// it may hold a password.
fn parse_jwks_url(value: &str) -> Result<Uri, ConfigError> {
    let refused = |why: &str| problem("JWT_JWKS_URL", why.to_owned());
    let url: Uri = value.parse().map_err(|_| refused("expected an https URL"))?;
    let Some(authority) = url.authority() else { return Err(refused("expected an https URL with a host")) };
    if authority.as_str().contains('@') {
        return Err(refused("a user name or password in it is never sent; remove it"));
    }
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_local(authority.host()) => Ok(url),
        _ => Err(refused(
            "expected an https URL; http is taken only for this machine itself (localhost, 127.0.0.1, [::1])",
        )),
    }
}

fn parse_algorithms(value: &str) -> Result<Vec<Algorithm>, ConfigError> {
    let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
    match names.map(Algorithm::named).collect::<Option<Vec<_>>>() {
        Some(algorithms) if !algorithms.is_empty() => Ok(algorithms),
        _ => Err(ConfigError::Value {
            name: "JWT_ALGORITHMS".to_owned(),
            value: value.to_owned(),
            expected: format!(
                "expected names of asymmetric algorithms, separated by commas, of {}",
                Algorithm::ALL.map(|(name, _)| name).join(", ")
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: [(&str, &str); 3] = [
        ("JWT_ISSUER", "https://login.example.com"),
        ("JWT_AUDIENCE", "polyglot"),
        ("JWT_JWKS_URL", "https://login.example.com/jwks.json"),
    ];

    fn with(variables: &[(&str, &str)]) -> Result<Option<JwtConfig>, ConfigError> {
        JwtConfig::from_environment(&Environment::fixed(&[&COMPLETE[..], variables].concat()))
    }

    #[test]
    fn without_an_issuer_there_are_no_tokens() {
        assert!(JwtConfig::from_environment(&Environment::fixed(&[])).unwrap().is_none());
        for name in OTHERS {
            let error = JwtConfig::from_environment(&Environment::fixed(&[(name, "1")])).unwrap_err().to_string();
            assert!(error.starts_with("JWT_ISSUER: set it") && error.contains(name), "{error}");
        }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = with(&[]).unwrap().unwrap();
        assert_eq!(config.algorithms, [Algorithm::Rs256, Algorithm::Es256]);
        assert_eq!((config.tenant_claim.as_str(), config.scope_claim.as_str()), ("tenant", "scope"));
        assert_eq!(config.leeway, TimeDelta::seconds(30));
    }

    #[test]
    fn what_is_missing_beside_the_issuer_is_named() {
        for missing in ["JWT_AUDIENCE", "JWT_JWKS_URL"] {
            let error = with(&[(missing, "")]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{missing}: set it to")), "{error}");
        }
    }

    #[test]
    fn keys_come_over_https_or_from_this_machine() {
        for good in [
            "https://login.example.com/jwks.json?tenant=a",
            "https://10.0.0.1/keys",
            "http://localhost:8080/keys",
            "http://127.0.0.1/keys",
            "http://[::1]:80/keys",
        ] {
            assert!(with(&[("JWT_JWKS_URL", good)]).is_ok(), "{good}");
        }
        for bad in [
            "http://login.example.com/keys",
            "http://10.0.0.1/keys",
            "http://localhost.example.com/keys",
            "https://user:secret@login.example.com/keys",
            "ftp://login.example.com/keys",
            "/keys",
            "login.example.com",
            "https://",
            "a b",
        ] {
            let error = with(&[("JWT_JWKS_URL", bad)]).expect_err(bad).to_string();
            assert!(error.starts_with("JWT_JWKS_URL: ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn algorithms_are_asymmetric_or_refused() {
        let config = with(&[("JWT_ALGORITHMS", " EdDSA, PS512 ")]).unwrap().unwrap();
        assert_eq!(config.algorithms, [Algorithm::EdDsa, Algorithm::Ps512]);
        for bad in ["none", "HS256", "RS256,HS256", "rs256", "ES512", ",", "RS256 ES256"] {
            let error = with(&[("JWT_ALGORITHMS", bad)]).expect_err(bad).to_string();
            assert!(
                error.starts_with("JWT_ALGORITHMS: expected names of asymmetric") && error.contains("ES384"),
                "{error}"
            );
        }
        assert!(with(&[("JWT_LEEWAY_SECONDS", "301")]).unwrap_err().to_string().starts_with("JWT_LEEWAY_SECONDS: "));
    }
}
