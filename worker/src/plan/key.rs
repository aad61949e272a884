//! The columns along which an export can be sharded: the first columns of its order, where a unique index has exactly
//! these columns.

use polyglot_core::column::WireType;
use polyglot_core::failure::Failure;
use polyglot_core::order::Order;
use polyglot_core::relation::Relation;
use polyglot_core::single_stream_reason::SingleStreamReason;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use crate::read::failed;

/// The columns of each index that orders all rows, each index in an array of its own: it is unique at any moment,
/// leaves no row out, has no NULLs, and sorts as `ORDER BY` does. A unique index of a table does not cover the tables
/// that inherit from it; that of a partitioned table covers all its partitions.
const INDEXES: &str = "
    SELECT array_agg(a.attname::text ORDER BY k.position) AS columns
    FROM pg_class c
         JOIN pg_index i ON i.indrelid = c.oid
         JOIN pg_class index ON index.oid = i.indexrelid
         JOIN pg_am am ON am.oid = index.relam
         CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indoption::int2[], i.indclass::oid[], i.indcollation::oid[])
             WITH ORDINALITY AS k(attnum, option, opclass, sorted_by, position)
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
         LEFT JOIN pg_opclass o ON o.oid = k.opclass
    WHERE c.oid = to_regclass(format('%I.%I', $1::text, $2::text))
      AND NOT (c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits child WHERE child.inhparent = c.oid))
      AND am.amname = 'btree' AND i.indisunique AND i.indisvalid AND i.indimmediate
      AND i.indpred IS NULL AND i.indexprs IS NULL AND k.position <= i.indnkeyatts
    GROUP BY i.indexrelid
    HAVING bool_and(a.attnotnull AND o.opcdefault AND k.sorted_by = a.attcollation)
           -- From PostgreSQL 18 on NOT NULL may not have been checked for the rows there are.
           AND NOT bool_or(EXISTS (SELECT FROM pg_constraint n WHERE n.conrelid = c.oid AND n.contype = 'n'
                                   AND NOT n.convalidated AND k.attnum = ANY (n.conkey)))
           -- No index range is an order that goes up in one column and down in another.
           AND count(DISTINCT k.option & 1) = 1
    ORDER BY count(*), i.indexrelid";

/// Returns the number of the order's first columns that are those of such an index, or the reason why there are none.
pub(super) async fn key_columns(
    connection: &mut PgConnection,
    relation: &Relation,
    order: &Order,
) -> Result<Result<usize, SingleStreamReason>, Failure> {
    let indexes = sqlx::query(INDEXES)
        .bind(&relation.name.schema)
        .bind(&relation.name.name)
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let mut reason = SingleStreamReason::NoKey;
    for index in indexes {
        let columns: Vec<String> = index.try_get("columns").map_err(failed)?;
        let Some(keys) = order.keys.get(..columns.len()) else { continue };
        if !keys.iter().map(|key| &key.column).eq(&columns) {
            continue;
        }
        // A bound is a key's text, which the server reads back: only for types whose text is known to be exact.
        let is_exact = |name: &String| {
            relation.column(name).is_some_and(|column| column.wire != WireType::TextForm && column.array.is_none())
        };
        if keys.iter().any(|key| key.direction != keys[0].direction) {
            reason = SingleStreamReason::MixedDirections;
        } else if columns.iter().all(is_exact) {
            return Ok(Ok(columns.len()));
        } else {
            reason = SingleStreamReason::KeyType;
        }
    }
    Ok(Err(reason))
}
