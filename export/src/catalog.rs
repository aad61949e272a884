//! What PostgreSQL's catalog says of a relation: its columns, their types on the wire, its primary key and an
//! estimate of its size; and the quoting of names found there. Rows are not read here.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::dataset::RelationName;

/// How a column arrives in binary `COPY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireType {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// Precision and scale where the column declares them.
    Numeric(Option<(u16, i16)>),
    /// UTF-8 text; also enums, whose labels are sent.
    Text,
    Bytea,
    Date,
    /// Microseconds since midnight.
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    Json,
    Jsonb,
    /// Any other type: the server is asked for the text it prints.
    TextForm,
}

impl WireType {
    /// By the oid of a built-in type (`pg_type.dat`; these oids never change), its `typtype` and its modifier.
    fn of(oid: i64, typtype: &str, typmod: i32) -> Self {
        match (oid, typtype) {
            (16, _) => Self::Bool,
            (21, _) => Self::Int2,
            (23, _) => Self::Int4,
            (20, _) => Self::Int8,
            (700, _) => Self::Float4,
            (701, _) => Self::Float8,
            (1700, _) => Self::Numeric(numeric_modifier(typmod)),
            // text, name, bpchar, varchar
            (25 | 19 | 1042 | 1043, _) | (_, "e") => Self::Text,
            (17, _) => Self::Bytea,
            (1082, _) => Self::Date,
            (1083, _) => Self::Time,
            (1114, _) => Self::Timestamp,
            (1184, _) => Self::TimestampTz,
            (2950, _) => Self::Uuid,
            (114, _) => Self::Json,
            (3802, _) => Self::Jsonb,
            _ => Self::TextForm,
        }
    }

    /// The DECIMAL that holds every finite value of `numeric(p, s)`: its precision and scale, or `None` where 38 digits
    /// are not enough or none are declared. A negative scale means zeros before the point, a scale above the precision
    /// zeros behind it.
    #[must_use]
    pub fn decimal(self) -> Option<(u8, u8)> {
        let Self::Numeric(Some((precision, scale))) = self else { return None };
        let precision = i32::from(precision) + i32::from(-scale).max(0);
        let scale = i32::from(scale).max(0);
        let precision = u8::try_from(precision.max(scale)).ok().filter(|precision| (1..=38).contains(precision))?;
        Some((precision, u8::try_from(scale).ok()?))
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

/// An array of the column's `wire` type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrayType {
    /// As declared, at least 1. PostgreSQL keeps no value to it.
    pub dimensions: u8,
    /// Between the items of its text: a comma, but for `box` a semicolon.
    pub delimiter: u8,
}

/// A column of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// The type as SQL spells it, `numeric(18,4)`.
    pub sql_type: String,
    /// Of the value, or of an array's items.
    pub wire: WireType,
    pub array: Option<ArrayType>,
    pub nullable: bool,
    /// Whether a value may be larger than a page: those are looked at before they are fetched.
    pub wide: bool,
    /// Whether the type's text is a number, a date or the like: no user typed it, so it is no formula.
    pub measured: bool,
}

/// What a relation is, by `pg_class.relkind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    PartitionedTable,
    View,
    MaterializedView,
    ForeignTable,
}

impl RelationKind {
    fn of(relkind: &str) -> Self {
        match relkind {
            "p" => Self::PartitionedTable,
            "v" => Self::View,
            "m" => Self::MaterializedView,
            "f" => Self::ForeignTable,
            _ => Self::Table,
        }
    }

    /// In words, as SQL says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::PartitionedTable => "partitioned table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::ForeignTable => "foreign table",
        }
    }
}

/// A relation as the catalog describes it.
#[derive(Debug, Clone)]
pub struct Relation {
    pub name: RelationName,
    pub kind: RelationKind,
    /// In the order of the table, dropped ones left out.
    pub columns: Vec<Column>,
    /// Names of the primary key's columns in key order; empty where there is none.
    pub primary_key: Vec<String>,
    /// `None` until the relation was analyzed.
    pub estimated_rows: Option<u64>,
    /// Heap and TOAST with all partitions, without indexes.
    pub stored_bytes: u64,
    /// TOAST alone, where values that do not fit a page are; `None` where that is not known, as of a view.
    pub toast_bytes: Option<u64>,
}

impl Relation {
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
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
const RELATIONS: &str = "
    SELECT wanted.place, c.oid::int8 AS oid, c.relkind::text AS kind, stored.tuples, stored.analyzed, stored.bytes,
           stored.toast_bytes,
           -- A key of the parent alone does not tell rows of its children apart.
           NOT (c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid)) AS own_key
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
                    sum(pg_table_size(leaf.oid))::int8 AS bytes,
                    -- What a foreign server stores is not known.
                    CASE WHEN NOT bool_or(leaf.relkind = 'f')
                         THEN sum(coalesce(pg_relation_size(leaf.reltoastrelid), 0))::int8 END AS toast_bytes
             FROM tree JOIN pg_class leaf ON leaf.oid = tree.oid AND leaf.relkind IN ('r', 'm', 'f')
         ) AS stored
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_schema_privilege(n.oid, 'USAGE')
      AND has_table_privilege(c.oid, 'SELECT')
    ORDER BY wanted.place";

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
           format_type(a.atttypid, a.atttypmod) AS sql_type, NOT a.attnotnull AS nullable,
           a.attgenerated = 'v' AS computed,
           t.oid::int8 AS oid, t.typtype::text AS typtype, t.typcategory::text AS category, t.typlen, bottom.typmod,
           bottom.dimensions, array_item.oid::int8 AS item_oid, array_item.typtype::text AS item_typtype,
           item.typmod AS item_typmod, ascii(array_item.typdelim::text) AS delimiter
    FROM bottom JOIN pg_type t ON t.oid = bottom.typid AND t.typtype <> 'd'
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
    let rows = sqlx::query(RELATIONS).bind(schemas).bind(relations).fetch_all(&mut *connection).await?;
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
        kind: RelationKind::of(row.try_get("kind")?),
        columns: Vec::new(),
        primary_key: Vec::new(),
        estimated_rows,
        stored_bytes: bytes("bytes")?.unwrap_or(0),
        toast_bytes: bytes("toast_bytes")?,
    })
}

fn read_column(row: &PgRow) -> Result<Column, sqlx::Error> {
    let (oid, typtype, typmod): (i64, String, i32) =
        (row.try_get("oid")?, row.try_get("typtype")?, row.try_get("typmod")?);
    let category: String = row.try_get("category")?;
    let mut wire = WireType::of(oid, &typtype, typmod);
    let mut array = None;
    if let Some(item) = row.try_get::<Option<i64>, _>("item_oid")? {
        wire = WireType::of(item, row.try_get("item_typtype")?, row.try_get("item_typmod")?);
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
        wire,
        array,
        nullable: row.try_get("nullable")?,
        wide: row.try_get::<i16, _>("typlen")? == -1 && !bounded,
        // Numbers, dates and times, booleans, intervals.
        measured: matches!(category.as_str(), "N" | "D" | "B" | "T"),
    })
}

/// A name as a quoted SQL identifier.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A schema-qualified, quoted relation name.
#[must_use]
pub fn quote_relation(name: &RelationName) -> String {
    format!("{}.{}", quote_identifier(&name.schema), quote_identifier(&name.name))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A relation of text columns.
    pub(crate) fn relation(columns: &[&str], primary_key: &[&str]) -> Relation {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            sql_type: "text".to_owned(),
            wire: WireType::Text,
            array: None,
            nullable: true,
            wide: true,
            measured: false,
        };
        Relation {
            name: RelationName::records(),
            kind: RelationKind::Table,
            columns: columns.iter().map(column).collect(),
            primary_key: primary_key.iter().map(|name| (*name).to_owned()).collect(),
            estimated_rows: None,
            stored_bytes: 0,
            toast_bytes: None,
        }
    }

    #[test]
    fn a_decimal_holds_every_value_of_its_numeric() {
        for (modifier, decimal) in [
            (Some((18, 4)), Some((18, 4))),
            (Some((38, 38)), Some((38, 38))),
            (Some((5, -2)), Some((7, 0))),
            (Some((3, 5)), Some((5, 5))),
            (Some((39, 0)), None),
            (Some((37, -2)), None),
            (None, None),
        ] {
            assert_eq!(WireType::Numeric(modifier).decimal(), decimal, "{modifier:?}");
        }
        assert_eq!(WireType::Int4.decimal(), None);
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quote_identifier(r#"id"; DROP TABLE records; --"#), r#""id""; DROP TABLE records; --""#);
    }

    #[test]
    fn numeric_modifiers_unpack() {
        let pack = |p: i32, s: i32| ((p << 16) | (s & 0x7ff)) + 4;
        assert_eq!(numeric_modifier(pack(18, 4)), Some((18, 4)));
        assert_eq!(numeric_modifier(pack(1000, -1000)), Some((1000, -1000)));
        assert_eq!(numeric_modifier(-1), None);
    }
}
