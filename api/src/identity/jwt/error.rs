//! The reasons why a token is not accepted. They are for the log: what exactly is wrong with a token helps only somebody who is
//! trying to make one.

use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub(crate) enum JwtError {
    /// The token proves nothing (401).
    #[error(transparent)]
    Invalid(#[from] InvalidToken),
    /// Whether it does cannot be decided, because the issuer's keys are not there (503).
    #[error("the issuer's keys cannot be fetched")]
    Unavailable {
        /// Time after which they are fetched again.
        retry_after: Duration,
    },
}

/// The reason for the log. It holds nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidToken {
    #[error("the token is larger than 8 KiB")]
    TooLarge,
    #[error("the token is not three base64url texts with JSON in the first two")]
    Malformed,
    #[error("the token's header names an extension (crit) that is not understood")]
    CriticalExtension,
    #[error("the token's type (typ) is not that of an access token")]
    Type,
    #[error("the token is signed with an algorithm that is not allowed, or that its key is not for")]
    Algorithm,
    #[error("the token does not say which of the issuer's keys it is signed with (kid)")]
    KeyIdMissing,
    #[error("the issuer has no key with the token's key id (kid)")]
    UnknownKey,
    #[error("the token's signature is not that of the key")]
    Signature,
    #[error("the token is from another issuer (iss)")]
    Issuer,
    #[error("the token is for another audience (aud)")]
    Audience,
    #[error("the token has expired (exp)")]
    Expired,
    #[error("the token is not valid yet (nbf)")]
    NotYetValid,
    #[error("the token's claim {0} is missing or has the wrong form")]
    Claim(StandardClaim),
    #[error("the token's claim for the tenant (JWT_TENANT_CLAIM) is missing or has the wrong form")]
    Tenant,
    #[error("the token's claim for the scopes (JWT_SCOPE_CLAIM) has the wrong form")]
    Scopes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StandardClaim {
    Exp,
    Nbf,
    Sub,
}

impl std::fmt::Display for StandardClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exp => "exp",
            Self::Nbf => "nbf",
            Self::Sub => "sub",
        })
    }
}
