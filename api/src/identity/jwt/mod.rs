//! JSON Web Tokens (RFC 7519) of one issuer: parsed (`token`), verified with the keys that the issuer publishes (`jwk`,
//! `jwks_client`, `key_cache`), and their claims compared with the configuration (`claims`). Nothing here knows about
//! requests: the verifier takes a token and returns who it is for.

mod algorithm;
mod claims;
mod clock;
mod config;
mod error;
pub(crate) mod fuzz_target;
mod jwk;
mod jwks_client;
mod key_cache;
mod token;
mod verifier;

#[cfg(test)]
mod key_cache_tests;
#[cfg(test)]
mod mutation_tests;
#[cfg(test)]
mod test_issuer;
#[cfg(test)]
mod tests;

pub(crate) use self::{claims::VerifiedToken, config::JwtConfig, error::JwtError, verifier::Verifier};
