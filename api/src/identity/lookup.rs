//! From credentials to the identity that they stand for: out of what was confirmed a moment ago, else out of the ledger.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use chrono::Utc;
use polyglot_core::failure::chain;
use polyglot_ledger::{Ledger, SecretHash, StoredApiKey};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::api_key::{PresentedKey, hash};
use super::caller::{Identity, Principal};
use super::credentials::Credentials;
use super::jwt::{JwtError, Verifier};
use super::mode::AuthMode;
use super::verified::{Age, Secret, Verified};
use crate::problem::{Dependency, RouteError};
use crate::timeout;

/// Lookups in the ledger at a time. Wrong keys are cheap to send, and must not take the connections from requests with right
/// ones, which as a rule are known.
const LOOKUPS: usize = 3;

/// Longest wait for one of them.
const LOOKUP_WAIT: Duration = Duration::from_secs(2);

/// Finds out who callers are.
pub(crate) struct Authenticator {
    /// `None`: everybody is the anonymous caller.
    ledger: Option<Ledger>,
    anonymous: Arc<Identity>,
    verified: Verified,
    lookups: Semaphore,
    /// Lookups of what was confirmed within the last minute: nobody can make these by guessing.
    repeated_lookups: Semaphore,
    secure_cookies: bool,
    /// `None`: no tokens of an issuer are accepted.
    tokens: Option<Verifier>,
}

impl Authenticator {
    pub(crate) fn new(mode: AuthMode, secure_cookies: bool, ledger: Ledger, tokens: Option<Verifier>) -> Self {
        Self {
            ledger: (mode == AuthMode::On).then_some(ledger),
            anonymous: Arc::new(Identity::anonymous()),
            verified: Verified::default(),
            lookups: Semaphore::new(LOOKUPS),
            repeated_lookups: Semaphore::new(LOOKUPS),
            secure_cookies,
            tokens,
        }
    }

    pub(crate) fn is_off(&self) -> bool {
        self.ledger.is_none()
    }

    /// The caller of a request with these headers; `None` if it presents no credentials.
    ///
    /// # Errors
    /// [`RouteError::NotAuthenticated`] when the credentials are not right.
    pub(crate) async fn caller(&self, headers: &HeaderMap) -> Result<Option<Arc<Identity>>, RouteError> {
        let Some(ledger) = &self.ledger else { return Ok(Some(Arc::clone(&self.anonymous))) };
        let identity = match Credentials::of(headers, self.secure_cookies)? {
            Credentials::None => return Ok(None),
            Credentials::ApiKey(key) => self.of_key(ledger, key).await?,
            // Its expiry has been compared, with the leeway that is configured.
            Credentials::Token(token) => return self.of_token(token).await.map(Some),
            Credentials::Session(token) => self.of_session(ledger, hash(token)).await?,
        };
        // Remembered ones too: the ledger's clock and this one differ by less than they are remembered for.
        if identity.expires_at.is_some_and(|at| at <= Utc::now()) {
            return Err(refused());
        }
        Ok(Some(identity))
    }

    /// The caller that an API key stands for.
    ///
    /// # Errors
    /// [`RouteError::NotAuthenticated`] when it is not right.
    pub(crate) async fn caller_of_key(&self, key: PresentedKey) -> Result<Arc<Identity>, RouteError> {
        match &self.ledger {
            Some(ledger) => self.of_key(ledger, key).await,
            None => Ok(Arc::clone(&self.anonymous)),
        }
    }

    /// Whether a caller's credentials are still good, for answers that take long. They count as good while the ledger cannot be
    /// asked.
    pub(crate) async fn is_still_valid(&self, caller: &Identity) -> bool {
        let Some(ledger) = &self.ledger else { return true };
        let valid = match caller.principal {
            Principal::Anonymous => return true,
            Principal::Token => return caller.expires_at.is_none_or(|at| at > Utc::now()),
            Principal::ApiKey(id) => {
                timeout::ledger(ledger.find_api_key(id)).await.map(|key| key.is_some_and(|key| is_valid(&key)))
            }
            Principal::Session(token) => timeout::ledger(ledger.find_session(token))
                .await
                .map(|found| found.is_some_and(|(key, _)| is_valid(&key))),
        };
        valid.unwrap_or_else(|error| {
            tracing::debug!(error = chain(&error), "credentials cannot be checked again at the moment");
            true
        })
    }

    /// The caller whose session has a token with this hash.
    pub(crate) async fn of_session_token(&self, token: SecretHash) -> Result<Option<Arc<Identity>>, RouteError> {
        let Some(ledger) = &self.ledger else { return Ok(None) };
        match self.of_session(ledger, token).await {
            Ok(identity) => Ok(Some(identity)),
            Err(RouteError::NotAuthenticated { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets a session that was ended here. Other processes forget it within seconds.
    pub(crate) fn forget_session(&self, token: SecretHash) {
        self.verified.remove(&Secret::Session(token));
    }

    async fn of_key(&self, ledger: &Ledger, key: PresentedKey) -> Result<Arc<Identity>, RouteError> {
        self.confirm(Secret::ApiKey(key.id, key.secret_hash), async {
            let stored = timeout::ledger(ledger.find_api_key(key.id)).await?;
            let matches = |stored: &StoredApiKey| bool::from(stored.secret_hash.as_slice().ct_eq(&key.secret_hash));
            Ok(stored.filter(matches).filter(|stored| stored.key.is_valid).map(|stored| Identity::of_key(stored.key)))
        })
        .await
    }

    async fn of_token(&self, token: &str) -> Result<Arc<Identity>, RouteError> {
        let verifier = self.tokens.as_ref().ok_or_else(refused)?;
        let verified = verifier.verify(token).await.map_err(|error| match error {
            JwtError::Invalid(reason) => {
                tracing::info!(%reason, "a token is refused");
                refused()
            }
            JwtError::Unavailable { retry_after } => RouteError::IssuerUnavailable { retry_after },
        })?;
        Identity::of_token(verified).map(Arc::new).ok_or_else(|| {
            tracing::info!("a token is refused: a tenant has 1 to 64 of A-Z a-z 0-9 . _ -");
            refused()
        })
    }

    async fn of_session(&self, ledger: &Ledger, token: SecretHash) -> Result<Arc<Identity>, RouteError> {
        self.confirm(Secret::Session(token), async {
            let found = timeout::ledger(ledger.find_session(token)).await?;
            Ok(found
                .filter(|(stored, _)| stored.key.is_valid)
                .map(|(stored, expires_at)| Identity::of_session(token, stored.key, expires_at)))
        })
        .await
    }

    /// The identity that a secret stands for, which `lookup` finds in the ledger.
    async fn confirm(
        &self,
        secret: Secret,
        lookup: impl Future<Output = Result<Option<Identity>, RouteError>>,
    ) -> Result<Arc<Identity>, RouteError> {
        let now = Instant::now();
        if let Some(identity) = self.verified.get(&secret, Age::Fresh, now) {
            return Ok(identity);
        }
        let is_known = self.verified.get(&secret, Age::Usable, now).is_some();
        let lookups = if is_known { &self.repeated_lookups } else { &self.lookups };
        let permit = tokio::time::timeout(LOOKUP_WAIT, lookups.acquire()).await;
        let _permit = permit.map_err(|_| RouteError::TooManySignIns)?.expect("the semaphore is never closed");
        // From before the lookup, so that one that was overtaken by a sign-out is not remembered for longer.
        let asked_at = Instant::now();
        match lookup.await {
            Ok(Some(identity)) => {
                let identity = Arc::new(identity);
                self.verified.insert(secret, Arc::clone(&identity), asked_at);
                Ok(identity)
            }
            Ok(None) => {
                self.verified.remove(&secret);
                Err(refused())
            }
            Err(error @ RouteError::Unavailable { what: Dependency::Ledger, .. }) => {
                self.verified.get(&secret, Age::Usable, Instant::now()).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }
}

fn is_valid(stored: &StoredApiKey) -> bool {
    stored.key.is_valid
}

fn refused() -> RouteError {
    RouteError::NotAuthenticated { presented: true }
}
