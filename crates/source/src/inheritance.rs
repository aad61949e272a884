//! Which relations share rows with others by partitioning or inheritance.

use std::collections::HashSet;

use polyglot_core::relation::RelationName;
use sqlx::{PgConnection, Row};

const RELATED: &str = "
    WITH RECURSIVE wanted(oid) AS (
        SELECT c.oid
        FROM unnest($1::text[], $2::text[]) AS w(schema, name)
             JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name),
    down(oid) AS (
        SELECT oid FROM wanted
      UNION
        SELECT i.inhrelid FROM down JOIN pg_catalog.pg_inherits i ON i.inhparent = down.oid),
    up(oid) AS (
        SELECT oid FROM wanted
      UNION
        SELECT i.inhparent FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.oid)
    SELECT n.nspname::text AS schema, c.relname::text AS name
    FROM (SELECT oid FROM down UNION SELECT oid FROM up) AS related
         JOIN pg_catalog.pg_class c ON c.oid = related.oid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";

/// These relations, with their partitions and children, of any depth, and everything that they are a part of.
pub async fn related_relations<'r>(
    connection: &mut PgConnection,
    relations: impl Iterator<Item = &'r RelationName>,
) -> Result<HashSet<RelationName>, sqlx::Error> {
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        relations.map(|relation| (relation.schema.as_str(), relation.name.as_str())).unzip();
    if schemas.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = sqlx::query(RELATED).bind(schemas).bind(names).fetch_all(connection).await?;
    rows.iter().map(|row| Ok(RelationName { schema: row.try_get("schema")?, name: row.try_get("name")? })).collect()
}
