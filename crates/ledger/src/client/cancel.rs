//! Cancelling an export and deleting its file.

use sqlx::{Postgres, QueryBuilder, Row};
use uuid::Uuid;

use super::redact::remove_filter_values;
use super::tenant_view::TenantView;
use crate::audit::{AuditEvent, record};
use crate::database::{Ledger, Result, status};
use crate::work::delete_shards;
use polyglot_core::status::Status;

/// The result of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    Unknown,
    /// The export was active; it is cancelled now, or will be as soon as its worker notices.
    Cancelling,
    /// The export has ended. `object_key` is the file that is still to be deleted, if any.
    Ended {
        object_key: Option<String>,
    },
}

impl Ledger {
    /// Cancels an active export, or marks a completed one as expired so that its file can be deleted. The values of the request's
    /// filters are removed at once; a worker that is at work has them in memory. Safe to repeat.
    pub async fn delete(&self, id: Uuid) -> Result<Deletion> {
        self.delete_of(id, None, None).await
    }

    /// As [`Self::delete`], of an export in this view; `None`: of any.
    async fn delete_of(
        &self,
        id: Uuid,
        view: Option<TenantView<'_>>,
        audit: Option<&AuditEvent<'_>>,
    ) -> Result<Deletion> {
        let mut transaction = self.pool.begin().await?;
        let mut query = QueryBuilder::<Postgres>::new("SELECT e.state, e.object_key FROM exports e WHERE e.id = ");
        query.push_bind(id);
        if let Some(view) = view {
            view.push_condition(&mut query);
        }
        query.push(" FOR UPDATE");
        let Some(row) = query.build().fetch_optional(&mut *transaction).await? else {
            return Ok(Deletion::Unknown);
        };
        let state: String = row.try_get("state")?;
        let current = status(id, &state)?;
        if current == Status::Pending {
            // They belong to an attempt that was to be repeated.
            delete_shards(&mut transaction, id).await?;
        }
        let (statement, deletion) = match current {
            // Nobody holds a pending export, so it can end at once.
            Status::Pending => (
                Some(
                    "UPDATE exports SET state = 'cancelled', cancel_requested = true, finished_at = ledger_now(), token_due_at = NULL WHERE id = $1",
                ),
                Deletion::Cancelling,
            ),
            Status::Planning | Status::Running | Status::Finishing => {
                (Some("UPDATE exports SET cancel_requested = true WHERE id = $1"), Deletion::Cancelling)
            }
            Status::Completed => (
                // That a client asked for it distinguishes the export from one that expired by itself.
                Some(
                    "UPDATE exports SET state = 'expired', cancel_requested = true, expires_at = ledger_now() WHERE id = $1",
                ),
                Deletion::Ended { object_key: row.try_get("object_key")? },
            ),
            Status::Expired | Status::Failed | Status::Cancelled => {
                (None, Deletion::Ended { object_key: row.try_get("object_key")? })
            }
        };
        if let Some(statement) = statement {
            sqlx::query(statement).bind(id).execute(&mut *transaction).await?;
        }
        if let Some(event) = audit {
            record(&mut transaction, &AuditEvent { export_id: Some(id), ..*event }).await?;
        }
        remove_filter_values(&mut transaction, id).await?;
        self.commit_change(transaction, id).await?;
        Ok(deletion)
    }

    /// Records that the object of an expired export is deleted from the store.
    pub async fn object_deleted(&self, id: Uuid) -> Result<()> {
        sqlx::query("UPDATE exports SET object_key = NULL WHERE id = $1 AND state = 'expired'")
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

impl TenantView<'_> {
    /// As [`Ledger::delete`], with a row of the audit.
    pub async fn delete(&self, id: Uuid, audit: &AuditEvent<'_>) -> Result<Deletion> {
        self.ledger.delete_of(id, Some(*self), Some(audit)).await
    }
}
