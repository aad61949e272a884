//! From a token to who it is for: the order of the checks.

use super::algorithm::Algorithm;
use super::claims::{self, VerifiedToken};
use super::clock::Clock;
use super::config::JwtConfig;
use super::error::{InvalidToken, JwtError};
use super::jwks_client::JwksClient;
use super::key_cache::KeyCache;
use super::token::SignedToken;

/// Verifies the tokens of one issuer. Its keys are fetched when the first token comes.
pub(crate) struct Verifier {
    config: JwtConfig,
    clock: Clock,
    keys: KeyCache,
}

impl Verifier {
    /// # Errors
    /// If the system has no certificates by which the issuer could be verified.
    pub(crate) fn new(config: JwtConfig) -> std::io::Result<Self> {
        Self::with_clock(config, Clock::system())
    }

    pub(super) fn with_clock(config: JwtConfig, clock: Clock) -> std::io::Result<Self> {
        let client = JwksClient::new(config.jwks_url.clone(), config.algorithms.clone())?;
        let keys = KeyCache::new(client, clock.clone());
        Ok(Self { config, clock, keys })
    }

    /// # Errors
    /// If the token is not one of the issuer for this service, or if that cannot be found out at present.
    pub(crate) async fn verify(&self, token: &str) -> Result<VerifiedToken, JwtError> {
        let token = SignedToken::parse(token)?;
        // Before the keys are asked for: a token that can never be accepted causes no fetch.
        let algorithm = Algorithm::named(&token.algorithm)
            .filter(|algorithm| self.config.algorithms.contains(algorithm))
            .ok_or(InvalidToken::Algorithm)?;
        let mut keys = self.keys.current().await?;
        let id = token.key_id.as_deref();
        if let Some(id) = id.filter(|id| !keys.has(id)) {
            keys = self.keys.for_unknown_id(id).await?;
        }
        keys.verify(id, algorithm, token.message, &token.signature)?;
        Ok(claims::check(&token.payload, &self.config, self.clock.now())?)
    }
}
