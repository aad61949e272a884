//! Finding the piece of work that an export's next claim is for: a shard, or the coordinator's claim. The caller holds the
//! lock on the export's row.

use sqlx::PgConnection;
use uuid::Uuid;

use super::lease::COORDINATOR;
use crate::database::Result;

/// The `lease_owner` of a lost worker's leases once the loss is counted as a failure. They still run until they expire.
const COUNTED: &str = "lost";

/// A piece of work that nobody holds, or whose worker was lost.
pub(super) struct NextWork {
    pub(super) number: i32,
    /// A worker was lost, and that failure is not counted yet.
    pub(super) abandoned: bool,
    /// Another worker may claim another shard at once.
    pub(super) has_more: bool,
    /// The shard's range; `None` for the coordinator.
    pub(super) bounds: Option<serde_json::Value>,
}

/// The next shard after number `done` that nobody works on; `None` at the parallelism limit. Every shard up to `done` is
/// committed.
pub(super) async fn free_shard(
    connection: &mut PgConnection,
    id: Uuid,
    parallelism: i32,
    done: i32,
) -> Result<Option<NextWork>> {
    let at_work: i64 = sqlx::query_scalar(
        "SELECT count(*) AS n FROM shards WHERE export_id = $1 AND number > $2 AND state = 'leased' AND leased_until >= ledger_now()",
    )
    .bind(id)
    .bind(done)
    .fetch_one(&mut *connection)
    .await?;
    if at_work >= i64::from(parallelism) {
        return Ok(None);
    }
    let has_more = at_work + 1 < i64::from(parallelism);
    let abandoned = "SELECT number, bounds, lease_owner FROM shards
        WHERE export_id = $1 AND number > $2 AND state = 'leased' AND leased_until < ledger_now()
        ORDER BY number LIMIT 1 FOR UPDATE";
    let next = "SELECT number, bounds, lease_owner FROM shards
        WHERE export_id = $1 AND number > $2 AND state = 'free' ORDER BY number LIMIT 1 FOR UPDATE";
    for statement in [abandoned, next] {
        let found = sqlx::query_as(statement).bind(id).bind(done).fetch_optional(&mut *connection).await?;
        if let Some((number, bounds, lost)) = found {
            let lost: Option<String> = lost;
            let abandoned = lost.as_deref().is_some_and(|owner| owner != COUNTED);
            if abandoned {
                count_once(connection, id, lost.as_deref()).await?;
            }
            return Ok(Some(NextWork { number, abandoned, has_more, bounds: Some(bounds) }));
        }
    }
    Ok(None)
}

/// Marks all leases of a lost worker as counted. A worker that is lost with all its slots is one failure: otherwise a worker
/// with more slots than an export has attempts would end the export.
async fn count_once(connection: &mut PgConnection, id: Uuid, lost: Option<&str>) -> Result<()> {
    sqlx::query("UPDATE shards SET lease_owner = $3 WHERE export_id = $1 AND state = 'leased' AND lease_owner = $2")
        .bind(id)
        .bind(lost)
        .bind(COUNTED)
        .execute(connection)
        .await?;
    Ok(())
}

/// The coordinator's claim, unless a live worker holds it.
pub(super) async fn free_coordinator(connection: &mut PgConnection, id: Uuid) -> Result<Option<NextWork>> {
    sqlx::query("INSERT INTO shards (export_id, number) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(id)
        .bind(COORDINATOR)
        .execute(&mut *connection)
        .await?;
    let (leased, abandoned): (bool, bool) = sqlx::query_as(
        "SELECT state = 'leased' AS leased, coalesce(leased_until < ledger_now(), false) AS abandoned
         FROM shards WHERE export_id = $1 AND number = $2 FOR UPDATE",
    )
    .bind(id)
    .bind(COORDINATOR)
    .fetch_one(connection)
    .await?;
    Ok((!leased || abandoned).then_some(NextWork { number: COORDINATOR, abandoned, has_more: false, bounds: None }))
}

/// Sets when to look for work again, because all of it is leased or the parallelism limit is reached: when the first lease expires, unless a holder changes that
/// before.
pub(super) async fn postpone(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query(
        "UPDATE exports SET ready_at = coalesce(
             (SELECT min(leased_until) FROM shards WHERE export_id = $1 AND state = 'leased'), ledger_now() + interval '5 seconds')
         WHERE id = $1",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}
