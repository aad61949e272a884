//! The caller of a request: whose identity the credentials are, and what it may do.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use polyglot_core::scope::{Scope, Scopes};
use polyglot_core::tenant::{BENCHMARK_TENANT, DEFAULT_TENANT};
use polyglot_ledger::{ApiKey, SecretHash};
use uuid::Uuid;

use crate::problem::RouteError;

/// By what a caller has said who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Authentication is off.
    Anonymous,
    ApiKey(Uuid),
    /// A sign-in on the page, by the hash of its token.
    Session(SecretHash),
}

/// The caller of a request.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) principal: Principal,
    /// The name of the key.
    pub(crate) name: String,
    /// The tenant that its exports belong to.
    pub(crate) tenant: String,
    /// The tenants whose exports it may see.
    pub(crate) visible_tenants: Vec<String>,
    pub(crate) scopes: Scopes,
    /// `None`: it does not expire.
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

impl Identity {
    /// The caller of every request while authentication is off.
    pub(super) fn anonymous() -> Self {
        Self::new(Principal::Anonymous, "anonymous".to_owned(), DEFAULT_TENANT.to_owned(), Scopes::all(), None)
    }

    pub(super) fn of_key(key: ApiKey) -> Self {
        Self::new(Principal::ApiKey(key.id), key.name, key.tenant, key.scopes, key.expires_at)
    }

    pub(super) fn of_session(token_hash: SecretHash, key: ApiKey, expires_at: DateTime<Utc>) -> Self {
        Self::new(Principal::Session(token_hash), key.name, key.tenant, key.scopes, Some(expires_at))
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
        Self { principal, name, tenant, visible_tenants, scopes, expires_at }
    }
}

/// The identity that the layer `authentication` has found for a request, for its handler.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(super) Arc<Identity>);

impl std::ops::Deref for Caller {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = RouteError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, RouteError> {
        // Absent only where a public route takes a caller, which is a defect: better no answer than one to nobody.
        parts.extensions.get().cloned().ok_or(RouteError::NotAuthenticated { presented: false })
    }
}
