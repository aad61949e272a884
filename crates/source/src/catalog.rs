//! Reading PostgreSQL's catalog: a relation's columns, their wire types, its primary key and an estimate of its size. Rows are
//! not read here.

use std::collections::HashMap;
use std::sync::LazyLock;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use polyglot_core::column::{ArrayType, Column, TypeNames, WireType};
use polyglot_core::relation::{Relation, RelationKind, RelationName};

use crate::foreign_code::RUNS_FOREIGN_CODE;

/// The wire type for the oid of a type (`pg_type.dat`; the oids of built-in types never change), its `typtype` and its modifier.
fn wire_type(oid: i64, typtype: &str, typmod: i32) -> WireType {
    match (oid, typtype) {
        (16, _) => WireType::Bool,
        (21, _) => WireType::Int2,
        (23, _) => WireType::Int4,
        (20, _) => WireType::Int8,
        (700, _) => WireType::Float4,
        (701, _) => WireType::Float8,
        (1700, _) => WireType::Numeric(numeric_modifier(typmod)),
        // text, name, bpchar, varchar
        (25 | 19 | 1042 | 1043, _) | (_, "e") => WireType::Text,
        (17, _) => WireType::Bytea,
        (1082, _) => WireType::Date,
        (1083, _) => WireType::Time,
        (1114, _) => WireType::Timestamp,
        (1184, _) => WireType::TimestampTz,
        (2950, _) => WireType::Uuid,
        (114, _) => WireType::Json,
        (3802, _) => WireType::Jsonb,
        _ => WireType::TextForm,
    }
}

/// `numeric(p, s)` as `atttypmod` packs it: `((p << 16) | (s & 0x7ff)) + 4`, s in 11 signed bits
/// (`make_numeric_typmod` in PostgreSQL's numeric.c).
fn numeric_modifier(typmod: i32) -> Option<(u16, i16)> {
    let packed = u32::try_from(typmod.checked_sub(4)?).ok()?;
    let precision = u16::try_from(packed >> 16).ok()?;
    let scale = i16::try_from(packed & 0x7ff).ok()?;
    Some((precision, if scale >= 1024 { scale - 2048 } else { scale }))
}

/// The kind of a relation, from `pg_class.relkind`.
fn relation_kind(relkind: &str) -> RelationKind {
    match relkind {
        "p" => RelationKind::PartitionedTable,
        "v" => RelationKind::View,
        "m" => RelationKind::MaterializedView,
        "f" => RelationKind::ForeignTable,
        _ => RelationKind::Table,
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("there is no relation {0} that the service may read")]
    NoSuchRelation(RelationName),
    #[error("the source database could not be asked")]
    Database(#[from] sqlx::Error),
}

// Sizes and numbers of rows are those of the relation with all its partitions (or inheriting tables).
//
// A function that reads a size waits for a lock that keeps readers out (LOCK TABLE, ALTER TABLE, VACUUM FULL, TRUNCATE), and for
// one that is waited for, too. Such a relation must not hide the others, so its size is left unknown. This session waits for
// nobody on what it has locked itself, as a worker has.
static RELATIONS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH exclusive(oid) AS MATERIALIZED (
        SELECT relation FROM pg_locks
        WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND pid <> pg_backend_pid()
          AND database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      EXCEPT
        SELECT relation FROM pg_locks WHERE locktype = 'relation' AND granted AND pid = pg_backend_pid())
    SELECT wanted.place, c.oid::int8 AS oid, c.relkind::text AS kind, stored.tuples, stored.analyzed, stored.bytes,
           stored.toast_bytes,
           c.oid IN (SELECT e.oid FROM exclusive e) OR coalesce(stored.locked, false) AS locked,
           -- A key of the parent alone does not tell rows of its children apart.
           NOT (c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid)) AS own_key,
           {RUNS_FOREIGN_CODE} AS runs_foreign_code
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted(schema, name, place)
         JOIN pg_namespace n ON n.nspname = wanted.schema
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
         CROSS JOIN LATERAL (
             WITH RECURSIVE tree(oid) AS (
                 SELECT c.oid
               UNION ALL
                 SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid)
             -- A view keeps 0 for ever, a table that was never analyzed says -1 (0 before PostgreSQL 14).
             SELECT sum(leaf.reltuples::float8) AS tuples, bool_and(leaf.reltuples >= 0) AS analyzed,
                    bool_or(part.locked) AS locked,
                    -- CASE, because the argument of an aggregate is computed for every row that is not excluded before.
                    sum(CASE WHEN NOT part.locked THEN pg_table_size(leaf.oid) END)::int8 AS bytes,
                    -- What a foreign server stores is not known.
                    CASE WHEN NOT bool_or(leaf.relkind = 'f' OR part.locked)
                         THEN sum(CASE WHEN NOT part.locked
                                       THEN coalesce(pg_relation_size(leaf.reltoastrelid), 0) END)::int8 END AS toast_bytes
             FROM tree JOIN pg_class leaf ON leaf.oid = tree.oid AND leaf.relkind IN ('r', 'm', 'f')
                  CROSS JOIN LATERAL (
                      SELECT EXISTS (SELECT FROM exclusive e
                                     WHERE e.oid IN (leaf.oid, leaf.reltoastrelid)
                                        OR e.oid IN (SELECT i.indexrelid FROM pg_index i
                                                     WHERE i.indrelid = leaf.reltoastrelid)) AS locked
                  ) AS part
         ) AS stored
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_schema_privilege(n.oid, 'USAGE')
      AND has_table_privilege(c.oid, 'SELECT')
    ORDER BY wanted.place"
    )
});

// A domain travels as the type at its bottom. A type is an array if it is the array type of its items' type.
const COLUMNS: &str = "
    WITH RECURSIVE attribute AS (
        SELECT * FROM pg_attribute
        WHERE attrelid = ANY ($1::int8[]::oid[]) AND attnum > 0 AND NOT attisdropped),
    bottom(attrelid, attnum, typid, typmod, dimensions) AS (
        -- The number of dimensions is int2 or int4, by the version.
        SELECT attrelid, attnum, atttypid, atttypmod, attndims::int4 FROM attribute
      UNION ALL
        SELECT b.attrelid, b.attnum, t.typbasetype, t.typtypmod, t.typndims::int4
        FROM bottom b JOIN pg_type t ON t.oid = b.typid WHERE t.typtype = 'd'),
    item(attrelid, attnum, typid, typmod) AS (
        SELECT b.attrelid, b.attnum, t.oid, b.typmod
        FROM bottom b JOIN pg_type a ON a.oid = b.typid JOIN pg_type t ON t.oid = a.typelem AND t.typarray = a.oid
      UNION ALL
        SELECT i.attrelid, i.attnum, t.typbasetype, t.typtypmod
        FROM item i JOIN pg_type t ON t.oid = i.typid WHERE t.typtype = 'd')
    SELECT a.attrelid::int8 AS relation, a.attname::text AS name,
           -- As somebody with the usual search path sees it; this session has none in which the schema `public` is.
           regexp_replace(format_type(a.atttypid, a.atttypmod), '^public[.]', '') AS sql_type, NOT a.attnotnull AS nullable,
           a.attgenerated = 'v' AS computed,
           type_schema.nspname::text AS type_schema, t.typname::text AS type_name,
           -- The operators of a type that an extension has brought are where those of its default order are.
           CASE WHEN type_schema.nspname <> 'pg_catalog' AND t.typtype = 'b' AND t.typelem = 0
                THEN (SELECT s.nspname::text
                      FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree'
                           JOIN pg_amop ao ON ao.amopfamily = o.opcfamily AND ao.amoplefttype = o.opcintype
                                           AND ao.amoprighttype = o.opcintype AND ao.amopstrategy = 3
                           JOIN pg_operator equal ON equal.oid = ao.amopopr JOIN pg_namespace s ON s.oid = equal.oprnamespace
                      WHERE o.opcintype = t.oid AND o.opcdefault) END AS operators,
           t.oid::int8 AS oid, t.typtype::text AS typtype, t.typcategory::text AS category, t.typlen, bottom.typmod,
           bottom.dimensions, array_item.oid::int8 AS item_oid, array_item.typtype::text AS item_typtype,
           item.typmod AS item_typmod, ascii(array_item.typdelim::text) AS delimiter
    FROM bottom JOIN pg_type t ON t.oid = bottom.typid AND t.typtype <> 'd'
         JOIN pg_namespace type_schema ON type_schema.oid = t.typnamespace
         JOIN attribute a USING (attrelid, attnum)
         LEFT JOIN (item JOIN pg_type array_item ON array_item.oid = item.typid AND array_item.typtype <> 'd')
             ON item.attrelid = a.attrelid AND item.attnum = a.attnum
    ORDER BY a.attrelid, a.attnum";

const PRIMARY_KEYS: &str = "
    SELECT i.indrelid::int8 AS relation, a.attname::text AS name
    FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position), pg_attribute a
    WHERE i.indrelid = ANY ($1::int8[]::oid[]) AND i.indisprimary AND i.indisvalid
      AND a.attrelid = i.indrelid AND a.attnum = k.attnum
      AND k.position <= i.indnkeyatts
    ORDER BY i.indrelid, k.position";

const RELATIONS_IN: &str = "
    SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_schema_privilege(n.oid, 'USAGE')
      AND has_table_privilege(c.oid, 'SELECT')
      -- A partition is part of its table.
      AND NOT c.relispartition
    ORDER BY c.relname";

/// The names of everything in `schema` that could be exported, sorted.
pub async fn relations_in(connection: &mut PgConnection, schema: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(RELATIONS_IN).bind(schema).fetch_all(connection).await
}

/// Describes `name`, or says that there is no such relation.
pub async fn describe(connection: &mut PgConnection, name: &RelationName) -> Result<Relation, CatalogError> {
    let found = describe_all(connection, std::slice::from_ref(name)).await?;
    found.into_iter().next().flatten().ok_or_else(|| CatalogError::NoSuchRelation(name.clone()))
}

/// Describes every one of `names`, in their order; `None` for those that do not exist.
pub async fn describe_all(
    connection: &mut PgConnection,
    names: &[RelationName],
) -> Result<Vec<Option<Relation>>, sqlx::Error> {
    let schemas: Vec<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let relations: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
    let mut described: Vec<Option<Relation>> = vec![None; names.len()];
    // Several names may stand for one relation.
    let mut places: HashMap<i64, Vec<usize>> = HashMap::new();
    let rows = sqlx::query(RELATIONS.as_str()).bind(schemas).bind(relations).fetch_all(&mut *connection).await?;
    let mut keyless = Vec::new();
    for row in rows {
        let place = usize::try_from(row.try_get::<i64, _>("place")? - 1).unwrap_or(usize::MAX);
        let Some(name) = names.get(place) else { continue };
        let oid = row.try_get("oid")?;
        places.entry(oid).or_default().push(place);
        if !row.try_get::<bool, _>("own_key")? {
            keyless.push(oid);
        }
        described[place] = Some(read_relation(name, &row)?);
    }
    let oids: Vec<i64> = places.keys().copied().collect();
    let mut each = |oid: i64, change: &mut dyn FnMut(&mut Relation)| {
        for place in places.get(&oid).into_iter().flatten() {
            described[*place].iter_mut().for_each(&mut *change);
        }
    };
    for row in sqlx::query(COLUMNS).bind(&oids).fetch_all(&mut *connection).await? {
        let column = read_column(&row)?;
        // A column that is computed when it is read (PostgreSQL 18) may be larger than anything that is stored.
        let computed = row.try_get::<bool, _>("computed")?;
        each(row.try_get("relation")?, &mut |relation| {
            relation.columns.push(column.clone());
            if computed {
                relation.toast_bytes = None;
            }
        });
    }
    for row in sqlx::query(PRIMARY_KEYS).bind(&oids).fetch_all(&mut *connection).await? {
        let (oid, name): (i64, String) = (row.try_get("relation")?, row.try_get("name")?);
        if !keyless.contains(&oid) {
            each(oid, &mut |relation| relation.primary_key.push(name.clone()));
        }
    }
    Ok(described)
}

fn read_relation(name: &RelationName, row: &PgRow) -> Result<Relation, sqlx::Error> {
    let tuples: Option<f64> = row.try_get("tuples")?;
    let analyzed: Option<bool> = row.try_get("analyzed")?;
    let bytes = |column: &str| {
        row.try_get::<Option<i64>, _>(column).map(|bytes| bytes.and_then(|bytes| u64::try_from(bytes).ok()))
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, and at least 0")]
    let estimated_rows = tuples.filter(|_| analyzed == Some(true)).map(|tuples| tuples as u64);
    Ok(Relation {
        name: name.clone(),
        kind: relation_kind(row.try_get("kind")?),
        columns: Vec::new(),
        primary_key: Vec::new(),
        estimated_rows,
        stored_bytes: bytes("bytes")?.unwrap_or(0),
        toast_bytes: bytes("toast_bytes")?,
        locked: row.try_get("locked")?,
        runs_foreign_code: row.try_get("runs_foreign_code")?,
    })
}

fn read_column(row: &PgRow) -> Result<Column, sqlx::Error> {
    let (oid, typtype, typmod): (i64, String, i32) =
        (row.try_get("oid")?, row.try_get("typtype")?, row.try_get("typmod")?);
    let category: String = row.try_get("category")?;
    let mut wire = wire_type(oid, &typtype, typmod);
    let mut array = None;
    if let Some(item) = row.try_get::<Option<i64>, _>("item_oid")? {
        wire = wire_type(item, row.try_get("item_typtype")?, row.try_get("item_typmod")?);
        // Up to 6 (MAXDIM); a view does not know.
        let dimensions = u8::try_from(row.try_get::<i32, _>("dimensions")?.clamp(1, 6)).unwrap_or(1);
        let delimiter = u8::try_from(row.try_get::<i32, _>("delimiter")?).unwrap_or(b',');
        array = Some(ArrayType { dimensions, delimiter });
    }
    // A varchar(n) counts characters, of up to four bytes: so many columns of a kilobyte are still a small row.
    let bounded = match oid {
        1042 | 1043 => (1..=260).contains(&typmod),
        1700 => numeric_modifier(typmod).is_some(),
        _ => false,
    };
    Ok(Column {
        name: row.try_get("name")?,
        sql_type: row.try_get("sql_type")?,
        type_names: TypeNames {
            schema: row.try_get("type_schema")?,
            name: row.try_get("type_name")?,
            operators: row.try_get::<Option<String>, _>("operators")?.unwrap_or_else(|| "pg_catalog".to_owned()),
        },
        wire,
        array,
        nullable: row.try_get("nullable")?,
        wide: row.try_get::<i16, _>("typlen")? == -1 && !bounded,
        // Numbers, dates and times, booleans, intervals.
        is_non_text: matches!(category.as_str(), "N" | "D" | "B" | "T"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_modifiers_unpack() {
        let pack = |p: i32, s: i32| ((p << 16) | (s & 0x7ff)) + 4;
        assert_eq!(numeric_modifier(pack(18, 4)), Some((18, 4)));
        assert_eq!(numeric_modifier(pack(1000, -1000)), Some((1000, -1000)));
        assert_eq!(numeric_modifier(-1), None);
    }
}
