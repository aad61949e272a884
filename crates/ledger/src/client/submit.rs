//! Accepting an export: its row and the message that announces it, in one transaction. A request may instead join an identical
//! active export.

use sqlx::PgConnection;
use uuid::Uuid;

use super::accepted::Accepted;
use super::idempotency::{ReservedKey, store_answer};
use crate::audit::{AuditEvent, record};
use crate::database::{Ledger, Result, status};
use crate::outbox::announce;
use crate::tenant_limits::check_submission;
use polyglot_core::compression::Compression;
use polyglot_core::expected_size::ExpectedSize;
use polyglot_core::request::ExportRequest;
use polyglot_core::status::Status;
use polyglot_core::tenant_limits::TenantLimits;
use polyglot_runtime::telemetry::TraceContext;

/// A request to accept, and how.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    pub tenant: &'a str,
    /// The one caller of the tenant who may see the export; `None`: all of them.
    pub owner: Option<&'a str>,
    pub request: &'a ExportRequest,
    pub expected_size: ExpectedSize,
    /// Limits of the tenant, of which a new export must not pass any; `None`: there are none.
    pub limits: Option<&'a TenantLimits>,
    /// The row of the audit; its export and dataset are filled in.
    pub audit: Option<&'a AuditEvent<'a>>,
    /// The idempotency key that refers to the answer from now on.
    pub key: Option<&'a ReservedKey>,
    /// Whether to join an identical active export of the tenant.
    pub join: bool,
    /// The trace context of a new export; one that is joined keeps its own.
    pub origin: &'a TraceContext,
}

impl<'a> Submission<'a> {
    /// A submission without an idempotency key, of an export whose size is not known.
    #[must_use]
    pub fn new(tenant: &'a str, request: &'a ExportRequest) -> Self {
        static NO_ORIGIN: TraceContext = TraceContext { request_id: None, trace_parent: None, trace_state: None };
        Self {
            tenant,
            owner: None,
            limits: None,
            audit: None,
            request,
            expected_size: ExpectedSize::Medium,
            key: None,
            join: false,
            origin: &NO_ORIGIN,
        }
    }
}

impl Ledger {
    /// Stores a request as a pending export and returns its id.
    pub async fn submit(&self, tenant: &str, request: &ExportRequest) -> Result<Uuid> {
        Ok(self.accept(Submission::new(tenant, request)).await?.id)
    }

    /// Stores a submission as a pending export, or finds the one that it joins. The message is in the outbox when this
    /// returns; the relay publishes it.
    ///
    /// # Errors
    /// [`KeyTaken`](crate::LedgerError::KeyTaken) when another request has taken over the key, and
    /// [`LimitReached`](crate::LedgerError::LimitReached) when a new export would pass a limit; then nothing is stored.
    pub async fn accept(&self, submission: Submission<'_>) -> Result<Accepted> {
        let mut transaction = self.pool.begin().await?;
        let joined = if submission.join { find_identical(&mut transaction, submission).await? } else { None };
        let accepted = match joined {
            Some(accepted) => accepted,
            None => create(&mut transaction, submission).await?,
        };
        if let Some(key) = submission.key {
            store_answer(&mut transaction, key, &accepted).await?;
        }
        if let Some(event) = submission.audit {
            let event =
                AuditEvent { export_id: Some(accepted.id), dataset: Some(&submission.request.dataset), ..*event };
            record(&mut transaction, &event).await?;
        }
        self.commit_change(transaction, accepted.id).await?;
        Ok(accepted)
    }
}

/// The newest active export of the tenant with the same request. Identical requests take turns until the caller's transaction
/// ends, so that of several at once only the first creates an export.
async fn find_identical(connection: &mut PgConnection, submission: Submission<'_>) -> Result<Option<Accepted>> {
    let request = sqlx::types::Json(submission.request);
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2::jsonb::text, 0))")
        .bind(submission.tenant)
        .bind(request)
        .execute(&mut *connection)
        .await?;
    let found: Option<(Uuid, String)> = sqlx::query_as(
        "SELECT id, state FROM exports
         WHERE tenant = $1 AND dataset = $2 AND state IN ('pending', 'planning', 'running', 'finishing')
           AND NOT cancel_requested AND request = $3 AND owner IS NOT DISTINCT FROM $4
         ORDER BY id DESC LIMIT 1",
    )
    .bind(submission.tenant)
    .bind(&submission.request.dataset)
    .bind(request)
    .bind(submission.owner)
    .fetch_optional(connection)
    .await?;
    let Some((id, state)) = found else { return Ok(None) };
    Ok(Some(Accepted { id, status: status(id, &state)?, joined: true }))
}

async fn create(connection: &mut PgConnection, submission: Submission<'_>) -> Result<Accepted> {
    if let Some(limits) = submission.limits {
        check_submission(connection, submission.tenant, limits).await?;
    }
    let (id, request) = (Uuid::now_v7(), submission.request);
    sqlx::query(
        "INSERT INTO exports (id, tenant, request, dataset, format, compression, request_id, trace_parent, trace_state,
             is_small, needs_place, owner, token_due_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, ledger_now() + interval '10 minutes')",
    )
    .bind(id)
    .bind(submission.tenant)
    .bind(sqlx::types::Json(request))
    .bind(&request.dataset)
    .bind(request.format.as_str())
    .bind(request.compression.map(Compression::name))
    .bind(&submission.origin.request_id)
    .bind(&submission.origin.trace_parent)
    .bind(&submission.origin.trace_state)
    .bind(submission.expected_size == ExpectedSize::Small)
    .bind(submission.expected_size == ExpectedSize::Large)
    .bind(submission.owner)
    .execute(&mut *connection)
    .await?;
    announce(connection, id).await?;
    Ok(Accepted { id, status: Status::Pending, joined: false })
}
