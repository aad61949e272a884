//! Idempotency keys: reserved before a request is validated, tied to the export in the transaction that accepts it, released
//! when the request is refused.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::accepted::Accepted;
use crate::database::{Ledger, LedgerError, Result, status};

/// Time for which a key is remembered.
pub(crate) const KEY_RETENTION: Duration = Duration::from_hours(24);

/// Time without an answer after which the process that reserved a key counts as dead.
const HOLDER_TIMEOUT: Duration = Duration::from_mins(1);

/// A client's key while its request is being processed.
#[derive(Debug, Clone)]
pub struct ReservedKey {
    tenant: String,
    key: String,
    holder: Uuid,
}

/// The result of a reservation.
#[derive(Debug)]
pub enum Reservation {
    /// The first request with this key. It ends in an export or in [`Ledger::release_key`].
    Ours(ReservedKey),
    /// The same request was accepted before, with this answer.
    Answered(Accepted),
    /// The first request is still being processed.
    InProgress,
    /// The key belongs to a request with another body.
    OtherBody,
}

impl Ledger {
    /// Reserves `key` for a request with this body.
    pub async fn reserve_key(&self, tenant: &str, key: &str, body: &[u8]) -> Result<Reservation> {
        let holder = Uuid::new_v4();
        // Twice, because a conflicting key may be deleted before it is read.
        for _ in 0..2 {
            let reserved = sqlx::query(
                "INSERT INTO idempotency_keys AS known (tenant, key, fingerprint, holder)
                 VALUES ($1, $2, sha256($3), $4)
                 ON CONFLICT (tenant, key) DO UPDATE
                 SET fingerprint = excluded.fingerprint, holder = excluded.holder, export_id = NULL, state = NULL,
                     joined = false, created_at = ledger_now()
                 WHERE known.created_at < ledger_now() - make_interval(secs => $5)
                    OR (known.export_id IS NULL AND known.created_at < ledger_now() - make_interval(secs => $6))",
            )
            .bind(tenant)
            .bind(key)
            .bind(body)
            .bind(holder)
            .bind(KEY_RETENTION.as_secs_f64())
            .bind(HOLDER_TIMEOUT.as_secs_f64())
            .execute(&self.pool)
            .await?;
            if reserved.rows_affected() == 1 {
                return Ok(Reservation::Ours(ReservedKey { tenant: tenant.to_owned(), key: key.to_owned(), holder }));
            }
            let known = sqlx::query(
                "SELECT fingerprint = sha256($3) AS same, export_id, state, joined FROM idempotency_keys
                 WHERE tenant = $1 AND key = $2",
            )
            .bind(tenant)
            .bind(key)
            .bind(body)
            .fetch_optional(&self.pool)
            .await?;
            let Some(known) = known else { continue };
            if !known.try_get::<bool, _>("same")? {
                return Ok(Reservation::OtherBody);
            }
            let Some(id) = known.try_get::<Option<Uuid>, _>("export_id")? else {
                return Ok(Reservation::InProgress);
            };
            let state: String = known.try_get("state")?;
            let status = status(id, &state)?;
            return Ok(Reservation::Answered(Accepted { id, status, joined: known.try_get("joined")? }));
        }
        Ok(Reservation::InProgress)
    }

    /// Releases the key of a refused request, so that the next try can use it.
    pub async fn release_key(&self, key: &ReservedKey) -> Result<()> {
        sqlx::query(
            "DELETE FROM idempotency_keys WHERE tenant = $1 AND key = $2 AND holder = $3 AND export_id IS NULL",
        )
        .bind(&key.tenant)
        .bind(&key.key)
        .bind(key.holder)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// Ties the key to the accepted export, in the caller's transaction.
pub(super) async fn store_answer(connection: &mut PgConnection, key: &ReservedKey, accepted: &Accepted) -> Result<()> {
    let tied = sqlx::query(
        "UPDATE idempotency_keys SET export_id = $4, state = $5, joined = $6
         WHERE tenant = $1 AND key = $2 AND holder = $3 AND export_id IS NULL",
    )
    .bind(&key.tenant)
    .bind(&key.key)
    .bind(key.holder)
    .bind(accepted.id)
    .bind(accepted.status.name())
    .bind(accepted.joined)
    .execute(connection)
    .await?;
    if tied.rows_affected() == 1 { Ok(()) } else { Err(LedgerError::KeyTaken) }
}
