//! The exports of some tenants, for requests of clients. What belongs to another tenant does not exist here, and is looked for
//! by the same statements as what does not exist at all, so that an answer takes the same time.

use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::read::{COLUMNS, Export, ListFilter, read_all, read_export, read_request};
use crate::database::{Ledger, Result};
use crate::notifications::{Change, read_change};
use polyglot_core::request::ExportRequest;

/// How many changes of all tenants are read for each change of these that is looked for.
const READ_CHANGES: i64 = 20;

/// A ledger with the exports of some tenants alone.
#[derive(Debug, Clone, Copy)]
pub struct TenantView<'a> {
    pub(super) ledger: &'a Ledger,
    tenants: &'a [String],
    /// The caller. Exports of their own are seen by nobody else.
    name: &'a str,
}

impl Ledger {
    /// The view of a client of this name who may see the exports of these tenants.
    #[must_use]
    pub fn of_tenants<'a>(&'a self, tenants: &'a [String], name: &'a str) -> TenantView<'a> {
        TenantView { ledger: self, tenants, name }
    }
}

impl TenantView<'_> {
    pub async fn find(&self, id: Uuid) -> Result<Option<Export>> {
        let mut query = self.select(COLUMNS);
        query.push(" AND e.id = ").push_bind(id);
        let row = query.build().fetch_optional(&self.ledger.pool).await?;
        row.as_ref().map(read_export).transpose()
    }

    /// An export and its request, as one statement sees them. The inner result is an error if this version cannot read the
    /// request; the export itself may be readable all the same.
    pub async fn find_with_request(&self, id: Uuid) -> Result<Option<(Export, Result<ExportRequest>)>> {
        use sqlx::Row;
        let mut query = QueryBuilder::<Postgres>::new("SELECT found.*, stored.request FROM (");
        query.push(COLUMNS);
        self.push_condition(&mut query);
        query.push(" AND e.id = ").push_bind(id).push(") AS found JOIN exports stored USING (id)");
        let Some(row) = query.build().fetch_optional(&self.ledger.pool).await? else { return Ok(None) };
        Ok(Some((read_export(&row)?, read_request(id, row.try_get("request")?))))
    }

    /// Those of the exports that exist, in no order. One that this version cannot read is left out, so that it does not hide the
    /// others.
    pub async fn find_all(&self, ids: &[Uuid]) -> Result<Vec<Export>> {
        let mut query = self.select(COLUMNS);
        query.push(" AND e.id = ANY(").push_bind(ids).push(")");
        read_all(&query.build().fetch_all(&self.ledger.pool).await?)
    }

    pub async fn list(&self, filter: ListFilter) -> Result<Vec<Export>> {
        let mut query = self.select(COLUMNS);
        if let Some(status) = filter.status {
            query.push(" AND e.state = ").push_bind(status.name());
        }
        if let Some(before) = filter.before {
            query.push(" AND e.id < ").push_bind(before);
        }
        query.push(" ORDER BY e.id DESC LIMIT ").push_bind(filter.limit);
        query.build().fetch_all(&self.ledger.pool).await?.iter().map(read_export).collect()
    }

    /// The newest active exports.
    pub async fn active(&self, limit: i64) -> Result<Vec<Uuid>> {
        let mut query =
            self.select("SELECT e.id FROM exports e WHERE e.state IN ('pending', 'planning', 'running', 'finishing')");
        query.push(" ORDER BY e.id DESC LIMIT ").push_bind(limit);
        Ok(query.build_query_scalar().fetch_all(&self.ledger.pool).await?)
    }

    /// The first `limit` changes of the tenants' exports after number `after`, in order: a page.
    pub async fn changes_after(&self, after: i64, limit: i64) -> Result<Vec<Change>> {
        let mut query = self.changes("c.id, c.export_id, c.state, c.attempt, c.at", after);
        query.push(" ORDER BY c.id LIMIT ").push_bind(limit);
        query.build().fetch_all(&self.ledger.pool).await?.iter().map(read_change).collect()
    }

    /// A number after which the tenants' exports have at most `count` changes. Only the newest changes of all tenants are
    /// read, so that the answer does not take longer the rarer these are: older ones do not count.
    pub async fn newest_changes(&self, count: i64) -> Result<i64> {
        let oldest = self.ledger.last_change().await? - count.saturating_mul(READ_CHANGES);
        let mut query = self.changes("c.id", oldest);
        query.push(" ORDER BY c.id DESC OFFSET ").push_bind(count).push(" LIMIT 1");
        let found: Option<i64> = query.build_query_scalar().fetch_optional(&self.ledger.pool).await?;
        Ok(found.unwrap_or(oldest.max(0)))
    }

    fn changes(&self, columns: &'static str, after: i64) -> QueryBuilder<Postgres> {
        let mut query = QueryBuilder::new("SELECT ");
        query.push(columns).push(" FROM state_changes c JOIN exports e ON e.id = c.export_id WHERE c.id > ");
        query.push_bind(after);
        self.push_condition(&mut query);
        query
    }

    /// The statement, which ends in a condition, for these tenants' exports `e` alone.
    fn select(&self, statement: &'static str) -> QueryBuilder<Postgres> {
        let mut query = QueryBuilder::new(statement);
        self.push_condition(&mut query);
        query
    }

    /// The condition, for these tenants' exports `e` that the caller may see.
    pub(super) fn push_condition(&self, query: &mut QueryBuilder<Postgres>) {
        // One tenant is compared as itself: only then an index has its exports in the order of the list.
        match self.tenants {
            [tenant] => query.push(" AND e.tenant = ").push_bind(tenant.clone()),
            tenants => query.push(" AND e.tenant = ANY(").push_bind(tenants.to_vec()).push(")"),
        };
        query.push(" AND coalesce(e.owner = ").push_bind(self.name.to_owned()).push(", true)");
    }
}
