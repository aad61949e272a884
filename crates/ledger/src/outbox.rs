//! The transactional outbox: a message is written with the change that it announces, and deleted once the broker has confirmed
//! it.

use std::future::Future;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Postgres, Row};
use uuid::Uuid;

use crate::database::{Ledger, LedgerError, Result};
use polyglot_runtime::telemetry::TraceContext;

/// A message in the outbox: an export has work.
#[derive(Debug, Clone)]
pub struct OutboxMessage {
    pub export_id: Uuid,
    /// The trace context of the export.
    pub origin: TraceContext,
}

/// Writes "this export has work" in the caller's transaction.
pub(super) async fn announce(connection: &mut PgConnection, export_id: Uuid) -> Result<()> {
    sqlx::query("INSERT INTO outbox (export_id) VALUES ($1)").bind(export_id).execute(connection).await?;
    Ok(())
}

impl Ledger {
    /// Whether the outbox holds any message.
    pub async fn has_messages(&self) -> Result<bool> {
        Ok(sqlx::query("SELECT FROM outbox LIMIT 1").fetch_optional(&self.pool).await?.is_some())
    }

    /// Hands up to `limit` messages, oldest first, to `publish`, deletes them if it succeeds, and returns how many there were.
    /// Relays take turns, which keeps the order. A crash between the broker's confirmation and the delete repeats messages,
    /// which is harmless.
    pub async fn relay<E, F>(
        &self,
        limit: i64,
        publish: impl FnOnce(Vec<OutboxMessage>) -> F,
    ) -> std::result::Result<usize, E>
    where
        E: From<LedgerError>,
        F: Future<Output = std::result::Result<(), E>>,
    {
        let mut transaction = self.pool.begin().await.map_err(LedgerError::from)?;
        sqlx::query("SELECT pg_advisory_xact_lock(hashtext('polyglot relay'))")
            .execute(&mut *transaction)
            .await
            .map_err(LedgerError::from)?;
        let rows = sqlx::query(
            "SELECT o.id, o.export_id, e.trace_parent, e.trace_state
             FROM outbox o JOIN exports e ON e.id = o.export_id ORDER BY o.id LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await
        .map_err(LedgerError::from)?;
        if rows.is_empty() {
            return Ok(0);
        }
        let ids = column::<i64>(&rows, "id")?;
        let messages: Vec<OutboxMessage> = rows.iter().map(read_message).collect::<Result<_>>()?;
        if let Err(error) = publish(messages).await {
            // Not left to the drop, which would unlock the messages only some time later.
            transaction.rollback().await.map_err(LedgerError::from)?;
            return Err(error);
        }
        sqlx::query("DELETE FROM outbox WHERE id = ANY($1)")
            .bind(&ids)
            .execute(&mut *transaction)
            .await
            .map_err(LedgerError::from)?;
        transaction.commit().await.map_err(LedgerError::from)?;
        Ok(ids.len())
    }
}

fn read_message(row: &PgRow) -> Result<OutboxMessage> {
    let (trace_parent, trace_state) = (row.try_get("trace_parent")?, row.try_get("trace_state")?);
    let origin = TraceContext { request_id: None, trace_parent, trace_state };
    Ok(OutboxMessage { export_id: row.try_get("export_id")?, origin })
}

fn column<'r, T>(rows: &'r [PgRow], name: &'static str) -> Result<Vec<T>>
where
    T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    Ok(rows.iter().map(|row| row.try_get(name)).collect::<std::result::Result<_, _>>()?)
}
