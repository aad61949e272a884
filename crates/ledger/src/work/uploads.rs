//! The record of objects and multipart uploads that attempts have begun, so that whatever an attempt leaves
//! behind can be found and removed without listing the bucket.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::claim::Claim;
use polyglot_storage::OrphanedObject;

use super::claim::hold;
use crate::database::{Ledger, Result};

/// Something in the object store that no export owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    pub export_id: Uuid,
    pub attempt: i32,
    pub object: OrphanedObject,
    /// How often it was looked for before.
    pub looks: i16,
}

/// Until the second look: what was on the wire when the process died has arrived.
const SOON: Duration = Duration::from_secs(10);
/// Until the third and last one: a store works on a large Complete for minutes, whether or not its client is there.
const LATE: Duration = Duration::from_mins(15);
/// After each look but the last, which expects nothing more.
const PAUSES: [Duration; 2] = [SOON, LATE];
/// How long one process has for a look before another one takes it over.
const LOOK_TIME: Duration = Duration::from_secs(15);

impl Ledger {
    /// Records the key an attempt is going to write. Call before anything is begun outside of the ledger.
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
    pub async fn record_upload(&self, claim: &Claim, upload_key: &str, upload_id: &str) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        hold(&mut transaction, claim).await?;
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

    /// What ended or superseded attempts may have left and nobody else is looking for, those that wait longest first.
    /// Each is the caller's for 15 seconds, within which [`Self::looked`] wants to be called; otherwise it comes again.
    pub async fn leftovers(&self, limit: i64) -> Result<Vec<Leftover>> {
        let rows = sqlx::query(
            "WITH due AS (
                 SELECT u.export_id, u.attempt, coalesce(u.object_key = e.object_key, false) AS owned
                 FROM uploads u JOIN exports e ON e.id = u.export_id
                 WHERE (e.state NOT IN ('planning', 'running', 'finishing') OR u.attempt < e.attempt)
                   AND u.look_at <= now()
                 ORDER BY u.look_at LIMIT $1 FOR UPDATE OF u SKIP LOCKED)
             UPDATE uploads u SET look_at = now() + make_interval(secs => $2)
             FROM due WHERE u.export_id = due.export_id AND u.attempt = due.attempt
             RETURNING u.export_id, u.attempt, u.object_key, u.upload_id, coalesce(u.upload_key, u.object_key) AS upload_key,
                 due.owned, u.looks",
        )
        .bind(limit)
        .bind(LOOK_TIME.as_secs_f64())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Leftover {
                    export_id: row.try_get("export_id")?,
                    attempt: row.try_get("attempt")?,
                    object: OrphanedObject {
                        object_key: row.try_get("object_key")?,
                        upload_id: row.try_get("upload_id")?,
                        upload_key: row.try_get("upload_key")?,
                        owned: row.try_get("owned")?,
                    },
                    looks: row.try_get("looks")?,
                })
            })
            .collect()
    }

    /// Nothing of that attempt is left now. After the last look it is forgotten.
    pub async fn looked(&self, leftover: &Leftover) -> Result<()> {
        let Leftover { export_id, attempt, looks, .. } = leftover;
        // Only the look that was taken counts: another process may have gone on from there.
        let counted = match usize::try_from(*looks).ok().and_then(|looks| PAUSES.get(looks)) {
            Some(pause) => sqlx::query(
                "UPDATE uploads SET looks = looks + 1, look_at = now() + make_interval(secs => $4)
                 WHERE export_id = $1 AND attempt = $2 AND looks = $3",
            )
            .bind(export_id)
            .bind(attempt)
            .bind(looks)
            .bind(pause.as_secs_f64()),
            None => sqlx::query("DELETE FROM uploads WHERE export_id = $1 AND attempt = $2 AND looks = $3")
                .bind(export_id)
                .bind(attempt)
                .bind(looks),
        };
        counted.execute(&self.pool).await?;
        Ok(())
    }

    /// The attempt is about to remove what it has begun, which counts as the first look. It may have been taken for dead,
    /// and looked for, long ago.
    pub async fn abandon_upload(&self, leftover: &Leftover) -> Result<()> {
        sqlx::query(
            "INSERT INTO uploads (export_id, attempt, object_key, upload_id, upload_key, looks, look_at)
             VALUES ($1, $2, $3, $4, $6, 1, now() + make_interval(secs => $5))
             ON CONFLICT (export_id, attempt) DO UPDATE
             SET upload_id = excluded.upload_id, upload_key = excluded.upload_key, looks = excluded.looks,
                 look_at = excluded.look_at",
        )
        .bind(leftover.export_id)
        .bind(leftover.attempt)
        .bind(&leftover.object.object_key)
        .bind(&leftover.object.upload_id)
        .bind(SOON.as_secs_f64())
        .bind(&leftover.object.upload_key)
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

/// The object has become the export's file. What was a multipart upload is looked after twice more: the SDK may have
/// repeated its Create, whose first answer was lost, and then there is another upload of the key that nobody knows. So are
/// several objects: a frozen worker may hold a session on the source that only its own end or a look closes.
pub(super) async fn published(connection: &mut PgConnection, export_id: Uuid, attempt: i32) -> Result<()> {
    sqlx::query(
        "WITH single AS (
             DELETE FROM uploads
             WHERE export_id = $1 AND attempt = $2 AND upload_id IS NULL AND object_key NOT LIKE '%/')
         UPDATE uploads SET upload_id = NULL, looks = 1, look_at = now() + make_interval(secs => $3)
         WHERE export_id = $1 AND attempt = $2 AND (upload_id IS NOT NULL OR object_key LIKE '%/')",
    )
    .bind(export_id)
    .bind(attempt)
    .bind(SOON.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}
