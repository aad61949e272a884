//! The record of objects and multipart uploads that attempts have begun, so that orphaned ones can be found and removed
//! without listing the bucket.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::lease::{Claim, lock_claim};
use crate::database::{Ledger, Result};
use polyglot_storage::OrphanedObject;

/// An object or multipart upload that no export owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrphanedUpload {
    pub export_id: Uuid,
    pub attempt: i32,
    pub object: OrphanedObject,
    /// Cleanup passes that are done.
    pub cleanup_passes: i16,
}

/// Delay before the second pass: a request that was in flight when the process died has arrived by then.
const SECOND_PASS_DELAY: Duration = Duration::from_secs(10);
/// Delay before the third and last pass: a store may work on a large Complete for minutes after its client has disconnected.
const LAST_PASS_DELAY: Duration = Duration::from_mins(15);
/// Delays after every pass but the last.
const PASS_DELAYS: [Duration; 2] = [SECOND_PASS_DELAY, LAST_PASS_DELAY];
/// Time that one process has for a pass before another may take it over.
const PASS_TIMEOUT: Duration = Duration::from_secs(15);

impl Ledger {
    /// Records the key that an attempt is going to write. Call it before anything is begun in the object store.
    pub async fn begin_upload(&self, claim: &Claim, object_key: &str) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        lock_claim(&mut transaction, claim).await?;
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

    /// Records the multipart upload that was created for the key. Call it before the first part.
    pub async fn record_upload(&self, claim: &Claim, upload_key: &str, upload_id: &str) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        lock_claim(&mut transaction, claim).await?;
        sqlx::query("UPDATE uploads SET upload_id = $3, upload_key = $4 WHERE export_id = $1 AND attempt = $2")
            .bind(claim.export_id)
            .bind(claim.attempt)
            .bind(upload_id)
            .bind(upload_key)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Uploads of ended or superseded attempts whose next cleanup pass is due, longest wait first. Each is the caller's for 15
    /// seconds; it is returned again unless [`Self::mark_checked`] is called within them.
    pub async fn orphaned_uploads(&self, limit: i64) -> Result<Vec<OrphanedUpload>> {
        let rows = sqlx::query(
            "WITH due AS (
                 SELECT u.export_id, u.attempt, coalesce(u.object_key = e.object_key, false) AS owned
                 FROM uploads u JOIN exports e ON e.id = u.export_id
                 WHERE (e.state NOT IN ('planning', 'running', 'finishing') OR u.attempt < e.attempt)
                   AND u.look_at <= ledger_now()
                 ORDER BY u.look_at LIMIT $1 FOR UPDATE OF u SKIP LOCKED)
             UPDATE uploads u SET look_at = ledger_now() + make_interval(secs => $2)
             FROM due WHERE u.export_id = due.export_id AND u.attempt = due.attempt
             RETURNING u.export_id, u.attempt, u.object_key, u.upload_id, coalesce(u.upload_key, u.object_key) AS upload_key,
                 due.owned, u.looks",
        )
        .bind(limit)
        .bind(PASS_TIMEOUT.as_secs_f64())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(OrphanedUpload {
                    export_id: row.try_get("export_id")?,
                    attempt: row.try_get("attempt")?,
                    object: OrphanedObject {
                        object_key: row.try_get("object_key")?,
                        upload_id: row.try_get("upload_id")?,
                        upload_key: row.try_get("upload_key")?,
                        owned: row.try_get("owned")?,
                    },
                    cleanup_passes: row.try_get("looks")?,
                })
            })
            .collect()
    }

    /// Records that a cleanup pass has removed everything of that attempt. After the last pass the record is deleted.
    pub async fn mark_checked(&self, upload: &OrphanedUpload) -> Result<()> {
        let OrphanedUpload { export_id, attempt, cleanup_passes, .. } = upload;
        // Only this pass counts: another process may have done later ones.
        let counted = match usize::try_from(*cleanup_passes).ok().and_then(|passes| PASS_DELAYS.get(passes)) {
            Some(pause) => sqlx::query(
                "UPDATE uploads SET looks = looks + 1, look_at = ledger_now() + make_interval(secs => $4)
                 WHERE export_id = $1 AND attempt = $2 AND looks = $3",
            )
            .bind(export_id)
            .bind(attempt)
            .bind(cleanup_passes)
            .bind(pause.as_secs_f64()),
            None => sqlx::query("DELETE FROM uploads WHERE export_id = $1 AND attempt = $2 AND looks = $3")
                .bind(export_id)
                .bind(attempt)
                .bind(cleanup_passes),
        };
        counted.execute(&self.pool).await?;
        Ok(())
    }

    /// Records that the attempt itself is about to remove what it has begun, which counts as the first pass. Other processes may
    /// have taken the attempt for dead, and have done all passes, long ago.
    pub async fn abandon_upload(&self, upload: &OrphanedUpload) -> Result<()> {
        sqlx::query(
            "INSERT INTO uploads (export_id, attempt, object_key, upload_id, upload_key, looks, look_at)
             VALUES ($1, $2, $3, $4, $6, 1, ledger_now() + make_interval(secs => $5))
             ON CONFLICT (export_id, attempt) DO UPDATE
             SET upload_id = excluded.upload_id, upload_key = excluded.upload_key, looks = excluded.looks,
                 look_at = excluded.look_at",
        )
        .bind(upload.export_id)
        .bind(upload.attempt)
        .bind(&upload.object.object_key)
        .bind(&upload.object.upload_id)
        .bind(SECOND_PASS_DELAY.as_secs_f64())
        .bind(&upload.object.upload_key)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Objects of expired exports that are still in the store.
    pub async fn expired_objects(&self, limit: i64) -> Result<Vec<(Uuid, String)>> {
        let objects = sqlx::query_as(
            "SELECT id, object_key FROM exports WHERE state = 'expired' AND object_key IS NOT NULL ORDER BY id LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        Ok(objects)
    }
}

/// Records that the object has become the export's file. A multipart upload keeps two more cleanup passes: the SDK may have
/// repeated its Create because the first answer was lost, and then the key has a second, unknown upload. So does a result of
/// several objects: a frozen worker may hold a session on the source that only a cleanup pass, or its own end, closes.
pub(super) async fn mark_published(connection: &mut PgConnection, export_id: Uuid, attempt: i32) -> Result<()> {
    sqlx::query(
        "WITH single AS (
             DELETE FROM uploads
             WHERE export_id = $1 AND attempt = $2 AND upload_id IS NULL AND object_key NOT LIKE '%/')
         UPDATE uploads SET upload_id = NULL, looks = 1, look_at = ledger_now() + make_interval(secs => $3)
         WHERE export_id = $1 AND attempt = $2 AND (upload_id IS NOT NULL OR object_key LIKE '%/')",
    )
    .bind(export_id)
    .bind(attempt)
    .bind(SECOND_PASS_DELAY.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}
