//! Whether all that an export reads is of the moment of its snapshot. A relation is locked before the snapshot is taken, and a view
//! with every relation that its query names, so no TRUNCATE can come between. What a function reads is not locked: its rows may be
//! gone under the snapshot, and the new ones not there yet. A foreign table is read from another server, at a moment of its own.

use polyglot_core::failure::Failure;
use polyglot_core::relation::{Relation, RelationKind};

use crate::read::{Source, failed};

/// The dependencies of a view are those of its rewrite rule. PostgreSQL records none on what it has built in, the oids of which are
/// below 16384 (`FirstNormalObjectId`); an immutable function reads no table. A materialized view is read as it is stored.
const READS_ELSEWHERE: &str = "
    WITH RECURSIVE reads(oid) AS (
        SELECT to_regclass(format('%I.%I', $1::text, $2::text))::oid
      UNION
        SELECT next.oid
        FROM reads CROSS JOIN LATERAL (
            SELECT d.refobjid
            FROM pg_class v JOIN pg_rewrite w ON w.ev_class = v.oid
                 JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                                 AND d.refclassid = 'pg_class'::regclass
            WHERE v.oid = reads.oid AND v.relkind = 'v'
          UNION ALL
            SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = reads.oid) AS next(oid))
    SELECT EXISTS (
        SELECT FROM reads JOIN pg_class c ON c.oid = reads.oid
        WHERE c.relkind = 'f'
           OR c.relkind = 'v' AND EXISTS (
                SELECT
                FROM pg_rewrite w
                     JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                     LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
                     JOIN pg_proc p ON p.oid = CASE WHEN d.refclassid = 'pg_proc'::regclass THEN d.refobjid ELSE o.oprcode::oid END
                WHERE w.ev_class = c.oid AND p.provolatile <> 'i' AND p.oid >= 16384))";

/// Returns whether every row is surely of the moment of the transaction's snapshot.
pub(crate) async fn is_promised(source: &mut Source, relation: &Relation) -> Result<bool, Failure> {
    // A table has neither a query of its own nor, but for its partitions, other relations.
    if matches!(relation.kind, RelationKind::Table | RelationKind::MaterializedView) {
        return Ok(true);
    }
    let reads_elsewhere: bool = sqlx::query_scalar(READS_ELSEWHERE)
        .bind(&relation.name.schema)
        .bind(&relation.name.name)
        .fetch_one(source.secured().await?)
        .await
        .map_err(failed)?;
    Ok(!reads_elsewhere)
}
