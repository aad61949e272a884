//! What must hold after every step: whose turn it was, that the tables are what the model says, and rules over the tables
//! alone, whose SQL has nothing in common with the ledger's.

use std::collections::BTreeMap;

use polyglot_core::status::Status;
use polyglot_ledger::Turn;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::model::{Export, Micros, Outlook, Shard, ShardState};
use super::world::Checked;

/// Checks whose turn it was. `claimed` is the export of which the ledger has handed out work, as it was before; `None` if it has
/// found none. When the same call has ended exports, which can free a place and change the turns, their order is not checked.
pub(super) fn check_turn(
    exports: &[Export],
    claimed: Option<usize>,
    turn: Turn,
    now: Micros,
    place_is_free: bool,
    some_ended: bool,
) -> Checked {
    let claimable = || {
        let is_claimable = |export: &&Export| export.outlook(now, place_is_free) == Outlook::Claimable;
        exports.iter().filter(is_claimable)
    };
    // Work that may be found late is not missed.
    let begun: Vec<_> = claimable().filter(|export| export.is_begun() && export.late_until < now).collect();
    let waiting: Vec<_> = claimable().filter(|export| export.state == Status::Pending).collect();
    let small: Vec<_> = waiting.iter().copied().filter(|export| export.is_small).collect();
    let number = |export: &Export| exports.iter().position(|it| it.id == export.id).unwrap_or_default() + 1;
    let Some(claimed) = claimed.map(|at| &exports[at]) else {
        return match begun.first().or(waiting.first()) {
            Some(missed) => Err(format!("nothing is claimed, but export {} has work", number(missed))),
            None => Ok(()),
        };
    };
    if some_ended {
        return Ok(());
    }
    // Whoever waits and comes before begun work, and before others that wait.
    let first = match turn {
        Turn::Begun => &Vec::new(),
        Turn::Small => &small,
        Turn::Waiting => &waiting,
    };
    if claimed.is_begun() {
        if let Some(passed) = first.first() {
            return Err(format!(
                "begun export {} is claimed before export {}, which waits",
                number(claimed),
                number(passed)
            ));
        }
        return match begun.iter().find(|export| export.leased() < claimed.leased()) {
            Some(passed) => Err(format!("export {} has fewer workers than export {}", number(passed), number(claimed))),
            None => Ok(()),
        };
    }
    let rivals = if first.is_empty() { &waiting } else { first };
    if first.is_empty()
        && let Some(passed) = begun.first()
    {
        return Err(format!(
            "export {}, which waits, is claimed before begun export {}",
            number(claimed),
            number(passed)
        ));
    }
    if !rivals.iter().any(|export| export.id == claimed.id) {
        return Err(format!("export {} is claimed out of turn", number(claimed)));
    }
    let turns = |export: &Export| exports.iter().filter(|it| it.is_begun() && it.tenant == export.tenant).count();
    if let Some(passed) = rivals.iter().find(|export| turns(export) < turns(claimed)) {
        return Err(format!("it is the turn of export {}, not of export {}", number(passed), number(claimed)));
    }
    let is_older = |export: &&&Export| export.tenant == claimed.tenant && export.created_at < claimed.created_at;
    match rivals.iter().find(is_older) {
        Some(passed) => {
            Err(format!("export {} of the same tenant is older than export {}", number(passed), number(claimed)))
        }
        None => Ok(()),
    }
}

#[derive(sqlx::FromRow)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts")]
struct ExportRow {
    id: Uuid,
    state: String,
    cancel_requested: bool,
    attempt: i32,
    failures: i32,
    is_small: bool,
    needs_place: bool,
    has_place: bool,
    deadline: Option<i64>,
    deadline_left: Option<i64>,
    snapshot_until: Option<i64>,
    object_key: Option<String>,
}

type ShardRow = (Uuid, i32, String, i64, Option<i64>);

/// Compares the tables with the model.
pub(super) async fn check_rows(pool: &PgPool, exports: &[Export]) -> Checked {
    let rows: Vec<ExportRow> = sqlx::query_as(
        "SELECT id, state, cancel_requested, attempt, failures, is_small, needs_place, has_place, object_key,
             (extract(epoch FROM deadline_at) * 1000000)::bigint AS deadline,
             (extract(epoch FROM deadline_left) * 1000000)::bigint AS deadline_left,
             (extract(epoch FROM snapshot_until) * 1000000)::bigint AS snapshot_until
         FROM exports",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let shards: Vec<ShardRow> = sqlx::query_as(
        "SELECT export_id, number, state, fence, (extract(epoch FROM leased_until) * 1000000)::bigint FROM shards",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut shards_by_export: BTreeMap<Uuid, Vec<ShardRow>> = BTreeMap::new();
    for shard in shards {
        shards_by_export.entry(shard.0).or_default().push(shard);
    }
    let rows: BTreeMap<Uuid, ExportRow> = rows.into_iter().map(|row| (row.id, row)).collect();
    for (at, export) in exports.iter().enumerate() {
        let row = rows.get(&export.id).ok_or_else(|| format!("export {} is gone", at + 1))?;
        let shards = shards_by_export.remove(&export.id).unwrap_or_default();
        check_export(export, row)
            .and_then(|()| check_shards(export, &shards))
            .map_err(|problem| format!("export {}: {problem}", at + 1))?;
    }
    Ok(())
}

fn check_export(export: &Export, row: &ExportRow) -> Checked {
    let same = |name: &str, found: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
        let (found, expected) = (format!("{found:?}"), format!("{expected:?}"));
        if found == expected { Ok(()) } else { Err(format!("{name} is {found}, not {expected}")) }
    };
    same("the state", &row.state, &export.state.name())?;
    same("cancel_requested", &row.cancel_requested, &export.cancel_requested)?;
    same("the attempt", &row.attempt, &export.attempt)?;
    same("is_small", &row.is_small, &export.is_small)?;
    same("needs_place", &row.needs_place, &export.needs_place)?;
    same("has_place", &row.has_place, &export.has_place)?;
    same("whether there is a file", &row.object_key.is_some(), &export.published.is_some())?;
    if export.is_active() {
        same("the count of failures", &row.failures, &export.failures)?;
        same("the deadline", &row.deadline, &export.deadline)?;
        same("the rest of the deadline", &row.deadline_left, &export.deadline_left)?;
    }
    if export.is_begun() {
        same("the end of the snapshot", &row.snapshot_until, &export.snapshot_until)?;
    }
    Ok(())
}

fn check_shards(export: &Export, rows: &[ShardRow]) -> Checked {
    // A pending export may have shards of the attempt before, or none, so only what is leased counts.
    for (_, number, state, fence, until) in rows {
        let Some(shard) = export.shards.get(number) else {
            if state == "free" {
                continue;
            }
            return Err(format!("shard {number} is {state}, and is not known"));
        };
        let expected = match shard.state {
            ShardState::Free => ("free", None),
            ShardState::Leased { until, .. } => ("leased", Some(until)),
            ShardState::Committed => ("committed", None),
        };
        if (state.as_str(), *until) != expected || *fence != shard.fence {
            return Err(format!("shard {number} is {state} until {until:?} with fence {fence}, not {shard:?}"));
        }
    }
    let is_missing = |(number, shard): &(&i32, &Shard)| {
        shard.state != ShardState::Free && !rows.iter().any(|(_, row, ..)| row == *number)
    };
    match export.shards.iter().find(is_missing) {
        Some((number, _)) => Err(format!("shard {number} is gone")),
        None => Ok(()),
    }
}

/// Each part returns the exports that break a rule. `$1` is the number of places.
const RULES: &str = "
    SELECT 'more exports have a place than there are places' AS rule FROM exports
    GROUP BY () HAVING sum((has_place AND state IN ('planning', 'running'))::int) > $1
    UNION ALL
    SELECT 'a sharded export is read without a place' FROM exports
    WHERE state = 'running' AND plan IS NOT NULL AND NOT has_place
    UNION ALL
    SELECT 'an export that is one stream has a place' FROM exports
    WHERE state = 'running' AND plan IS NULL AND has_place
    UNION ALL
    SELECT 'an export that waits has a deadline that goes on' FROM exports
    WHERE state = 'pending' AND needs_place AND deadline_at IS NOT NULL
    UNION ALL
    SELECT 'an export that has ended has a place' FROM exports
    WHERE finished_at IS NOT NULL AND has_place
    UNION ALL
    SELECT 'an export that has ended has shards' FROM exports e JOIN shards s ON s.export_id = e.id
    WHERE e.finished_at IS NOT NULL
    UNION ALL
    SELECT 'an export that has ended has holders of its snapshot' FROM exports e JOIN keepers k ON k.export_id = e.id
    WHERE e.finished_at IS NOT NULL OR k.attempt <> e.attempt
    UNION ALL
    SELECT 'an export that nobody has begun has leases' FROM exports e JOIN shards s ON s.export_id = e.id
    WHERE e.state = 'pending' AND (s.lease_owner IS NOT NULL OR s.leased_until IS NOT NULL)
    UNION ALL
    SELECT 'more shards are read at a time than may be'
    FROM exports e JOIN shards s ON s.export_id = e.id JOIN clock ON s.leased_until >= clock.at
    WHERE s.number <> 0 GROUP BY e.id HAVING count(*) > e.parallelism
    UNION ALL
    SELECT 'committed_to passes a shard that is not committed' FROM shards s JOIN exports e ON e.id = s.export_id
    WHERE e.state IN ('running', 'finishing') AND s.number BETWEEN 1 AND e.committed_to AND s.state <> 'committed'
    UNION ALL
    SELECT 'an export is finished without all of its shards' FROM exports e
    WHERE e.state = 'finishing' AND e.plan IS NOT NULL
      AND e.shards <> (SELECT count(*) FROM shards s WHERE s.export_id = e.id AND s.number > 0 AND s.crc32 IS NOT NULL)
    UNION ALL
    SELECT 'an export is completed more than once' FROM state_changes
    WHERE state = 'completed' GROUP BY export_id HAVING count(*) > 1
    LIMIT 1";

pub(super) async fn check_sql(pool: &PgPool, places: u16) -> Checked {
    let broken: Option<String> = sqlx::query_scalar(RULES).bind(i64::from(places)).fetch_optional(pool).await.unwrap();
    broken.map_or(Ok(()), Err)
}
