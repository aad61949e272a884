//! Whether planning or reading a relation may run code that is not PostgreSQL's own: functions, operators, types and casts that
//! somebody has created in the source database, and everything that is computed when a view, a foreign table or a row-security
//! policy is read. The answer errs on the side of yes.

use polyglot_core::relation::RelationName;

use crate::sql::quote_literal;

/// An SQL condition on the relation with the alias `c` of `pg_class`.
///
/// PostgreSQL records what an expression depends on, but for what it has built in itself. So a table, an index, a constraint, a
/// statistics object and a virtual column that depend on no function, operator, operator class or type run nothing else, whether
/// the planner computes them in advance or the executor for each row. An enum counts as well: its owner may have created a cast.
/// Children are a part of what is read. Triggers and defaults are not: no SELECT computes them.
pub(crate) const RUNS_FOREIGN_CODE: &str = "EXISTS (
        WITH RECURSIVE tree(oid) AS (
            SELECT c.oid
          UNION ALL
            SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
        SELECT FROM tree JOIN pg_catalog.pg_class part ON part.oid = tree.oid
        WHERE part.relkind NOT IN ('r', 'p', 'm') OR part.relrowsecurity OR part.relhasrules AND part.relkind <> 'm'
           OR EXISTS (
                SELECT
                FROM (SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, part.oid
                    UNION ALL
                      SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid
                      FROM pg_catalog.pg_index i WHERE i.indrelid = part.oid
                    UNION ALL
                      SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid
                      FROM pg_catalog.pg_constraint k WHERE k.conrelid = part.oid
                    UNION ALL
                      SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid
                      FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid = part.oid
                    UNION ALL
                      SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, f.oid
                      FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
                      WHERE f.adrelid = part.oid AND a.attgenerated = 'v') AS object(classid, objid)
                     JOIN pg_catalog.pg_depend d ON d.classid = object.classid AND d.objid = object.objid
                WHERE d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
                                       'pg_catalog.pg_opclass'::pg_catalog.regclass,
                                       'pg_catalog.pg_type'::pg_catalog.regclass)))";

/// A query for the same as one row and one column. It has no row if the relation is not there.
#[must_use]
pub fn foreign_code_query(relation: &RelationName) -> String {
    format!(
        "SELECT {RUNS_FOREIGN_CODE} AS runs_foreign_code
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = {} AND c.relname = {}",
        quote_literal(&relation.schema),
        quote_literal(&relation.name)
    )
}
