//! Removing the values of filters from what the ledger keeps of an export: they may be personal data, and whoever deletes an
//! export does not expect them to stay.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::database::Result;

/// Removes the values of the request's filters, and the operator's error text, which may quote one. Columns and operators stay.
/// Nothing else that is stored has the values: idempotency keys have a hash of the request, messages the export's id.
pub(super) async fn remove_filter_values(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query(
        "UPDATE exports
         SET error_detail = NULL, request = jsonb_set(request, '{filters}',
             (SELECT jsonb_agg(filter - 'values' ORDER BY place)
              FROM jsonb_array_elements(request -> 'filters') WITH ORDINALITY AS filters (filter, place)))
         WHERE id = $1 AND jsonb_path_exists(request, '$.filters[*].values')",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}
