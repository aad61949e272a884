//! The values of a masked column. The server computes what it can, so that the values stay there: a hash leaves it as the SHA-256 of
//! a value's text. The key is not the server's to know, whose log may have every statement, so the process that reads the hash puts
//! it under the key.

use polyglot_core::mask::Mask;
use polyglot_runtime::config::{ConfigError, Environment};
use ring::hmac;

use crate::sql::text_form;

/// The expression of a masked column, of type `text`, or of no type where every value is NULL. `name` is the column in the statement. Of
/// [`Mask::Hash`] it is the digest, which [`MaskKey::put_on`] makes the masked value of.
#[must_use]
pub fn masked_value(name: &str, mask: Mask) -> String {
    let text = text_form(name);
    match mask {
        Mask::Null => "NULL".to_owned(),
        Mask::Hash => {
            format!("pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({text}, 'UTF8')), 'hex')")
        }
        Mask::Last4 => {
            let length = format!("pg_catalog.length({text})");
            format!(
                "pg_catalog.lpad(CASE WHEN {length} OPERATOR(pg_catalog.>) 4 THEN pg_catalog.\"right\"({text}, 4) ELSE '' END, {length}, '*')"
            )
        }
    }
}

/// The least length of a key. A shorter one could be found by trying.
const MIN_KEY_BYTES: usize = 16;

/// The key of masks that hash.
#[derive(Debug, Clone)]
pub struct MaskKey(hmac::Key);

impl MaskKey {
    /// Length of a digest, and of the masked value: hexadecimal digits.
    pub const DIGITS: usize = 64;

    /// `MASK_KEY`, or the content of the file in `MASK_KEY_FILE`; `None` if there is none.
    ///
    /// # Errors
    /// When it is too short. The message does not repeat it.
    pub fn from_environment(env: &Environment) -> Result<Option<Self>, ConfigError> {
        const NAME: &str = "MASK_KEY";
        let Some(key) = env.optional(NAME)? else { return Ok(None) };
        if key.len() < MIN_KEY_BYTES {
            let problem = format!(
                "expected at least {MIN_KEY_BYTES} bytes, not {}; make one with: openssl rand -hex 32",
                key.len()
            );
            return Err(ConfigError::Problem { name: NAME.to_owned(), problem });
        }
        Ok(Some(Self::new(key.as_bytes())))
    }

    fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Makes the masked value of a digest, in its place: HMAC-SHA-256 of its hexadecimal digits, as hexadecimal digits.
    ///
    /// # Errors
    /// When it is no digest. It is as it was then, and may be shown to nobody.
    pub fn put_on(&self, digest: &mut [u8]) -> Result<(), NoDigest> {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        if digest.len() != Self::DIGITS {
            return Err(NoDigest);
        }
        let tag = hmac::sign(&self.0, digest);
        for (pair, byte) in digest.chunks_exact_mut(2).zip(tag.as_ref()) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        Ok(())
    }
}

/// The server has sent something else where a digest belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hashed value without the digits of a SHA-256")]
pub struct NoDigest;

#[cfg(test)]
mod tests {
    use polyglot_test_servers::needs_database;
    use sqlx::{AssertSqlSafe, Connection, PgConnection};

    use super::*;

    #[test]
    fn the_key_is_read_and_a_short_one_is_not_repeated() {
        let key = |value: &str| MaskKey::from_environment(&Environment::fixed(&[("MASK_KEY", value)]));
        assert!(key("").unwrap().is_none());
        assert!(key("sixteen bytes ok").unwrap().is_some());
        let error = key("hunter2").unwrap_err().to_string();
        assert!(error.starts_with("MASK_KEY: expected at least 16 bytes, not 7"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_masked_value_is_the_hmac_of_the_digest() {
        // printf %s a@b.c | sha256sum | cut -c-64 | tr -d '\n' | openssl dgst -sha256 -hmac 'sixteen bytes ok'
        let mut value = b"d648b243a3e817eaa3309e00e183483f2867baadf522099f0c2121770536b25a".to_vec();
        let key = MaskKey::new(b"sixteen bytes ok");
        key.put_on(&mut value).unwrap();
        assert_eq!(
            String::from_utf8(value.clone()).unwrap(),
            "6c8b66fc6d1e355f1010bbc62cc09480bea3651ee2270c44bf8d1325fff08449"
        );
        let mut other = b"d648b243a3e817eaa3309e00e183483f2867baadf522099f0c2121770536b25a".to_vec();
        MaskKey::new(b"seventeen bytes ok").put_on(&mut other).unwrap();
        assert_ne!(other, value);
        let mut short = b"a@b.c".to_vec();
        assert_eq!(key.put_on(&mut short), Err(NoDigest));
    }

    #[tokio::test]
    async fn the_server_computes_what_leaves_it() {
        let url = needs_database!();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        for (value, last4, digest_of) in [
            ("'4000123412341234'::text", Some("************1234"), Some("4000123412341234")),
            ("'1234'::text", Some("****"), Some("1234")),
            ("'ab'::char(3)", Some("***"), Some("ab ")),
            ("''::text", Some(""), Some("")),
            ("'Größe'::text", Some("*röße"), Some("Größe")),
            ("12345678", Some("****5678"), Some("12345678")),
            ("'{1,NULL,23}'::int[]", Some("*******,23}"), Some("{1,NULL,23}")),
            ("12.50::numeric(18,4)", Some("***5000"), Some("12.5000")),
            ("NULL::int", None, None),
        ] {
            let select = |mask| format!("SELECT {} FROM (SELECT {value} AS v) AS r", masked_value("r.v", mask));
            let mut text = async |statement: String| -> Option<String> {
                sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut connection).await.unwrap()
            };
            assert_eq!(text(select(Mask::Last4)).await.as_deref(), last4, "{value}");
            let expected = digest_of.map(|text| {
                let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
                digest.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
            });
            assert_eq!(text(select(Mask::Hash)).await, expected, "{value}");
            assert_eq!(text(select(Mask::Null)).await, None, "{value}");
        }
    }
}
