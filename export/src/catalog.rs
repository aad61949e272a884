//! What PostgreSQL's catalog says of a relation: its columns, their types on the wire, its primary key and an
//! estimate of its size; and the quoting of names found there. Rows are not read here.

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection, Row};

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
}

/// `numeric(p, s)` as `atttypmod` packs it: `((p << 16) | (s & 0x7ff)) + 4`, s in 11 signed bits
/// (`make_numeric_typmod` in PostgreSQL's numeric.c).
fn numeric_modifier(typmod: i32) -> Option<(u16, i16)> {
    let packed = u32::try_from(typmod.checked_sub(4)?).ok()?;
    let precision = u16::try_from(packed >> 16).ok()?;
    let scale = i16::try_from(packed & 0x7ff).ok()?;
    Some((precision, if scale >= 1024 { scale - 2048 } else { scale }))
}

/// A column of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// The type as SQL spells it, `numeric(18,4)`.
    pub sql_type: String,
    pub wire: WireType,
    pub nullable: bool,
}

/// A relation as the catalog describes it.
#[derive(Debug, Clone)]
pub struct Relation {
    pub name: RelationName,
    /// In the order of the table, dropped ones left out.
    pub columns: Vec<Column>,
    /// Names of the primary key's columns in key order; empty where there is none.
    pub primary_key: Vec<String>,
    /// `None` until the relation was analyzed.
    pub estimated_rows: Option<u64>,
    /// Heap and TOAST, without indexes.
    pub stored_bytes: u64,
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

/// A pool for catalog look-ups on the source database. It connects on first use.
pub fn source_pool(url: &str) -> Result<PgPool, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    Ok(PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(std::time::Duration::from_secs(3))
        .connect_lazy_with(options.application_name("polyglot-catalog")))
}

/// One connection to the source database with every setting that the text of a value depends on.
pub async fn connect_source(url: &str, application_name: &str) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    let mut connection = PgConnection::connect_with(&options.application_name(application_name)).await?;
    // As a join with pg_settings, so that a server too old to know a setting skips it. The last one makes the
    // server notice during a long sort that we are gone, instead of at the next row.
    sqlx::raw_sql(
        "SELECT set_config(name, value, false) FROM (VALUES
            ('TimeZone', 'UTC'), ('DateStyle', 'ISO, YMD'), ('IntervalStyle', 'iso_8601'),
            ('extra_float_digits', '1'), ('bytea_output', 'hex'), ('client_encoding', 'UTF8'),
            ('statement_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),
            ('client_connection_check_interval', '1s')
         ) AS wanted(name, value) JOIN pg_settings USING (name)",
    )
    .execute(&mut connection)
    .await?;
    Ok(connection)
}

const RELATION: &str = "
    SELECT c.oid::int8 AS oid, c.reltuples::float8 AS tuples, pg_table_size(c.oid) AS stored_bytes,
           (c.relkind IN ('v', 'm')) AS is_view
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND has_schema_privilege(n.oid, 'USAGE')";

// A domain travels as the type at its bottom.
const COLUMNS: &str = "
    WITH RECURSIVE bottom(attnum, typid, typmod) AS (
        SELECT attnum, atttypid, atttypmod FROM pg_attribute
        WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped
      UNION ALL
        SELECT bottom.attnum, t.typbasetype, t.typtypmod
        FROM bottom JOIN pg_type t ON t.oid = bottom.typid WHERE t.typtype = 'd')
    SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS sql_type, NOT a.attnotnull AS nullable,
           t.oid::int8 AS oid, t.typtype::text AS typtype, bottom.typmod
    FROM bottom JOIN pg_type t ON t.oid = bottom.typid AND t.typtype <> 'd'
         JOIN pg_attribute a ON a.attrelid = $1::oid AND a.attnum = bottom.attnum
    ORDER BY a.attnum";

const PRIMARY_KEY: &str = "
    SELECT a.attname::text AS name
    FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
         JOIN pg_attribute a ON a.attnum = k.attnum
    WHERE i.indrelid = $1::oid AND i.indisprimary AND a.attrelid = i.indrelid AND k.position <= i.indnkeyatts
    ORDER BY k.position";

/// Describes `name`, or says that there is no such relation.
pub async fn describe(connection: &mut PgConnection, name: &RelationName) -> Result<Relation, CatalogError> {
    let Some(found) =
        sqlx::query(RELATION).bind(&name.schema).bind(&name.name).fetch_optional(&mut *connection).await?
    else {
        return Err(CatalogError::NoSuchRelation(name.clone()));
    };
    let oid: i64 = found.try_get("oid")?;
    let tuples: f64 = found.try_get("tuples")?;
    let stored_bytes: Option<i64> = found.try_get("stored_bytes")?;
    let mut columns = Vec::new();
    for row in sqlx::query(COLUMNS).bind(oid).fetch_all(&mut *connection).await? {
        let typtype: String = row.try_get("typtype")?;
        columns.push(Column {
            name: row.try_get("name")?,
            sql_type: row.try_get("sql_type")?,
            wire: WireType::of(row.try_get("oid")?, &typtype, row.try_get("typmod")?),
            nullable: row.try_get("nullable")?,
        });
    }
    let primary_key = sqlx::query(PRIMARY_KEY)
        .bind(oid)
        .fetch_all(&mut *connection)
        .await?
        .into_iter()
        .map(|row| row.try_get("name"))
        .collect::<Result<_, _>>()?;
    // A view keeps 0 for ever, a table that was never analyzed says -1 (0 before PostgreSQL 14).
    let known = tuples > 0.0 || (tuples == 0.0 && !found.try_get::<bool, _>("is_view")?);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, and at least 0")]
    let estimated_rows = known.then_some(tuples as u64);
    Ok(Relation {
        name: name.clone(),
        columns,
        primary_key,
        estimated_rows,
        stored_bytes: stored_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
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

/// Whether an error of the driver means that the database is away or too busy, as opposed to having refused
/// the statement.
#[must_use]
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        // Classes 08 (connection), 53 (out of resources), 57P (shutdown, crash, cannot connect now), and the
        // serialization failures of 40, which a replica answers when it cancels a query.
        sqlx::Error::Database(refused) => {
            refused.code().is_some_and(|code| ["08", "53", "57P", "40"].iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
