//! The rights of the source's role that reading does not need. Code of those who own objects in the source database (a view's
//! function, an index expression, a row-security policy) runs with the rights of whoever reads, so what the role may do, that
//! code may do.

use std::fmt;

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

/// Relations and schemas that are named one by one; the others are counted.
const MAX_NAMED: i64 = 10;

/// The role of a session on the source, and what it may do beyond reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRights {
    /// The role that the session logged in as.
    pub role: String,
    /// Empty for a role that may only read.
    pub excess: Vec<ExcessRight>,
}

/// A right that reading does not need. [`fmt::Display`] is a clause whose subject is the role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExcessRight {
    /// An attribute, as `CREATE ROLE` spells it. `through` is the role that has it, if it is not the role itself.
    Attribute { attribute: String, through: Option<String> },
    /// Membership in a predefined role that may do more than read.
    PredefinedRole { role: String },
    /// `EXECUTE` on a function that reaches the server's files.
    FileFunction { function: String },
    /// `CREATE` on the database. `is_own`: the role's own, and not only that of a role that it is a member of.
    CreateSchemas { database: String, is_own: bool },
    /// `CREATE` on a schema.
    CreateIn { schema: String },
    /// Privileges on a relation that reading it does not need, or `OWNER`. `is_owner`: the role itself owns it, and not only one that it is a
    /// member of.
    Write { relation: String, privileges: Vec<String>, is_owner: bool },
    /// Further relations on which the role has such privileges.
    WriteMore { relations: i64 },
}

impl ExcessRight {
    /// Whether somebody who is no administrator could have given the right: the owner of an object by a grant on it, and before
    /// PostgreSQL 15 everybody who may log in by a grant of membership in the own role.
    #[must_use]
    pub fn is_for_owners_to_grant(&self) -> bool {
        match self {
            Self::CreateIn { .. } | Self::WriteMore { .. } => true,
            Self::Write { is_owner, .. } => !is_owner,
            Self::CreateSchemas { is_own, .. } => !is_own,
            Self::Attribute { attribute, through } => through.is_some() && attribute != "SUPERUSER",
            Self::PredefinedRole { .. } | Self::FileFunction { .. } => false,
        }
    }
}

impl fmt::Display for ExcessRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute { attribute, through: None } => write!(f, "has the attribute {attribute}"),
            Self::Attribute { attribute, through: Some(role) } => {
                write!(f, "is a member of {role:?}, which has the attribute {attribute}")
            }
            Self::PredefinedRole { role } => write!(f, "is a member of {role}"),
            Self::FileFunction { function } => write!(f, "may execute {function}"),
            Self::CreateSchemas { database, .. } => write!(f, "may create schemas in the database {database:?}"),
            Self::CreateIn { schema } => write!(f, "may create objects in the schema {schema:?}"),
            Self::Write { relation, privileges, .. } => {
                if privileges.iter().any(|privilege| privilege == "OWNER") {
                    write!(f, "owns {relation}")
                } else {
                    write!(f, "has {} on {relation}", privileges.join(", "))
                }
            }
            Self::WriteMore { relations } => write!(f, "has such rights on {relations} more relations"),
        }
    }
}

impl fmt::Display for RoleRights {
    /// One sentence for the operator, which names the role and each excess right, and says what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, excess } = self;
        if excess.is_empty() {
            return write!(f, "The role {role:?} may only read the source database.");
        }
        let rights: Vec<String> = excess.iter().map(ToString::to_string).collect();
        write!(
            f,
            "The role {role:?} of SOURCE_DATABASE_URL may do more than read: it {}. Whoever owns an object in the database could \
             use these rights. Revoke them, or use a role that may only read (docs/operations/source-role.md); \
             SOURCE_ALLOW_PRIVILEGED=on accepts the role as it is.",
            rights.join("; it ")
        )
    }
}

// Membership counts whether its rights are inherited or need SET ROLE: foreign code can call that, too. A superuser is a member
// of every role, which says nothing.
const ROLES: &str = "
    SELECT SESSION_USER::pg_catalog.text AS session_role, r.rolname::pg_catalog.text AS role,
           r.rolname = SESSION_USER AS is_itself, r.oid::pg_catalog.int8 AS oid, r.rolsuper AS is_superuser,
           r.rolbypassrls AS bypasses_rls, r.rolcreaterole AS creates_roles, r.rolcreatedb AS creates_databases,
           r.rolreplication AS replicates,
           r.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files', 'pg_write_all_data',
                         'pg_maintain', 'pg_signal_backend', 'pg_checkpoint', 'pg_create_subscription', 'pg_database_owner')
               AS is_powerful
    FROM pg_catalog.pg_roles r
    WHERE r.rolname = SESSION_USER
       OR NOT (SELECT s.rolsuper FROM pg_catalog.pg_roles s WHERE s.rolname = SESSION_USER)
          AND pg_catalog.pg_has_role(SESSION_USER, r.oid, 'MEMBER')
    ORDER BY is_itself DESC, role";

// Read from the lists of rights, once for all relations: a call of has_table_privilege for each relation, role and privilege takes
// seconds in a database of 80,000 relations. `$1` has the roles, and 0 for PUBLIC. Whoever may create a trigger on a relation has code
// of its own run by those who write to it; MAINTAIN locks; values that are taken from a sequence are gone. PUBLIC may update
// pg_settings, which is SET.
const WRITES: &str = "
    WITH rights AS (
        SELECT c.oid, 'OWNER' AS name, pg_catalog.pg_get_userbyid(c.relowner) = SESSION_USER AS is_owner
        FROM pg_catalog.pg_class c
        WHERE c.relowner = ANY ($1::pg_catalog.int8[]::pg_catalog.oid[])
        UNION ALL
        SELECT c.oid, acl.privilege_type, false
        FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) acl
        WHERE acl.grantee = ANY ($1::pg_catalog.int8[]::pg_catalog.oid[])
        UNION ALL
        SELECT a.attrelid, acl.privilege_type, false
        FROM (SELECT attrelid, attacl FROM pg_catalog.pg_attribute
              WHERE attacl IS NOT NULL AND NOT attisdropped) a
             CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) acl
        WHERE acl.grantee = ANY ($1::pg_catalog.int8[]::pg_catalog.oid[])
    )
    SELECT pg_catalog.quote_ident(n.nspname::pg_catalog.text) || '.' || pg_catalog.quote_ident(c.relname::pg_catalog.text) AS relation,
           pg_catalog.array_agg(DISTINCT rights.name) AS privileges, pg_catalog.count(*) OVER () AS relations,
           pg_catalog.bool_or(rights.is_owner) AS is_owner
    FROM rights JOIN pg_catalog.pg_class c ON c.oid = rights.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE (c.relkind IN ('r', 'p', 'v', 'm', 'f')
           AND rights.name IN ('OWNER', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER', 'MAINTAIN')
        OR c.relkind = 'S' AND rights.name IN ('OWNER', 'UPDATE', 'USAGE'))
      AND c.relpersistence <> 't'
      AND NOT (n.nspname = 'pg_catalog' AND c.relname = 'pg_settings')
    GROUP BY n.nspname, c.relname
    ORDER BY n.nspname, c.relname
    LIMIT $2";

const SCHEMAS: &str = "
    SELECT DISTINCT n.nspname::pg_catalog.text AS schema
    FROM pg_catalog.pg_namespace n
         CROSS JOIN pg_catalog.unnest($1::pg_catalog.int8[]::pg_catalog.oid[]) AS role(oid)
    WHERE NOT pg_catalog.starts_with(n.nspname::pg_catalog.text, 'pg_temp_')
      AND NOT pg_catalog.starts_with(n.nspname::pg_catalog.text, 'pg_toast')
      AND pg_catalog.has_schema_privilege(role.oid, n.oid, 'CREATE')
    ORDER BY schema
    LIMIT $2";

const DATABASE: &str = "
    SELECT d.datname::pg_catalog.text AS database,
           pg_catalog.pg_get_userbyid(d.datdba) = SESSION_USER
               OR EXISTS (SELECT FROM pg_catalog.aclexplode(d.datacl) acl
                          WHERE acl.privilege_type = 'CREATE'
                            AND (acl.grantee = 0 OR pg_catalog.pg_get_userbyid(acl.grantee) = SESSION_USER)) AS is_own
    FROM pg_catalog.pg_database d
    WHERE d.datname = pg_catalog.current_database()
      AND EXISTS (SELECT FROM pg_catalog.unnest($1::pg_catalog.int8[]::pg_catalog.oid[]) AS role(oid)
                  WHERE pg_catalog.has_database_privilege(role.oid, d.oid, 'CREATE'))";

const FILE_FUNCTIONS: &str = "
    SELECT DISTINCT p.proname::pg_catalog.text AS function
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
         CROSS JOIN pg_catalog.unnest($1::pg_catalog.int8[]::pg_catalog.oid[]) AS role(oid)
    WHERE n.nspname = 'pg_catalog'
      AND p.proname IN ('pg_read_file', 'pg_read_binary_file', 'pg_ls_dir', 'pg_stat_file', 'lo_import', 'lo_export')
      AND pg_catalog.has_function_privilege(role.oid, p.oid, 'EXECUTE')
    ORDER BY function";

/// Finds out what the role of the session may do beyond reading. `connection` should be a
/// [`SourceConnection`](crate::SourceConnection), in which nobody else's functions and operators can be meant.
///
/// # Errors
/// When the database cannot be asked.
pub async fn role_rights(connection: &mut PgConnection) -> Result<RoleRights, sqlx::Error> {
    let mut rights = RoleRights { role: String::new(), excess: Vec::new() };
    // A superuser has every privilege, so those of superusers are not listed one by one.
    let mut roles: Vec<i64> = Vec::new();
    for row in sqlx::query(ROLES).fetch_all(&mut *connection).await? {
        rights.role = row.try_get("session_role")?;
        let role: String = row.try_get("role")?;
        let through = (!row.try_get::<bool, _>("is_itself")?).then(|| role.clone());
        if row.try_get::<bool, _>("is_superuser")? {
            rights.excess.push(ExcessRight::Attribute { attribute: "SUPERUSER".to_owned(), through });
            continue;
        }
        for (column, attribute) in [
            ("bypasses_rls", "BYPASSRLS"),
            ("creates_roles", "CREATEROLE"),
            ("creates_databases", "CREATEDB"),
            ("replicates", "REPLICATION"),
        ] {
            if row.try_get::<bool, _>(column)? {
                let (attribute, through) = (attribute.to_owned(), through.clone());
                rights.excess.push(ExcessRight::Attribute { attribute, through });
            }
        }
        if row.try_get::<bool, _>("is_powerful")? {
            rights.excess.push(ExcessRight::PredefinedRole { role });
        }
        roles.push(row.try_get("oid")?);
    }
    if roles.is_empty() {
        return Ok(rights);
    }
    for function in sqlx::query_scalar(FILE_FUNCTIONS).bind(&roles).fetch_all(&mut *connection).await? {
        rights.excess.push(ExcessRight::FileFunction { function });
    }
    for row in sqlx::query(DATABASE).bind(&roles).fetch_all(&mut *connection).await? {
        let (database, is_own) = (row.try_get("database")?, row.try_get("is_own")?);
        rights.excess.push(ExcessRight::CreateSchemas { database, is_own });
    }
    for schema in sqlx::query_scalar(SCHEMAS).bind(&roles).bind(MAX_NAMED).fetch_all(&mut *connection).await? {
        rights.excess.push(ExcessRight::CreateIn { schema });
    }
    // PUBLIC in a list of rights.
    roles.push(0);
    let mut further = 0;
    for row in sqlx::query(WRITES).bind(&roles).bind(MAX_NAMED).fetch_all(&mut *connection).await? {
        let (relation, privileges) = (row.try_get("relation")?, row.try_get("privileges")?);
        rights.excess.push(ExcessRight::Write { relation, privileges, is_owner: row.try_get("is_owner")? });
        further = row.try_get::<i64, _>("relations")? - MAX_NAMED;
    }
    if further > 0 {
        rights.excess.push(ExcessRight::WriteMore { relations: further });
    }
    Ok(rights)
}
