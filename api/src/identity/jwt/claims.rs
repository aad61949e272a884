//! The claims of a token, whose signature has been verified, compared with the configuration.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::config::JwtConfig;
use super::error::{InvalidToken, StandardClaim};

/// Most characters of a subject or a tenant: log lines have both, and the tenant is stored with what the client makes.
const MAX_NAME_CHARACTERS: usize = 255;

/// What a token says, verified.
#[derive(Debug, Clone)]
pub(crate) struct VerifiedToken {
    /// `sub`: the client, as its issuer knows it.
    pub(crate) subject: String,
    pub(crate) tenant: String,
    pub(crate) scopes: Vec<String>,
    /// Until when the token is accepted: `exp`, and the configured leeway.
    pub(crate) expires_at: DateTime<Utc>,
    /// Every claim.
    pub(crate) claims: Map<String, Value>,
}

/// Checks the payload of a token at the time `now`.
pub(super) fn check(payload: &[u8], config: &JwtConfig, now: DateTime<Utc>) -> Result<VerifiedToken, InvalidToken> {
    let claims: Map<String, Value> = serde_json::from_slice(payload).map_err(|_| InvalidToken::Malformed)?;
    if claims.get("iss").and_then(Value::as_str) != Some(&config.issuer) {
        return Err(InvalidToken::Issuer);
    }
    let is_for_us = match claims.get("aud") {
        Some(Value::String(one)) => *one == config.audience,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(&config.audience)),
        _ => false,
    };
    if !is_for_us {
        return Err(InvalidToken::Audience);
    }
    let expires_at = claims.get("exp").and_then(numeric_date).ok_or(InvalidToken::Claim(StandardClaim::Exp))?;
    // At `exp` itself the token has expired (RFC 7519, 4.1.4).
    if now - config.leeway >= expires_at {
        return Err(InvalidToken::Expired);
    }
    if let Some(not_before) = claims.get("nbf") {
        let not_before = numeric_date(not_before).ok_or(InvalidToken::Claim(StandardClaim::Nbf))?;
        if now + config.leeway < not_before {
            return Err(InvalidToken::NotYetValid);
        }
    }
    let subject = claims.get("sub").and_then(name).ok_or(InvalidToken::Claim(StandardClaim::Sub))?;
    let tenant = claims.get(&config.tenant_claim).and_then(name).ok_or(InvalidToken::Tenant)?;
    let scopes = match claims.get(&config.scope_claim) {
        None => Vec::new(),
        Some(scopes) => parse_scopes(scopes).ok_or(InvalidToken::Scopes)?,
    };
    Ok(VerifiedToken { subject, tenant, scopes, expires_at: expires_at + config.leeway, claims })
}

/// Seconds since 1970, which may have a fraction; `None` if the value is no number or no time.
fn numeric_date(value: &Value) -> Option<DateTime<Utc>> {
    let seconds = if let Some(seconds) = value.as_i64() {
        seconds
    } else {
        let seconds = value.as_f64().filter(|seconds| seconds.abs() < 1e12)?;
        #[expect(clippy::cast_possible_truncation, reason = "the bound above is far below that of i64")]
        let whole = seconds.floor() as i64;
        whole
    };
    DateTime::from_timestamp(seconds, 0)
}

/// A text that can stand for somebody: neither empty nor blank, of bounded length, and without control characters.
fn name(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let fits =
        !text.trim().is_empty() && text.chars().count() <= MAX_NAME_CHARACTERS && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

/// Scopes: one text in which spaces separate them (RFC 8693, 4.2), or an array of texts.
fn parse_scopes(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(text.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect()),
        Value::Array(scopes) => scopes.iter().map(|scope| scope.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}
