//! The caller of a request: whose identity the credentials are, and what it may do.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use polyglot_core::scope::{Scope, Scopes};
use polyglot_core::tenant::{self, BENCHMARK_TENANT, DEFAULT_TENANT};
use polyglot_ledger::{ApiKey, AuditOrigin, Ledger, SecretHash, TenantView};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::jwt::VerifiedToken;
use crate::problem::RouteError;

/// By what a caller has said who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Authentication is off.
    Anonymous,
    ApiKey(Uuid),
    /// A sign-in on the page, by the hash of its token.
    Session(SecretHash),
    /// A token of the issuer that `JWT_ISSUER` names.
    Token,
}

/// The caller of a request.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) principal: Principal,
    /// The name of the key, or the subject of the token.
    pub(crate) name: String,
    /// The tenant that its exports belong to.
    pub(crate) tenant: String,
    /// The tenants whose exports it may see.
    pub(crate) visible_tenants: Vec<String>,
    pub(crate) scopes: Scopes,
    /// What else a token says about its owner.
    claims: Map<String, Value>,
    /// `None`: it does not expire.
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

impl Identity {
    /// The caller of every request while authentication is off.
    pub(crate) fn anonymous() -> Self {
        Self::new(Principal::Anonymous, "anonymous".to_owned(), DEFAULT_TENANT.to_owned(), Scopes::all(), None)
    }

    pub(super) fn of_key(key: ApiKey) -> Self {
        Self::new(Principal::ApiKey(key.id), key.name, key.tenant, key.scopes, key.expires_at)
    }

    pub(super) fn of_session(token_hash: SecretHash, key: ApiKey, expires_at: DateTime<Utc>) -> Self {
        Self::new(Principal::Session(token_hash), key.name, key.tenant, key.scopes, Some(expires_at))
    }

    /// `None` if its tenant cannot be one here.
    pub(super) fn of_token(token: VerifiedToken) -> Option<Self> {
        let scopes = token.scopes.iter().filter_map(|name| Scope::from_name(name)).collect();
        tenant::is_valid(&token.tenant)
            .then(|| Self::new(Principal::Token, token.subject, token.tenant, scopes, Some(token.expires_at)))
            .map(|identity| Self { claims: token.claims, ..identity })
    }

    fn new(
        principal: Principal,
        name: String,
        tenant: String,
        scopes: Scopes,
        expires_at: Option<DateTime<Utc>>,
    ) -> Self {
        let mut visible_tenants = vec![tenant.clone()];
        if scopes.allow(Scope::Admin) {
            visible_tenants.push(BENCHMARK_TENANT.to_owned());
        }
        Self { principal, name, tenant, visible_tenants, scopes, claims: Map::new(), expires_at }
    }

    /// The exports that the caller may see.
    pub(crate) fn view<'a>(&'a self, ledger: &'a Ledger) -> TenantView<'a> {
        ledger.of_tenants(&self.visible_tenants, &self.name)
    }

    /// What is known of the caller under this name, as text: `tenant`, `name` (of the key, or the subject of the token), or a
    /// claim of the token that is a string, a number, a boolean or an array of these. Empty if nothing is.
    pub(crate) fn claim(&self, name: &str) -> Vec<String> {
        let text = |value: &Value| match value {
            // PostgreSQL has no text with U+0000 in it.
            Value::String(text) if text.contains('\0') => None,
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        match (name, self.claims.get(name)) {
            ("tenant", _) => vec![self.tenant.clone()],
            ("name", _) => vec![self.name.clone()],
            (_, Some(Value::Array(values))) => values.iter().map(text).collect::<Option<_>>().unwrap_or_default(),
            (_, value) => value.and_then(text).into_iter().collect(),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test(tenant: &str, claims: &str) -> Self {
        let claims = serde_json::from_str(claims).unwrap();
        Self { claims, ..Self::new(Principal::Token, "test".to_owned(), tenant.to_owned(), Scopes::all(), None) }
    }
}

/// From where a request comes.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    pub(crate) address: String,
    pub(crate) request_id: Option<String>,
}

/// The identity that the layer `authentication` has found for a request, for its handler, and from where the request comes.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    identity: Arc<Identity>,
    origin: Arc<Origin>,
}

impl Caller {
    pub(crate) fn new(identity: Arc<Identity>, origin: Origin) -> Self {
        Self { identity, origin: Arc::new(origin) }
    }

    /// Who and from where, for the audit.
    pub(crate) fn audit_origin(&self) -> AuditOrigin<'_> {
        AuditOrigin {
            tenant: Some(&self.tenant),
            caller: Some(&self.name),
            address: Some(&self.origin.address),
            request_id: self.origin.request_id.as_deref(),
        }
    }
}

impl std::ops::Deref for Caller {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.identity
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = RouteError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, RouteError> {
        // Absent only where a public route takes a caller, which is a defect: better no answer than one to nobody.
        parts.extensions.get().cloned().ok_or(RouteError::NotAuthenticated { presented: false })
    }
}
