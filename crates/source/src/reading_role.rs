//! The role that reads a dataset, where the operator has named one: the row security of a relation applies to the rights of the role
//! that reads it.

use polyglot_core::relation::RelationName;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use crate::sql::{quote_identifier, quote_literal};

/// The statement that has the rest of the transaction read as the role.
#[must_use]
pub fn set_local_role(role: &str) -> String {
    format!("SET LOCAL ROLE {}", quote_identifier(role))
}

/// Why the relation cannot be read as the role, or why that would show more than row security allows; `None` if it can.
pub async fn reading_role_problem(
    connection: &mut PgConnection,
    role: &str,
    relation: &RelationName,
) -> Result<Option<String>, sqlx::Error> {
    // One message is one transaction, which ends with it.
    let statements = format!(
        "{};
         SELECT r.rolsuper OR r.rolbypassrls AS is_exempt, pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS may_use,
                pg_catalog.has_table_privilege(c.oid, 'SELECT') AS may_select,
                c.relkind IN ('r', 'p') AND NOT c.relrowsecurity AS is_open,
                c.relrowsecurity AND NOT pg_catalog.row_security_active(c.oid) AS is_owner
         FROM pg_catalog.pg_roles r, pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE r.rolname = CURRENT_USER AND n.nspname = {} AND c.relname = {}",
        set_local_role(role),
        quote_literal(&relation.schema),
        quote_literal(&relation.name),
    );
    let rows = match sqlx::raw_sql(AssertSqlSafe(statements)).fetch_all(connection).await {
        Ok(rows) => rows,
        Err(error) => {
            let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(String::from);
            return match code.as_deref() {
                Some("22023") => Ok(Some(format!("there is no role {role:?}"))),
                Some("42501") => Ok(Some(format!(
                    "the role of SOURCE_DATABASE_URL may not become {role:?}: GRANT {} TO it",
                    quote_identifier(role)
                ))),
                _ => Err(error),
            };
        }
    };
    // A relation that is gone is found out by whoever looks for it.
    let Some(row) = rows.first() else { return Ok(None) };
    let is = |name: &str| row.try_get::<bool, _>(name);
    Ok(if is("is_exempt")? {
        Some(format!("row security does not apply to {role:?}, which is a superuser or has BYPASSRLS"))
    } else if !is("may_use")? || !is("may_select")? {
        Some(format!("{role:?} may not read {relation}: GRANT USAGE on the schema and SELECT on the relation"))
    } else if is("is_open")? {
        Some(format!("{relation} has no row security: ALTER TABLE … ENABLE ROW LEVEL SECURITY, or leave the role out"))
    } else if is("is_owner")? {
        Some(format!("row security of {relation} does not apply to {role:?}, which owns it"))
    } else {
        None
    })
}

#[cfg(test)]
mod tests {
    use polyglot_test_servers::needs_database;
    use sqlx::Connection as _;

    use super::*;

    #[test]
    fn the_role_is_an_identifier() {
        assert_eq!(set_local_role("a\"; DROP TABLE t; --"), "SET LOCAL ROLE \"a\"\"; DROP TABLE t; --\"");
    }

    #[tokio::test]
    async fn a_role_that_cannot_read_or_reads_too_much_is_named() {
        let url = needs_database!();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let id = std::process::id();
        let schema = format!("reading_role_{id}");
        let role = |name: &str| format!("reading_{name}_{id}");
        let statements = format!(
            "CREATE SCHEMA {schema};
             CREATE TABLE {schema}.t (id int); ALTER TABLE {schema}.t ENABLE ROW LEVEL SECURITY;
             CREATE ROLE {reader}; CREATE ROLE {other}; CREATE ROLE {exempt} BYPASSRLS; CREATE ROLE {owner};
             GRANT USAGE ON SCHEMA {schema} TO {reader}, {exempt}, {owner}; GRANT SELECT ON {schema}.t TO {reader}, {exempt};
             ALTER TABLE {schema}.t OWNER TO {owner};",
            reader = role("reader"),
            other = role("other"),
            exempt = role("exempt"),
            owner = role("owner"),
        );
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
        let relation = RelationName { schema: schema.clone(), name: "t".to_owned() };
        sqlx::raw_sql(AssertSqlSafe(format!("ALTER TABLE {schema}.t DISABLE ROW LEVEL SECURITY")))
            .execute(&mut connection)
            .await
            .unwrap();
        let open = reading_role_problem(&mut connection, &role("reader"), &relation).await.unwrap();
        assert!(open.as_ref().is_some_and(|problem| problem.contains("has no row security")), "{open:?}");
        sqlx::raw_sql(AssertSqlSafe(format!("ALTER TABLE {schema}.t ENABLE ROW LEVEL SECURITY")))
            .execute(&mut connection)
            .await
            .unwrap();
        for (name, words) in [
            ("reader", None),
            ("other", Some("may not read")),
            ("exempt", Some("BYPASSRLS")),
            ("owner", Some("owns it")),
            ("missing", Some("there is no role")),
        ] {
            let problem = reading_role_problem(&mut connection, &role(name), &relation).await.unwrap();
            assert_eq!(problem.is_some(), words.is_some(), "{name}: {problem:?}");
            assert!(problem.iter().all(|problem| problem.contains(words.unwrap())), "{name}: {problem:?}");
        }
        // As a role that is no member.
        sqlx::raw_sql(AssertSqlSafe(format!("SET SESSION AUTHORIZATION {}", role("other"))))
            .execute(&mut connection)
            .await
            .unwrap();
        let problem = reading_role_problem(&mut connection, &role("reader"), &relation).await.unwrap();
        assert!(problem.is_some_and(|problem| problem.contains("may not become")));
        // The transaction has ended, and with it the role.
        let own: bool =
            sqlx::query_scalar("SELECT CURRENT_USER = SESSION_USER").fetch_one(&mut connection).await.unwrap();
        assert!(own);
        let clean = format!(
            "RESET SESSION AUTHORIZATION; DROP SCHEMA {schema} CASCADE; DROP ROLE {}, {}, {}, {}",
            role("reader"),
            role("other"),
            role("exempt"),
            role("owner")
        );
        sqlx::raw_sql(AssertSqlSafe(clean)).execute(&mut connection).await.unwrap();
    }
}
