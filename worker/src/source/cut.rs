//! Where a relation's rows, in the order of its key, are cut into ranges that are read side by side. The places come from
//! a sample of the data, so a dense and a sparse region of keys get as many ranges as they have pages.

use polyglot_export::catalog::{Relation, WireType, quote_relation};
use polyglot_export::failure::Failure;
use polyglot_export::request::ExportRequest;
use polyglot_export::selection::{Direction, Order, quote_literal};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::plan::text_form;
use super::{ALIAS, failed, qualified};

/// What a range is to hold, as it is stored: reading it takes some ten milliseconds, and what is read ahead of its turn
/// stays small.
const RANGE_BYTES: u64 = 4 << 20;
/// Below this the second connection is not worth making.
const LEAST_BYTES: u64 = 4 * RANGE_BYTES;
/// More cuts than this make the statement that finds them slow, and nothing faster.
const MOST_RANGES: u64 = 4096;
/// Of the relation's pages are looked at for each range, and all of them together. Fewer make ranges uneven.
const PAGES_A_RANGE: u64 = 8;
const PAGE_BYTES: u64 = 8192;
/// Sampled rows between two cuts at least: fewer say little of where the rows are.
const LEAST_ROWS: u64 = 8;
/// From here the rows lie on disk nearly as the key orders them. Elsewhere the server may do better with one scan and a
/// sort, and is left to decide.
const CORRELATED: f64 = 0.95;

/// An order by the columns of the primary key, as its index has them, all in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(Order);

/// A half-open part of the key's order, in the texts of its columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first row's key, or that of a row before it; `None`: the beginning.
    from: Option<Vec<String>>,
    /// The key of the first row behind; `None`: the end.
    to: Option<Vec<String>>,
}

impl Key {
    /// The key of an export's order, if that is the primary key's and the rows can be cut along it.
    pub(crate) fn of(relation: &Relation, request: &ExportRequest, order: &Order) -> Option<Self> {
        // Only tables, partitioned or not, have a primary key, and those have pages to sample.
        let direction = order.keys.first()?.direction;
        let is_key = order.keys.iter().map(|key| &key.column).eq(&relation.primary_key)
            && order.keys.iter().all(|key| key.direction == direction);
        // With filters the server may have a better way to the rows than along the key, and would go it for each range.
        let all = request.filters.is_empty() && request.row_limit.is_none();
        // A cut is the text of a key, read back: only of types whose text is known to be exact.
        let is_exact = |name: &String| {
            relation.column(name).is_some_and(|column| column.wire != WireType::TextForm && column.array.is_none())
        };
        (is_key && all && relation.primary_key.iter().all(is_exact)).then(|| Self(order.clone()))
    }

    /// The columns, as they are called inside a statement.
    fn columns(&self) -> impl Iterator<Item = String> {
        self.0.keys.iter().map(|key| qualified(&key.column))
    }

    /// The conditions of a range. The literals have no type of their own: the server reads each as its column's.
    pub(crate) fn conditions(&self, range: &Range) -> Vec<String> {
        let descending = self.0.keys.iter().any(|key| key.direction == Direction::Desc);
        let (from, to) = if descending { ("<=", ">") } else { (">=", "<") };
        let columns = self.columns().collect::<Vec<_>>().join(", ");
        let compare = |operator: &str, bound: &Vec<String>| {
            let bound: Vec<String> = bound.iter().map(|text| quote_literal(text)).collect();
            format!("(({columns}) {operator} ({}))", bound.join(", "))
        };
        let from = range.from.as_ref().map(|bound| compare(from, bound));
        from.into_iter().chain(range.to.as_ref().map(|bound| compare(to, bound))).collect()
    }

    /// Ranges that together hold every row once, in the order of the export. One, if cutting is not worth it.
    pub(crate) async fn cut(&self, connection: &mut PgConnection, relation: &Relation) -> Result<Vec<Range>, Failure> {
        let whole = vec![Range::default()];
        let ranges = (relation.stored_bytes / RANGE_BYTES).min(MOST_RANGES);
        if relation.stored_bytes < LEAST_BYTES || !self.is_correlated(connection, relation).await? {
            return Ok(whole);
        }
        let pages = (relation.stored_bytes / PAGE_BYTES).max(1);
        #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let percent = ((ranges * PAGES_A_RANGE) as f64 / pages as f64 * 100.0).min(100.0);
        let texts: Vec<String> = self.columns().map(|column| text_form(&column)).collect();
        // Always the same pages of a table that does not change.
        let sample = format!(
            "SELECT key FROM (
                 SELECT ARRAY[{}] AS key, row_number() OVER ({}) - 1 AS place, count(*) OVER () AS rows
                 FROM {} AS {ALIAS} TABLESAMPLE SYSTEM ({percent}) REPEATABLE (1)
             ) AS sample
             WHERE place > 0 AND place % greatest(rows / {ranges}, {LEAST_ROWS}) = 0
             ORDER BY place",
            texts.join(", "),
            self.0.sql(ALIAS).trim_start(),
            quote_relation(&relation.name),
        );
        let rows = sqlx::query(AssertSqlSafe(sample)).fetch_all(&mut *connection).await.map_err(failed)?;
        let mut bounds: Vec<Vec<String>> = Vec::with_capacity(rows.len());
        for row in rows {
            bounds.push(row.try_get("key").map_err(failed)?);
        }
        bounds.dedup();
        let from = std::iter::once(None).chain(bounds.iter().cloned().map(Some));
        let to = bounds.iter().cloned().map(Some).chain([None]);
        Ok(from.zip(to).map(|(from, to)| Range { from, to }).collect())
    }

    async fn is_correlated(&self, connection: &mut PgConnection, relation: &Relation) -> Result<bool, Failure> {
        // Of a partitioned table there are statistics of the whole, but where rows lie is known of its partitions.
        let correlation: Option<f64> = sqlx::query_scalar(
            "SELECT min(abs(s.correlation))::float8
             FROM (SELECT to_regclass(format('%I.%I', $1::text, $2::text))::oid AS oid
                   UNION SELECT relid::oid FROM pg_partition_tree(to_regclass(format('%I.%I', $1::text, $2::text)))) leaf
                  JOIN pg_class c ON c.oid = leaf.oid
                  JOIN pg_namespace n ON n.oid = c.relnamespace
                  JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = $3 AND NOT s.inherited",
        )
        .bind(&relation.name.schema)
        .bind(&relation.name.name)
        .bind(self.0.keys.first().map(|key| &key.column))
        .fetch_one(connection)
        .await
        .map_err(failed)?;
        Ok(correlation.is_some_and(|correlation| correlation >= CORRELATED))
    }
}
