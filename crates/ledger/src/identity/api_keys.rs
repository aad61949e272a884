//! API keys: creating, finding, listing, revoking and rotating them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use polyglot_core::scope::{Scope, Scopes};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::database::{Ledger, Result};

/// SHA-256 of a secret of 256 random bits.
pub type SecretHash = [u8; 32];

/// A key to create.
#[derive(Debug)]
pub struct NewApiKey<'a> {
    pub id: Uuid,
    pub name: &'a str,
    pub tenant: &'a str,
    pub scopes: Scopes,
    pub secret_hash: SecretHash,
    /// `None`: it does not expire.
    pub lifetime: Option<Duration>,
}

/// A key, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: Uuid,
    pub name: String,
    pub tenant: String,
    pub scopes: Scopes,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    /// Neither revoked nor expired when it was read.
    pub is_valid: bool,
}

/// A key with what a client's secret is compared with.
#[derive(Debug, Clone)]
pub struct StoredApiKey {
    pub key: ApiKey,
    pub secret_hash: Vec<u8>,
}

/// The result of a rotation.
#[derive(Debug, Clone)]
pub struct Rotated {
    pub key: ApiKey,
    pub old_expires_at: DateTime<Utc>,
}

/// The columns of a key, for a table of the name `k`.
pub(super) const COLUMNS: &str =
    "k.id, k.name, k.tenant, k.scopes, k.secret_sha256, k.created_at, k.expires_at, k.revoked_at,
    k.revoked_at IS NULL AND coalesce(k.expires_at > ledger_now(), true) AS is_valid";

pub(super) fn read_key(row: &PgRow) -> Result<StoredApiKey> {
    let scopes: Vec<String> = row.try_get("scopes")?;
    let key = ApiKey {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        tenant: row.try_get("tenant")?,
        // A scope of a newer version allows nothing here.
        scopes: scopes.iter().filter_map(|name| Scope::from_name(name)).collect(),
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
        is_valid: row.try_get("is_valid")?,
    };
    Ok(StoredApiKey { key, secret_hash: row.try_get("secret_sha256")? })
}

impl Ledger {
    pub async fn create_api_key(&self, new: &NewApiKey<'_>) -> Result<()> {
        let mut connection = self.pool.acquire().await?;
        insert(&mut connection, new, None).await
    }

    /// The key of this id, whether it is valid or not.
    pub async fn find_api_key(&self, id: Uuid) -> Result<Option<StoredApiKey>> {
        let statement = format!("SELECT {COLUMNS} FROM api_keys k WHERE k.id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(read_key).transpose()
    }

    /// All keys, oldest first.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>> {
        let statement = format!("SELECT {COLUMNS} FROM api_keys k ORDER BY k.created_at, k.id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(read_key(row)?.key)).collect()
    }

    /// Whether there is a key that is neither revoked nor expired.
    pub async fn has_valid_api_key(&self) -> Result<bool> {
        let query = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM api_keys
                 WHERE revoked_at IS NULL AND coalesce(expires_at > ledger_now(), true)) AS found",
        );
        Ok(query.fetch_one(&self.pool).await?)
    }

    /// Revokes a key and ends its sessions; `false` if there is none of this id that was not revoked.
    pub async fn revoke_api_key(&self, id: Uuid) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let revoked = sqlx::query("UPDATE api_keys SET revoked_at = ledger_now() WHERE id = $1 AND revoked_at IS NULL")
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("DELETE FROM sessions WHERE key_id = $1").bind(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(revoked.rows_affected() == 1)
    }

    /// Creates a key with the name, tenant, scopes and expiry of the key `old`, which expires when `grace` has passed. `None`
    /// if `old` is unknown or not valid.
    pub async fn rotate_api_key(
        &self,
        old: Uuid,
        new_id: Uuid,
        secret_hash: SecretHash,
        grace: Duration,
    ) -> Result<Option<Rotated>> {
        let mut transaction = self.pool.begin().await?;
        let statement = format!("SELECT {COLUMNS} FROM api_keys k WHERE k.id = $1 FOR UPDATE");
        let row = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(old).fetch_optional(&mut *transaction).await?;
        let Some(key) = row.as_ref().map(read_key).transpose()?.map(|stored| stored.key).filter(|key| key.is_valid)
        else {
            return Ok(None);
        };
        let new = NewApiKey {
            id: new_id,
            name: &key.name,
            tenant: &key.tenant,
            scopes: key.scopes,
            secret_hash,
            lifetime: None,
        };
        insert(&mut transaction, &new, Some(old)).await?;
        sqlx::query("UPDATE api_keys SET expires_at = $2 WHERE id = $1")
            .bind(new_id)
            .bind(key.expires_at)
            .execute(&mut *transaction)
            .await?;
        let old_expires_at = sqlx::query_scalar(
            "UPDATE api_keys SET expires_at = least(expires_at, ledger_now() + make_interval(secs => $2)) WHERE id = $1
             RETURNING expires_at",
        )
        .bind(old)
        .bind(grace.as_secs_f64())
        .fetch_one(&mut *transaction)
        .await?;
        let statement = format!("SELECT {COLUMNS} FROM api_keys k WHERE k.id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(new_id).fetch_one(&mut *transaction).await?;
        let key = read_key(&row)?.key;
        transaction.commit().await?;
        Ok(Some(Rotated { key, old_expires_at }))
    }
}

async fn insert(connection: &mut PgConnection, new: &NewApiKey<'_>, rotated_from: Option<Uuid>) -> Result<()> {
    let scopes: Vec<&str> = new.scopes.iter().map(Scope::name).collect();
    sqlx::query(
        "INSERT INTO api_keys (id, name, tenant, scopes, secret_sha256, expires_at, rotated_from)
         VALUES ($1, $2, $3, $4, $5, ledger_now() + make_interval(secs => $6), $7)",
    )
    .bind(new.id)
    .bind(new.name)
    .bind(new.tenant)
    .bind(scopes)
    .bind(new.secret_hash.as_slice())
    .bind(new.lifetime.map(|lifetime| lifetime.as_secs_f64()))
    .bind(rotated_from)
    .execute(connection)
    .await?;
    Ok(())
}
