//! The page's sessions: each belongs to an API key, whose rights it has, and ends with it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row;
use uuid::Uuid;

use super::api_keys::{COLUMNS, SecretHash, StoredApiKey, read_key};
use crate::database::{Ledger, Result};

/// Sessions of one key at a time.
const MAX_SESSIONS: i64 = 100;

impl Ledger {
    /// Stores a session and returns when it ends: after `lifetime`, or earlier with its key. Removes sessions that have
    /// ended, and the oldest of a key that has too many.
    pub async fn create_session(
        &self,
        token_hash: SecretHash,
        key_id: Uuid,
        lifetime: Duration,
    ) -> Result<DateTime<Utc>> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "DELETE FROM sessions
             WHERE expires_at < ledger_now()
                OR token_sha256 IN (SELECT token_sha256 FROM sessions WHERE key_id = $1 ORDER BY created_at DESC OFFSET $2)",
        )
        .bind(key_id)
        .bind(MAX_SESSIONS - 1)
        .execute(&mut *transaction)
        .await?;
        let expires_at = sqlx::query_scalar(
            "INSERT INTO sessions (token_sha256, key_id, expires_at)
             SELECT $1, k.id, least(ledger_now() + make_interval(secs => $3), k.expires_at)
             FROM api_keys k WHERE k.id = $2
             RETURNING expires_at",
        )
        .bind(token_hash.as_slice())
        .bind(key_id)
        .bind(lifetime.as_secs_f64())
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(expires_at)
    }

    /// The key of a session, and when the session ends; `None` if there is no such session or it has ended.
    pub async fn find_session(&self, token_hash: SecretHash) -> Result<Option<(StoredApiKey, DateTime<Utc>)>> {
        let statement = format!(
            "SELECT {COLUMNS}, s.expires_at AS session_expires_at FROM sessions s JOIN api_keys k ON k.id = s.key_id
             WHERE s.token_sha256 = $1 AND s.expires_at > ledger_now()"
        );
        let row =
            sqlx::query(sqlx::AssertSqlSafe(statement)).bind(token_hash.as_slice()).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((read_key(&row)?, row.try_get("session_expires_at")?)))
    }

    pub async fn delete_session(&self, token_hash: SecretHash) -> Result<()> {
        sqlx::query("DELETE FROM sessions WHERE token_sha256 = $1")
            .bind(token_hash.as_slice())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
