//! The record of objects and multipart uploads that attempts have begun, so that whatever an attempt leaves
//! behind can be found and removed without listing the bucket.

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::claim::hold;
use super::{Claim, Ledger, Result};

/// Something in the object store that no export owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    pub export_id: Uuid,
    pub attempt: i32,
    pub object_key: String,
    pub upload_id: Option<String>,
    /// The object is the export's file: only uploads of its key are left over.
    pub owned: bool,
}

impl Ledger {
    /// Records the key an attempt is going to write. Call before the first request to the object store.
    pub async fn begin_upload(&self, claim: &Claim, object_key: &str) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        hold(&mut transaction, claim).await?;
        // A repeat of a call whose answer was lost finds its own row.
        sqlx::query("INSERT INTO uploads (export_id, attempt, object_key) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(claim.export_id)
            .bind(claim.attempt)
            .bind(object_key)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Records the multipart upload that was created for the key. Call before the first part.
    pub async fn record_upload(&self, claim: &Claim, upload_id: &str) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        hold(&mut transaction, claim).await?;
        sqlx::query("UPDATE uploads SET upload_id = $3 WHERE export_id = $1 AND attempt = $2")
            .bind(claim.export_id)
            .bind(claim.attempt)
            .bind(upload_id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// What ended or superseded attempts have left in the object store, oldest first.
    pub async fn leftovers(&self, limit: i64) -> Result<Vec<Leftover>> {
        let rows = sqlx::query(
            "SELECT u.export_id, u.attempt, u.object_key, u.upload_id,
                    coalesce(u.object_key = e.object_key, false) AS owned
             FROM uploads u JOIN exports e ON e.id = u.export_id
             WHERE (e.state NOT IN ('planning', 'running', 'finishing') OR u.attempt < e.attempt)
               AND (u.removed_at IS NULL OR u.removed_at < now() - interval '10 seconds')
             ORDER BY u.created_at LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Leftover {
                    export_id: row.try_get("export_id")?,
                    attempt: row.try_get("attempt")?,
                    object_key: row.try_get("object_key")?,
                    upload_id: row.try_get("upload_id")?,
                    owned: row.try_get("owned")?,
                })
            })
            .collect()
    }

    /// Nothing of that attempt was ever sent to the object store.
    pub async fn forget_upload(&self, export_id: Uuid, attempt: i32) -> Result<()> {
        forget(&mut *self.pool.acquire().await?, export_id, attempt).await
    }

    /// Nothing of that attempt is in the object store now. A request that a process was stopped in, or died of, may
    /// still arrive there, so the first time only begins a pause, and [`Self::leftovers`] comes with it once more.
    pub async fn upload_removed(&self, export_id: Uuid, attempt: i32) -> Result<()> {
        sqlx::query(
            "WITH seen_twice AS (
                 DELETE FROM uploads
                 WHERE export_id = $1 AND attempt = $2 AND removed_at < now() - interval '10 seconds')
             UPDATE uploads SET removed_at = now() WHERE export_id = $1 AND attempt = $2 AND removed_at IS NULL",
        )
        .bind(export_id)
        .bind(attempt)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Objects of expired exports that are still in the store.
    pub async fn expired_objects(&self, limit: i64) -> Result<Vec<(Uuid, String)>> {
        let rows = sqlx::query(
            "SELECT id, object_key FROM exports WHERE state = 'expired' AND object_key IS NOT NULL ORDER BY id LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("object_key")?))).collect()
    }
}

/// The object has become the export's file. What was a multipart upload is looked after once more: the SDK may have
/// repeated its Create, whose first answer was lost, and then there is another upload of the key that nobody knows.
pub(super) async fn published(connection: &mut PgConnection, export_id: Uuid, attempt: i32) -> Result<()> {
    sqlx::query(
        "WITH single AS (DELETE FROM uploads WHERE export_id = $1 AND attempt = $2 AND upload_id IS NULL)
         UPDATE uploads SET upload_id = NULL, removed_at = now()
         WHERE export_id = $1 AND attempt = $2 AND upload_id IS NOT NULL",
    )
    .bind(export_id)
    .bind(attempt)
    .execute(connection)
    .await?;
    Ok(())
}

async fn forget(connection: &mut PgConnection, export_id: Uuid, attempt: i32) -> Result<()> {
    sqlx::query("DELETE FROM uploads WHERE export_id = $1 AND attempt = $2")
        .bind(export_id)
        .bind(attempt)
        .execute(connection)
        .await?;
    Ok(())
}
