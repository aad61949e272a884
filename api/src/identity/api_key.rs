//! API keys as text: `polyglot_`, the key's id, `_`, and its secret of 256 random bits, both in hexadecimal. The fixed form lets
//! secret scanners find keys: `polyglot_[0-9a-f]{32}_[0-9a-f]{64}`.

use polyglot_ledger::SecretHash;
use rand::Rng;
use sha2::{Digest, Sha256};
use uuid::Uuid;

const PREFIX: &str = "polyglot_";

/// A new secret of 256 random bits, in hexadecimal.
pub(crate) fn new_secret() -> String {
    // Seeded by the system and made for secrets.
    let mut random = rand::rng();
    format!("{:032x}{:032x}", random.random::<u128>(), random.random::<u128>())
}

/// The hash by which a secret is stored. Secrets are random and long, so that a fast hash without a salt is enough.
pub(crate) fn hash(secret: &str) -> SecretHash {
    Sha256::digest(secret).into()
}

/// A key that was made now, and is shown once.
pub(crate) struct GeneratedKey {
    pub(crate) id: Uuid,
    pub(crate) secret_hash: SecretHash,
    /// The key as its client sends it.
    pub(crate) text: String,
}

impl GeneratedKey {
    pub(crate) fn new() -> Self {
        let (id, secret) = (Uuid::new_v4(), new_secret());
        Self { id, secret_hash: hash(&secret), text: format!("{PREFIX}{}_{secret}", id.simple()) }
    }
}

/// A key that a client has sent; whether it is right is not known yet.
#[derive(Clone, Copy)]
pub(crate) struct PresentedKey {
    pub(crate) id: Uuid,
    pub(crate) secret_hash: SecretHash,
}

impl PresentedKey {
    /// Whether a bearer token is meant to be an API key.
    pub(crate) fn is_meant_by(token: &str) -> bool {
        token.starts_with(PREFIX)
    }

    /// Reads a key; `None` if the text has not its form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if id.len() != 32 || secret.len() != 64 || !is_hex(id) || !is_hex(secret) {
            return None;
        }
        Some(Self { id: Uuid::try_parse(id).ok()?, secret_hash: hash(secret) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_read_as_it_was_made() {
        let (key, other) = (GeneratedKey::new(), GeneratedKey::new());
        let read = PresentedKey::parse(&key.text).unwrap();
        assert_eq!((read.id, read.secret_hash), (key.id, key.secret_hash));
        assert_ne!(key.text, other.text);
        assert_ne!(key.secret_hash, other.secret_hash);
        assert_eq!(key.text.len(), 9 + 32 + 1 + 64);
    }

    #[test]
    fn what_has_not_the_form_of_a_key_is_none() {
        let key = GeneratedKey::new().text;
        for bad in [
            "",
            "polyglot_",
            "polyglot__",
            &key[1..],
            &key[..key.len() - 1],
            &format!("{key}0"),
            &key.to_uppercase(),
            &key.replace('_', "-"),
            &format!("{}g", &key[..key.len() - 1]),
            &format!("{}é", &key[..key.len() - 2]),
        ] {
            assert!(PresentedKey::parse(bad).is_none(), "{bad}");
        }
    }
}
