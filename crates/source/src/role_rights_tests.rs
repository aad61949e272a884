//! Tests of the check of the source's role, against a real PostgreSQL.

use polyglot_test_servers::needs_database;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _};

use crate::role_rights::{ExcessRight, role_rights};

/// A database with a role that may only read, and the connections of a superuser and of that role.
struct Trial {
    url: String,
    name: String,
    admin: PgConnection,
    reader: PgConnection,
}

impl Trial {
    async fn new(url: String) -> Self {
        let name = format!("rights_{}", uuid::Uuid::new_v4().simple());
        let mut server = PgConnection::connect(&url).await.unwrap();
        run(&mut server, &format!("CREATE DATABASE {name}")).await;
        run(&mut server, &format!("CREATE ROLE {name} LOGIN PASSWORD 'x'; CREATE ROLE {name}_other")).await;
        let options: PgConnectOptions = url.parse().unwrap();
        let mut admin = PgConnection::connect_with(&options.clone().database(&name)).await.unwrap();
        // As PostgreSQL 15 has it from the beginning.
        run(&mut admin, "REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
        let sql = format!("CREATE TABLE public.t (id integer, more integer); GRANT SELECT ON public.t TO {name}");
        run(&mut admin, &sql).await;
        let reader = options.database(&name).username(&name).password("x");
        let reader = PgConnection::connect_with(&reader).await.unwrap();
        Self { url, name, admin, reader }
    }

    /// What `sql` with the role in the place of `ROLE` adds to the findings.
    async fn findings(&mut self, sql: &str) -> Vec<String> {
        run(&mut self.admin, &sql.replace("ROLE_NAME", &self.name)).await;
        let rights = role_rights(&mut self.reader).await.unwrap();
        assert_eq!(rights.role, self.name);
        rights.excess.iter().map(|right| right.to_string().replace(&self.name, "me")).collect()
    }

    async fn remove(self) {
        let Self { url, name, admin, reader } = self;
        admin.close().await.unwrap();
        reader.close().await.unwrap();
        let mut server = PgConnection::connect(&url).await.unwrap();
        run(&mut server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
        run(&mut server, &format!("DROP ROLE {name}, {name}_other")).await;
    }
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap();
}

#[tokio::test]
async fn every_right_beyond_reading_is_found() {
    let mut trial = Trial::new(needs_database!()).await;
    assert_eq!(trial.findings("").await, Vec::<String>::new());
    for (grant, revoke, found) in [
        ("ALTER ROLE ROLE_NAME BYPASSRLS", "ALTER ROLE ROLE_NAME NOBYPASSRLS", "has the attribute BYPASSRLS"),
        ("ALTER ROLE ROLE_NAME CREATEROLE", "ALTER ROLE ROLE_NAME NOCREATEROLE", "has the attribute CREATEROLE"),
        ("ALTER ROLE ROLE_NAME SUPERUSER", "ALTER ROLE ROLE_NAME NOSUPERUSER", "has the attribute SUPERUSER"),
        (
            "ALTER ROLE ROLE_NAME NOINHERIT; ALTER ROLE ROLE_NAME_other SUPERUSER; GRANT ROLE_NAME_other TO ROLE_NAME",
            "ALTER ROLE ROLE_NAME_other NOSUPERUSER; REVOKE ROLE_NAME_other FROM ROLE_NAME",
            "is a member of \"me_other\", which has the attribute SUPERUSER",
        ),
        (
            "GRANT ROLE_NAME_other TO ROLE_NAME; GRANT DELETE ON public.t TO ROLE_NAME_other",
            "REVOKE DELETE ON public.t FROM ROLE_NAME_other; REVOKE ROLE_NAME_other FROM ROLE_NAME",
            "has DELETE on public.t",
        ),
        (
            "GRANT pg_execute_server_program TO ROLE_NAME",
            "REVOKE pg_execute_server_program FROM ROLE_NAME",
            "is a member of pg_execute_server_program",
        ),
        (
            "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO ROLE_NAME",
            "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) FROM ROLE_NAME",
            "may execute pg_read_file",
        ),
        (
            "GRANT CREATE ON DATABASE ROLE_NAME TO ROLE_NAME",
            "REVOKE CREATE ON DATABASE ROLE_NAME FROM ROLE_NAME",
            "may create schemas in the database \"me\"",
        ),
        (
            "GRANT CREATE ON SCHEMA public TO PUBLIC",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            "may create objects in the schema \"public\"",
        ),
        (
            "GRANT INSERT, TRUNCATE ON public.t TO ROLE_NAME",
            "REVOKE INSERT, TRUNCATE ON public.t FROM ROLE_NAME",
            "has INSERT, TRUNCATE on public.t",
        ),
        (
            "GRANT UPDATE (more) ON public.t TO ROLE_NAME",
            "REVOKE UPDATE (more) ON public.t FROM ROLE_NAME",
            "has UPDATE on public.t",
        ),
        ("GRANT TRIGGER ON public.t TO PUBLIC", "REVOKE TRIGGER ON public.t FROM PUBLIC", "has TRIGGER on public.t"),
        (
            "CREATE SEQUENCE public.s; GRANT USAGE, SELECT ON SEQUENCE public.s TO ROLE_NAME",
            "DROP SEQUENCE public.s",
            "has USAGE on public.s",
        ),
        (
            "CREATE TABLE public.own (); ALTER TABLE public.own OWNER TO ROLE_NAME",
            "DROP TABLE public.own",
            "owns public.own",
        ),
    ] {
        assert_eq!(trial.findings(grant).await, [found], "{grant}");
        assert_eq!(trial.findings(revoke).await, Vec::<String>::new(), "{revoke}");
    }
    let tables: Vec<String> =
        (10..25).map(|n| format!("CREATE TABLE public.t{n} (); GRANT DELETE ON public.t{n} TO ROLE_NAME")).collect();
    let found = trial.findings(&tables.join("; ")).await;
    assert_eq!((found[0].as_str(), found.len()), ("has DELETE on public.t10", 11));
    assert_eq!(found[10], "has such rights on 5 more relations");
    trial.remove().await;
}

#[tokio::test]
async fn the_login_counts_and_not_a_role_that_was_set() {
    let mut trial = Trial::new(needs_database!()).await;
    run(&mut trial.admin, &format!("SET ROLE {}", trial.name)).await;
    let rights = role_rights(&mut trial.admin).await.unwrap();
    assert_ne!(rights.role, trial.name);
    assert_eq!(rights.excess, [ExcessRight::Attribute { attribute: "SUPERUSER".to_owned(), through: None }]);
    let words = rights.to_string();
    assert!(words.contains(&rights.role) && words.contains("SOURCE_ALLOW_PRIVILEGED"), "{words}");
    trial.remove().await;
}

#[tokio::test]
async fn a_right_to_create_schemas_by_membership_is_not_the_role_s_own() {
    let mut trial = Trial::new(needs_database!()).await;
    for (grant, own) in [
        ("GRANT ROLE_NAME_other TO ROLE_NAME; GRANT CREATE ON DATABASE ROLE_NAME TO ROLE_NAME_other", false),
        ("GRANT CREATE ON DATABASE ROLE_NAME TO ROLE_NAME", true),
    ] {
        run(&mut trial.admin, &grant.replace("ROLE_NAME", &trial.name)).await;
        let rights = role_rights(&mut trial.reader).await.unwrap();
        assert_eq!(
            rights.excess,
            [ExcessRight::CreateSchemas { database: trial.name.clone(), is_own: own }],
            "{grant}"
        );
    }
    trial.remove().await;
}
