//! The check of the source: what its role may do beyond reading, and whether it may read what the operator has exposed.

use polyglot_core::failure::chain;
use polyglot_core::relation::RelationName;
use polyglot_source::sql::{quote_identifier, quote_relation};
use polyglot_source::{SourceConnection, find_shared_sessions, reading_role_problem, role_rights};
use sqlx::PgConnection;

use super::finding::Findings;
use crate::config::Config;
use crate::dataset_config::{Dataset, Exposed};
use crate::source::Source;

/// Relations that are named one by one; the others are counted.
const MAX_NAMED: usize = 10;

pub(super) async fn check(config: &Config, findings: &mut Findings) {
    let limit = Source::limit();
    if let Err(refusal) = find_shared_sessions(&limit, &config.connections.source_database_url).await {
        return findings.missing(refusal.to_string());
    }
    let permit = limit.acquire_control().await;
    let opened = SourceConnection::open(permit, &config.connections.source_database_url, "polyglot check").await;
    let mut connection = match opened {
        Ok(connection) => connection,
        Err(error) => return findings.missing(format!("SOURCE_DATABASE_URL: {}", chain(&error))),
    };
    if let Err(error) = look(config, &mut connection, findings).await {
        findings.missing(format!("the catalog cannot be read: {}", chain(&error)));
    }
    connection.close();
}

async fn look(config: &Config, connection: &mut PgConnection, findings: &mut Findings) -> Result<(), sqlx::Error> {
    let rights = role_rights(connection).await?;
    findings.right(format!("connected as {:?}", rights.role));
    findings.begin("source role");
    if rights.excess.is_empty() {
        findings.right(format!("{:?} may only read", rights.role));
    }
    for excess in &rights.excess {
        let text = format!("{:?} {excess} (docs/operations/grants.md)", rights.role);
        if config.connections.source_allow_privileged {
            findings.note(format!("{text}; SOURCE_ALLOW_PRIVILEGED=on accepts it"));
        } else {
            findings.too_much(text);
        }
    }
    findings.begin("datasets");
    for exposed in config.datasets.entries() {
        match exposed {
            Exposed::One(dataset) => one(dataset, &rights.role, connection, findings).await?,
            Exposed::Schema(schema) => all_of(schema, &rights.role, connection, findings).await?,
        }
    }
    Ok(())
}

const RELATION: &str = "
    SELECT n.oid IS NOT NULL, coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false), c.oid IS NOT NULL,
           coalesce(pg_catalog.has_table_privilege(c.oid, 'SELECT'), false),
           coalesce(c.relrowsecurity AND pg_catalog.row_security_active(c.oid), false)
    FROM (VALUES ($1::pg_catalog.text, $2::pg_catalog.text)) AS wanted(schema, name)
         LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
         LEFT JOIN pg_catalog.pg_class c
             ON c.relnamespace = n.oid AND c.relname = wanted.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";

async fn one(
    dataset: &Dataset,
    role: &str,
    connection: &mut PgConnection,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let Dataset { name, relation, .. } = dataset;
    let (has_schema, may_use, has_relation, may_select, is_restricted): (bool, bool, bool, bool, bool) =
        sqlx::query_as(RELATION).bind(&relation.schema).bind(&relation.name).fetch_one(&mut *connection).await?;
    let reading_role = match dataset.policy.role() {
        Some(reader) if may_select => reading_role_problem(connection, reader, relation).await?,
        _ => None,
    };
    let (schema, table, role) = (quote_identifier(&relation.schema), quote_relation(relation), quote_identifier(role));
    if !has_schema {
        findings.missing(format!("{name}: there is no schema {schema}"));
    } else if !has_relation {
        findings.missing(format!("{name}: there is no relation {table}"));
    } else if !may_use {
        findings.missing(format!("{name}: GRANT USAGE ON SCHEMA {schema} TO {role}"));
    } else if !may_select {
        findings.missing(format!("{name}: GRANT SELECT ON {table} TO {role}"));
    } else {
        match reading_role {
            Some(problem) => findings.missing(format!("{name}: {problem}")),
            None => findings.right(format!("{name}: {table} can be read")),
        }
    }
    if is_restricted {
        findings.note(format!("{name}: {table} has row security; every row is what its policies show to {role}"));
    }
    Ok(())
}

const SCHEMA: &str = "
    SELECT coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false)
    FROM pg_catalog.pg_namespace n WHERE n.nspname = $1::pg_catalog.text";

const RELATIONS: &str = "
    SELECT c.relname::pg_catalog.text, pg_catalog.has_table_privilege(c.oid, 'SELECT')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::pg_catalog.text AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
    ORDER BY c.relname";

/// A pattern exposes what the role may read. The rest of the schema does not exist for clients, which may be what is meant.
async fn all_of(
    schema: &str,
    role: &str,
    connection: &mut PgConnection,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let (shown, role) = (quote_identifier(schema), quote_identifier(role));
    match sqlx::query_scalar::<_, bool>(SCHEMA).bind(schema).fetch_optional(&mut *connection).await? {
        None => findings.missing(format!("{shown}.*: there is no schema {shown}")),
        Some(false) => findings.missing(format!("{shown}.*: GRANT USAGE ON SCHEMA {shown} TO {role}")),
        Some(true) => {
            let all: Vec<(String, bool)> = sqlx::query_as(RELATIONS).bind(schema).fetch_all(connection).await?;
            let hidden: Vec<&str> =
                all.iter().filter(|(_, may_select)| !may_select).map(|(name, _)| name.as_str()).collect();
            if all.len() == hidden.len() {
                findings.missing(format!(
                    "{shown}.*: there is nothing to read: GRANT SELECT ON ALL TABLES IN SCHEMA {shown} TO {role}"
                ));
                return Ok(());
            }
            findings.right(format!("{shown}.*: {} relations can be read", all.len() - hidden.len()));
            if !hidden.is_empty() {
                let named = hidden
                    .iter()
                    .take(MAX_NAMED)
                    .map(|name| quote_relation(&RelationName { schema: schema.to_owned(), name: (*name).to_owned() }));
                let more = if hidden.len() > MAX_NAMED { ", …" } else { "" };
                findings.note(format!(
                    "{shown}.*: {} relations do not exist for clients, because {role} has no SELECT on them: {}{more}",
                    hidden.len(),
                    named.collect::<Vec<_>>().join(", ")
                ));
            }
        }
    }
    Ok(())
}
