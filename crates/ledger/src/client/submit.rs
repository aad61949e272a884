//! Accepting an export: its row and the message that announces it, in one transaction. A request that asks for it
//! joins an identical one that is under way instead.

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::idempotency::{self, ReservedKey};
use crate::database::{Ledger, Result};
use polyglot_core::request::ExportRequest;
use polyglot_core::status::Status;
use polyglot_runtime::telemetry::TraceContext;

/// What is to be accepted, and on which terms.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    pub tenant: &'a str,
    pub request: &'a ExportRequest,
    /// Stands for the answer from now on.
    pub key: Option<&'a ReservedKey>,
    /// Whether an identical export of the tenant that is under way will do.
    pub join: bool,
    /// Of a new export; one that is joined keeps its own.
    pub origin: &'a TraceContext,
}

/// An export that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub id: Uuid,
    /// `pending`, or the state of the export that was joined.
    pub status: Status,
    /// The export was under way already.
    pub joined: bool,
}

impl Ledger {
    /// Stores a request as a pending export and returns its id.
    pub async fn submit(&self, tenant: &str, request: &ExportRequest) -> Result<Uuid> {
        let origin = &TraceContext::default();
        Ok(self.accept(Submission { tenant, request, key: None, join: false, origin }).await?.id)
    }

    /// Stores a submission as a pending export, or finds the one that it joins. The message is in the outbox when this
    /// returns; the relay publishes it.
    ///
    /// # Errors
    /// [`KeyTaken`](crate::LedgerError::KeyTaken) when another request has taken the key over meanwhile; nothing is stored then.
    pub async fn accept(&self, submission: Submission<'_>) -> Result<Accepted> {
        let mut transaction = self.pool.begin().await?;
        let under_way = if submission.join { identical(&mut transaction, submission).await? } else { None };
        let accepted = match under_way {
            Some(accepted) => accepted,
            None => create(&mut transaction, submission).await?,
        };
        if let Some(key) = submission.key {
            idempotency::answer(&mut transaction, key, &accepted).await?;
        }
        self.commit_change(transaction, accepted.id).await?;
        Ok(accepted)
    }
}

/// The newest export of the tenant that is the same request and has not ended. Requests that look for the same one take
/// turns until the caller's transaction ends, so that of several at once only the first creates it.
async fn identical(connection: &mut PgConnection, submission: Submission<'_>) -> Result<Option<Accepted>> {
    let request = sqlx::types::Json(submission.request);
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2::jsonb::text, 0))")
        .bind(submission.tenant)
        .bind(request)
        .execute(&mut *connection)
        .await?;
    let found = sqlx::query(
        "SELECT id, state FROM exports
         WHERE tenant = $1 AND dataset = $2 AND state IN ('pending', 'planning', 'running', 'finishing')
           AND NOT cancel_requested AND request = $3
         ORDER BY id DESC LIMIT 1",
    )
    .bind(submission.tenant)
    .bind(&submission.request.dataset)
    .bind(request)
    .fetch_optional(connection)
    .await?;
    let Some(found) = found else { return Ok(None) };
    let (id, state): (Uuid, String) = (found.try_get("id")?, found.try_get("state")?);
    Ok(Some(Accepted { id, status: crate::database::status(id, &state)?, joined: true }))
}

async fn create(connection: &mut PgConnection, submission: Submission<'_>) -> Result<Accepted> {
    let (id, request) = (Uuid::now_v7(), submission.request);
    sqlx::query(
        "INSERT INTO exports (id, tenant, request, dataset, format, compression, request_id, trace_parent, trace_state,
             token_due_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + interval '10 minutes')",
    )
    .bind(id)
    .bind(submission.tenant)
    .bind(sqlx::types::Json(request))
    .bind(&request.dataset)
    .bind(request.format.as_str())
    .bind(request.compression.map(polyglot_core::compression::Compression::name))
    .bind(&submission.origin.request_id)
    .bind(&submission.origin.trace_parent)
    .bind(&submission.origin.trace_state)
    .execute(&mut *connection)
    .await?;
    crate::outbox::announce(connection, id).await?;
    Ok(Accepted { id, status: Status::Pending, joined: false })
}
