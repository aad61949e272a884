//! Accepting an export: its row and the message that announces it, in one transaction.

use uuid::Uuid;

use super::{Ledger, Result};
use crate::request::ExportRequest;

impl Ledger {
    /// Stores `request` as a pending export and returns its id. The message is in the outbox when this returns;
    /// the relay publishes it.
    pub async fn submit(&self, tenant: &str, request: &ExportRequest) -> Result<Uuid> {
        let id = Uuid::now_v7();
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "INSERT INTO exports (id, tenant, request, dataset, format, compression, token_due_at)
             VALUES ($1, $2, $3, $4, $5, $6, now() + interval '10 minutes')",
        )
        .bind(id)
        .bind(tenant)
        .bind(sqlx::types::Json(request))
        .bind(&request.dataset)
        .bind(request.format.name())
        .bind(request.compression.map(crate::format::Compression::name))
        .execute(&mut *transaction)
        .await?;
        super::outbox::announce(&mut transaction, id).await?;
        transaction.commit().await?;
        Ok(id)
    }
}
