//! The audit: what was done with the service, by whom and from where. Rows are only added, and deleted when they are old.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::database::{Ledger, Result};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditAction {
    Submit,
    Preview,
    /// A file, or a link to it, was handed out.
    Download,
    /// A manifest was handed out, with a link to each file where there are several.
    Manifest,
    Delete,
    SignIn,
    SignOut,
    CreateKey,
    RotateKey,
    RevokeKey,
    /// A request was refused, because of who sent it.
    Refuse,
}

impl AuditAction {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Submit => "export.submit",
            Self::Preview => "export.preview",
            Self::Download => "export.download",
            Self::Manifest => "export.manifest",
            Self::Delete => "export.delete",
            Self::SignIn => "session.create",
            Self::SignOut => "session.delete",
            Self::CreateKey => "key.create",
            Self::RotateKey => "key.rotate",
            Self::RevokeKey => "key.revoke",
            Self::Refuse => "request.refuse",
        }
    }
}

/// Who asked, and from where.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditOrigin<'a> {
    pub tenant: Option<&'a str>,
    pub caller: Option<&'a str>,
    pub address: Option<&'a str>,
    pub request_id: Option<&'a str>,
}

/// A row to add.
#[derive(Debug, Clone, Copy)]
pub struct AuditEvent<'a> {
    pub action: AuditAction,
    pub origin: AuditOrigin<'a>,
    pub export_id: Option<Uuid>,
    pub dataset: Option<&'a str>,
    pub rows: Option<i64>,
    pub bytes: Option<i64>,
    /// The filters of the request. Only a keyed hash of them is stored.
    pub filters: Option<&'a str>,
    pub detail: Option<&'a str>,
}

impl<'a> AuditEvent<'a> {
    #[must_use]
    pub fn new(action: AuditAction, origin: AuditOrigin<'a>) -> Self {
        Self { action, origin, export_id: None, dataset: None, rows: None, bytes: None, filters: None, detail: None }
    }
}

/// A row of the audit.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    pub id: i64,
    pub at: DateTime<Utc>,
    pub action: String,
    pub tenant: Option<String>,
    pub caller: Option<String>,
    pub address: Option<String>,
    pub request_id: Option<String>,
    pub export_id: Option<Uuid>,
    pub dataset: Option<String>,
    pub rows: Option<i64>,
    pub bytes: Option<i64>,
    pub filters_hash: Option<String>,
    pub detail: Option<String>,
}

impl Ledger {
    /// Adds a row. An action whose row cannot be added is not to be done.
    pub async fn record(&self, event: &AuditEvent<'_>) -> Result<()> {
        let mut connection = self.pool.acquire().await?;
        record(&mut connection, event).await
    }

    /// The first `limit` rows of these tenants after the row `after`, in order.
    pub async fn audit(&self, tenants: &[String], after: i64, limit: i64) -> Result<Vec<AuditEntry>> {
        let query = sqlx::query(
            "SELECT id, at, action, tenant, caller, address, request_id, export_id, dataset, rows, bytes, filters_hash, detail
             FROM audit WHERE tenant = ANY($1) AND id > $2 ORDER BY id LIMIT $3",
        );
        query.bind(tenants).bind(after).bind(limit).fetch_all(&self.pool).await?.iter().map(read_entry).collect()
    }

    /// Deletes up to `limit` rows that are older than `age`, and returns how many there were.
    pub async fn forget_audit(&self, age: Duration, limit: i64) -> Result<u64> {
        let query = sqlx::query(
            "DELETE FROM audit WHERE id IN (
                 SELECT id FROM audit WHERE at < ledger_now() - make_interval(secs => $1) ORDER BY at LIMIT $2)",
        );
        Ok(query.bind(age.as_secs_f64()).bind(limit).execute(&self.pool).await?.rows_affected())
    }
}

/// Adds a row in the caller's transaction.
pub(crate) async fn record(connection: &mut PgConnection, event: &AuditEvent<'_>) -> Result<()> {
    sqlx::query(
        "INSERT INTO audit (action, tenant, caller, address, request_id, export_id, dataset, rows, bytes, detail, filters_hash)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
                encode(sha256(secret || sha256(secret || convert_to($11, 'UTF8'))), 'hex')
         FROM audit_key",
    )
    .bind(event.action.name())
    .bind(event.origin.tenant)
    .bind(event.origin.caller)
    .bind(event.origin.address)
    .bind(event.origin.request_id)
    .bind(event.export_id)
    .bind(event.dataset)
    .bind(event.rows)
    .bind(event.bytes)
    .bind(event.detail)
    .bind(event.filters)
    .execute(connection)
    .await?;
    Ok(())
}

fn read_entry(row: &PgRow) -> Result<AuditEntry> {
    Ok(AuditEntry {
        id: row.try_get("id")?,
        at: row.try_get("at")?,
        action: row.try_get("action")?,
        tenant: row.try_get("tenant")?,
        caller: row.try_get("caller")?,
        address: row.try_get("address")?,
        request_id: row.try_get("request_id")?,
        export_id: row.try_get("export_id")?,
        dataset: row.try_get("dataset")?,
        rows: row.try_get("rows")?,
        bytes: row.try_get("bytes")?,
        filters_hash: row.try_get("filters_hash")?,
        detail: row.try_get("detail")?,
    })
}
