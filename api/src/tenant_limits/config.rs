//! `TENANT_LIMITS`: a TOML file with the limits of every tenant, and of some tenants alone.

use std::collections::BTreeMap;

use polyglot_core::tenant;
use polyglot_core::tenant_limits::TenantLimits;
use polyglot_runtime::config::{ConfigError, Environment};
use serde::Deserialize;

/// The limits of every tenant. The default has none.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LimitsByTenant {
    default: TenantLimits,
    /// With the default's where a tenant has none of its own.
    tenants: BTreeMap<String, TenantLimits>,
}

/// Why a `TENANT_LIMITS` file cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitsError {
    #[error("{0}")]
    Syntax(String),
    #[error("{table}: {problem}")]
    Table { table: String, problem: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    default: TenantLimits,
    #[serde(default)]
    tenants: BTreeMap<String, TenantLimits>,
}

impl LimitsByTenant {
    /// What the file in `TENANT_LIMITS` says, or no limits.
    pub(crate) fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        const NAME: &str = "TENANT_LIMITS";
        let Some(path) = env.optional(NAME)? else { return Ok(Self::default()) };
        let problem = |problem: String| ConfigError::Problem { name: NAME.to_owned(), problem };
        let text = std::fs::read_to_string(&path).map_err(|error| problem(format!("cannot read {path:?}: {error}")))?;
        Self::parse(&text).map_err(|error| problem(format!("{path:?}: {error}")))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, LimitsError> {
        let File { default, tenants } = toml::from_str(text).map_err(|error| LimitsError::Syntax(error.to_string()))?;
        check("default", &default)?;
        for (name, limits) in &tenants {
            let table = format!("tenants.{name:?}");
            if !tenant::is_valid(name) {
                let problem = "expected the name of a tenant: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or a digit; a name \
                               with a dot goes in quotes";
                return Err(LimitsError::Table { table, problem: problem.to_owned() });
            }
            check(&table, limits)?;
        }
        let tenants = tenants.into_iter().map(|(name, limits)| (name, limits.or(default))).collect();
        Ok(Self { default, tenants })
    }

    /// The limits of a tenant.
    pub(crate) fn of(&self, tenant: &str) -> &TenantLimits {
        self.tenants.get(tenant).unwrap_or(&self.default)
    }

    /// How many exports may be begun at a time: of the tenants that the file names, and of every other one.
    pub(super) fn running(&self) -> (Vec<(String, u32)>, Option<u32>) {
        let named = self.tenants.iter().filter_map(|(name, limits)| Some((name.clone(), limits.running?)));
        (named.collect(), self.default.running)
    }
}

fn check(table: &str, limits: &TenantLimits) -> Result<(), LimitsError> {
    match limits.problem() {
        None => Ok(()),
        Some((field, problem)) => Err(LimitsError::Table { table: format!("{table}.{field}"), problem }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_own_limits_and_the_default_s() {
        let limits = LimitsByTenant::parse(
            "[default]\nqueued = 10\nrunning = 2\n[tenants.acme]\nqueued = 100\n[tenants.\"b.example\"]\nrunning = 7",
        )
        .unwrap();
        let of = |tenant| (limits.of(tenant).queued, limits.of(tenant).running);
        assert_eq!(of("acme"), (Some(100), Some(2)));
        assert_eq!(of("b.example"), (Some(10), Some(7)));
        assert_eq!(of("somebody"), (Some(10), Some(2)));
        assert_eq!(limits.running(), (vec![("acme".to_owned(), 2), ("b.example".to_owned(), 7)], Some(2)));
        assert_eq!(LimitsByTenant::parse("").unwrap(), LimitsByTenant::default());
    }

    #[test]
    fn what_cannot_be_a_limit_is_named() {
        for (text, words) in [
            ("[default]\nqueue = 1", "queue"),
            ("[defaults]\nqueued = 1", "defaults"),
            ("[default]\nqueued = \"1\"", "queued"),
            ("[default]\nqueued = -1", "queued"),
            ("[default]\nqueued = 0", "default.queued"),
            ("[tenants.acme]\nrequest_burst = 5", "tenants.\"acme\".request_burst"),
            ("[tenants.\"a b\"]\nqueued = 5", "tenants.\"a b\""),
            ("[tenants.acme.example]\nqueued = 5", "example"),
            ("queued = 5", "queued"),
        ] {
            let error = LimitsByTenant::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
