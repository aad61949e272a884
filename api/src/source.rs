//! The source database: resolves datasets in its catalog, has it plan and run the statements of submissions and previews, and
//! counts rows. Resolved datasets are cached for seconds, so that a burst of submissions costs one lookup and a changed table
//! is still seen soon.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::dataset_config::{Dataset, Datasets, Exposed};
use polyglot_core::failure::chain;
use polyglot_core::relation::{Relation, RelationName};
use polyglot_runtime::telemetry::PoolUse;
use polyglot_source::catalog::{self, CatalogError};
use polyglot_source::session;
use polyglot_source::sql::quote_relation;
use polyglot_source::{ConnectionLimit, SourceConnection, related_relations};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::problem::{Dependency, RouteError};
use crate::resolved_dataset::ResolvedDataset;
use crate::timeout;

/// Age up to which a cached dataset is good enough for most requests.
pub(crate) const CACHE_MAX_AGE: Duration = Duration::from_secs(2);

/// Time limit of the statement that reads the rows of a preview.
const PREVIEW_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for a relation that is locked. Most locks are held for milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Pause between two looks whether it still is.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// Connections of the pool that previews may use at a time. Previews may take seconds, and submissions need connections too.
const MAX_PREVIEWS: usize = 2;

/// The configured datasets and the connections to the database that holds them.
pub(crate) struct Source {
    datasets: Datasets,
    pool: PgPool,
    url: String,
    /// Limit of the connections beside the pool.
    limit: ConnectionLimit,
    preview_permits: Arc<Semaphore>,
    list_permits: Semaphore,
    cache: Mutex<HashMap<String, CacheEntry>>,
}

/// The last result for one dataset. The lock is held during a lookup, so that concurrent requests share its result.
type CacheEntry = Arc<tokio::sync::Mutex<Option<CachedDataset>>>;

struct CachedDataset {
    /// Time at which the lookup began.
    as_of: Instant,
    dataset: Arc<ResolvedDataset>,
}

/// The server's refusal of a statement, for a reason that the client may have caused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) sql_state: String,
}

/// The server's estimate for a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Estimate {
    /// `None`: the server was not asked.
    pub(crate) rows: Option<u64>,
}

impl Estimate {
    /// Reads the first line of what `EXPLAIN` returns, such as `Seq Scan on t  (cost=0.00..2.75 rows=25 width=0)`.
    fn of(line: &str) -> Self {
        // A relation may have a name like this too, and it comes before.
        let after = line.rsplit_once(" rows=").map(|(_, after)| after);
        Self { rows: after.and_then(|after| after.split(' ').next()).and_then(|rows| rows.parse().ok()) }
    }
}

impl Source {
    /// `pool` is for short statements. `count` opens a connection of its own to `url`, within `limit`.
    pub(crate) fn new(datasets: Datasets, pool: PgPool, url: String, limit: ConnectionLimit) -> Self {
        let (preview_permits, list_permits) = (Arc::new(Semaphore::new(MAX_PREVIEWS)), Semaphore::new(1));
        Self { datasets, pool, url, limit, preview_permits, list_permits, cache: Mutex::default() }
    }

    /// The limit of the connections to the source that are not in the pool: one for counting rows, and one for the checks
    /// and the cleanup, which take turns.
    pub(crate) fn limit() -> ConnectionLimit {
        ConnectionLimit::new(2, 1)
    }

    /// The largest number of connections of this process to the source.
    pub(crate) fn max_connections(&self) -> usize {
        self.limit.max() + usize::try_from(session::POOL_SIZE).unwrap_or(usize::MAX)
    }

    /// Use of the connections at the moment.
    pub(crate) fn connections(&self) -> PoolUse {
        let PoolUse { idle, used } = session::pool_use(&self.pool);
        PoolUse { idle, used: used + self.limit.in_use() }
    }

    /// Resolves a dataset by name, from the cache if the entry is at most `max_age` old; `None` if there is no such dataset.
    pub(crate) async fn resolve(
        &self,
        name: &str,
        max_age: Duration,
    ) -> Result<Option<Arc<ResolvedDataset>>, RouteError> {
        // No relation's name has U+0000, and PostgreSQL refuses it in a parameter.
        if name.contains('\0') || self.datasets.candidates(name).is_empty() {
            return Ok(None);
        }
        let oldest = Instant::now().checked_sub(max_age);
        // The timeout includes the wait for the entry's lock: if the database does not answer, all waiting requests fail
        // after the same time.
        timeout::source(async {
            let Some(entry) = self.cache_entry(name) else {
                let as_of = Instant::now();
                let Some(dataset) = self.look_up(name).await? else { return Ok(None) };
                self.add_to_cache(name, CachedDataset { as_of, dataset: Arc::clone(&dataset) });
                return Ok(Some(dataset));
            };
            let mut cached = entry.lock().await;
            if let Some(cached) = &*cached
                && oldest.is_none_or(|oldest| cached.as_of >= oldest)
            {
                return Ok(Some(Arc::clone(&cached.dataset)));
            }
            let as_of = Instant::now();
            let dataset = self.look_up(name).await?;
            *cached = dataset.clone().map(|dataset| CachedDataset { as_of, dataset });
            Ok::<_, RouteError>(dataset)
        })
        .await
    }

    /// As [`Self::resolve`], for a request that needs to read the relation: one that is locked is waited for for a moment.
    ///
    /// # Errors
    /// [`RouteError::DatasetLocked`] if it stays locked.
    pub(crate) async fn resolve_readable(
        &self,
        name: &str,
        max_age: Duration,
    ) -> Result<Option<Arc<ResolvedDataset>>, RouteError> {
        let until = Instant::now() + LOCK_WAIT;
        let mut max_age = max_age;
        loop {
            match self.resolve(name, max_age).await? {
                Some(resolved) if resolved.relation.locked => {
                    if Instant::now() >= until {
                        return Err(RouteError::DatasetLocked { dataset: name.to_owned() });
                    }
                    tokio::time::sleep(LOCK_PAUSE).await;
                    // One look for all requests that wait.
                    max_age = LOCK_PAUSE;
                }
                resolved => return Ok(resolved),
            }
        }
    }

    /// The cache entry for `name`. A configured name always has one. A name that only a relation of an exposed schema can
    /// have gets one when the relation is found (`add_to_cache`), because clients may send any number of names.
    fn cache_entry(&self, name: &str) -> Option<CacheEntry> {
        // Nothing that holds the lock panics halfway, so a poisoned map is consistent.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = cache.get(name) {
            return Some(Arc::clone(entry));
        }
        self.is_configured(name).then(|| Arc::clone(cache.entry(name.to_owned()).or_default()))
    }

    fn add_to_cache(&self, name: &str, found: CachedDataset) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.entry(name.to_owned()).or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Some(found))));
    }

    /// Whether nothing may tell this tenant that there is a dataset of this name.
    pub(crate) fn is_hidden(&self, name: &str, tenant: &str) -> bool {
        self.datasets.is_hidden(name, tenant)
    }

    fn is_configured(&self, name: &str) -> bool {
        self.datasets.entries().iter().any(|entry| matches!(entry, Exposed::One(dataset) if dataset.name == name))
    }

    async fn look_up(&self, name: &str) -> Result<Option<Arc<ResolvedDataset>>, RouteError> {
        let mut candidates = self.datasets.candidates(name);
        let mut connection = self.pool.acquire().await?;
        let governed = related_relations(&mut connection, self.datasets.relations_with_policy()).await?;
        candidates.retain(|it| self.datasets.is_entry(it) || !governed.contains(&it.relation));
        let relations: Vec<_> = candidates.iter().map(|dataset| dataset.relation.clone()).collect();
        let found = describe_all(&mut connection, &relations).await?;
        match first_existing(candidates, found) {
            Some((dataset, relation)) => Ok(Some(Arc::new(ResolvedDataset::new(dataset, relation)?))),
            None if self.is_configured(name) => {
                // Clients get the dataset's name; the relation's name is for the log.
                let missing = CatalogError::NoSuchRelation(relations[0].clone());
                Err(RouteError::DatasetUnavailable { dataset: name.to_owned(), source: missing.into() })
            }
            None => Ok(None),
        }
    }

    /// The right to list the datasets, which one request has at a time.
    pub(crate) async fn list_permit(&self) -> Result<SemaphorePermit<'_>, RouteError> {
        timeout::source(async { self.list_permits.acquire().await.map_err(|_| RouteError::Stopping) }).await
    }

    /// Lists every dataset that can be exported at the moment, by name.
    pub(crate) async fn list(&self) -> Result<Vec<ResolvedDataset>, RouteError> {
        let found = timeout::source(async {
            let mut connection = self.pool.acquire().await?;
            let candidates = self.all_candidates(&mut connection).await?;
            let relations: Vec<_> = candidates.values().flatten().map(|dataset| dataset.relation.clone()).collect();
            let mut found = describe_all(&mut connection, &relations).await?.into_iter();
            let each = candidates.into_iter().map(|(name, candidates)| {
                let found = found.by_ref().take(candidates.len()).collect();
                (name, first_existing(candidates, found))
            });
            Ok::<_, sqlx::Error>(each.collect::<Vec<_>>())
        })
        .await?;
        let mut datasets = Vec::with_capacity(found.len());
        for (name, found) in found {
            let Some((dataset, relation)) = found else {
                tracing::warn!(dataset = name, "DATASETS names a relation that does not exist");
                continue;
            };
            match ResolvedDataset::new(dataset, relation) {
                Ok(resolved) => datasets.push(resolved),
                // A dataset that cannot be used does not hide the others.
                Err(error) => tracing::warn!(error = chain(&error), "dataset left out of the list"),
            }
        }
        Ok(datasets)
    }

    /// The candidates of every dataset's name, as `Datasets::candidates` has them for one name.
    async fn all_candidates(
        &self,
        connection: &mut PgConnection,
    ) -> Result<BTreeMap<String, Vec<Dataset>>, sqlx::Error> {
        let mut candidates: BTreeMap<String, Vec<Dataset>> = BTreeMap::new();
        for entry in self.datasets.entries() {
            if let Exposed::One(dataset) = entry {
                candidates.entry(dataset.name.clone()).or_default().push(dataset.clone());
            }
        }
        let governed = related_relations(connection, self.datasets.relations_with_policy()).await?;
        for entry in self.datasets.entries() {
            if let Exposed::Schema(schema) = entry {
                for name in catalog::relations_in(connection, schema).await? {
                    let dataset = Dataset::whole(schema, &name);
                    if !governed.contains(&dataset.relation) {
                        candidates.entry(name).or_default().push(dataset);
                    }
                }
            }
        }
        Ok(candidates)
    }

    /// Has the server plan `statements` (separated by semicolons) in one read-only transaction and one round trip. The inner
    /// result is the server's verdict; a failure that no client can have caused is an error.
    pub(crate) async fn plan(&self, dataset: &str, statements: &str) -> Result<Result<Estimate, Refused>, RouteError> {
        // Several statements in one message are a transaction that ends with the message, even if this future is dropped.
        // The time limit is for what takes long to plan; that of the session for locks is shorter.
        let statement = format!("SET TRANSACTION READ ONLY; SET LOCAL statement_timeout TO '2s'; {statements}");
        let mut connection = self.pool.acquire().await?;
        // Names in it are quoted identifiers, values are quoted literals; `selection` makes them.
        match sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(&mut *connection).await {
            Ok(lines) => Ok(Ok(Estimate::of(lines.first().and_then(|line| line.try_get(0).ok()).unwrap_or_default()))),
            Err(error) => refusal(dataset, error).map(Err),
        }
    }

    /// Reads the rows of `statement`, which returns few rows of short texts. If the client disconnects, the statement goes
    /// on to its end or its time limit, and keeps its permit until then.
    ///
    /// # Errors
    /// [`RouteError::PreviewTooSlow`], also if other previews kept this one from starting in time;
    /// [`RouteError::PreviewFailed`] if the server fails at a row.
    pub(crate) async fn first_rows(
        &self,
        dataset: &str,
        statement: &str,
    ) -> Result<Vec<Vec<Option<String>>>, RouteError> {
        let read = async {
            let permit = Arc::clone(&self.preview_permits).acquire_owned().await.map_err(|_| RouteError::Stopping)?;
            let mut connection = self.pool.acquire().await?;
            // The rollback undoes what a function of a view may have set for the session. The server warns that no
            // transaction has been begun, because these statements are an implicit one.
            let statement = format!(
                "SET TRANSACTION READ ONLY; SET LOCAL client_min_messages TO error;
                 SET LOCAL statement_timeout TO '{}ms'; {statement}; ROLLBACK",
                PREVIEW_TIMEOUT.as_millis()
            );
            // In a task of its own: if this future is dropped, the connection returns to the pool only when the server is
            // done with the statement.
            let rows = tokio::spawn(async move {
                // Names in it are quoted identifiers, values are quoted literals; `selection` makes them.
                let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(&mut *connection).await;
                drop((connection, permit));
                rows
            });
            match rows.await.map_err(|_| RouteError::Panicked)? {
                Ok(rows) => rows.iter().map(texts).collect(),
                Err(error) => Err(preview_error(dataset, error)),
            }
        };
        // The server's own limit ends the statement first, unless the wait for a permit or a connection was long.
        tokio::time::timeout(PREVIEW_TIMEOUT + PREVIEW_TIMEOUT / 2, Box::pin(read))
            .await
            .unwrap_or(Err(RouteError::PreviewTooSlow))
    }

    /// Counts the rows of a dataset, without a time limit. Dropping the future closes the connection, which ends the query.
    pub(crate) async fn count(&self, dataset: &Dataset) -> Result<u64, RouteError> {
        let opening = async { SourceConnection::open(self.limit.acquire().await, &self.url, "polyglot count").await };
        let mut connection = timeout::source(opening).await?;
        let statement = format!("SELECT count(*) AS rows FROM {}", quote_relation(&dataset.relation));
        // The name is the operator's, from the configuration, and quoted.
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut *connection).await?;
        connection.close();
        Ok(rows.unsigned_abs())
    }
}

/// As `catalog::describe_all`. A relation that was locked between the look at the locks and the look at its size is found locked the
/// second time.
async fn describe_all(
    connection: &mut PgConnection,
    relations: &[RelationName],
) -> Result<Vec<Option<Relation>>, sqlx::Error> {
    match catalog::describe_all(connection, relations).await {
        Err(error) if session::is_locked(&error) => catalog::describe_all(connection, relations).await,
        described => described,
    }
}

/// The first candidate whose relation exists.
fn first_existing(candidates: Vec<Dataset>, found: Vec<Option<Relation>>) -> Option<(Dataset, Relation)> {
    candidates.into_iter().zip(found).find_map(|(dataset, relation)| Some((dataset, relation?)))
}

/// The columns of a row, all of type text.
fn texts(row: &PgRow) -> Result<Vec<Option<String>>, RouteError> {
    Ok((0..row.len()).map(|at| row.try_get(at)).collect::<Result<_, _>>()?)
}

/// The problem of a preview whose statement failed. Reading rows runs the expressions of a view, which may fail in any way.
fn preview_error(dataset: &str, error: sqlx::Error) -> RouteError {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(String::from);
    match (code, refusal(dataset, error)) {
        (Some(code), _) if code == "57014" => RouteError::PreviewTooSlow,
        (_, Ok(Refused { sql_state })) | (Some(sql_state), Err(RouteError::Internal(_))) => {
            RouteError::PreviewFailed { sql_state }
        }
        (_, Err(error)) => error,
    }
}

/// The refusal of a statement if the client may have caused it, else the problem.
fn refusal(dataset: &str, error: sqlx::Error) -> Result<Refused, RouteError> {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(String::from);
    match code.as_deref() {
        // lock_not_available: a relation below a view, or one that was locked after it was looked up.
        Some("55P03") => Err(RouteError::DatasetLocked { dataset: dataset.to_owned() }),
        // query_canceled: the statement has reached its time limit.
        Some("57014") => Err(RouteError::Unavailable { what: Dependency::Source, source: Box::new(error) }),
        // No permission; or the relation, its schema or a column was dropped after it was looked up.
        Some("42501" | "42P01" | "3F000" | "42703") => {
            Err(RouteError::DatasetUnavailable { dataset: dataset.to_owned(), source: Box::new(error) })
        }
        // Bad data, a violated domain, an operator or type that does not exist, an operation that a type does not have.
        Some(code) if ["22", "23", "42", "0A"].iter().any(|class| code.starts_with(class)) => {
            tracing::debug!(dataset, error = chain(&error), "PostgreSQL refused a filter or an order");
            Ok(Refused { sql_state: code.to_owned() })
        }
        _ => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(datasets: &str) -> Source {
        let url = "postgres://nobody@127.0.0.1:1/none";
        let pool = session::pool(url).unwrap();
        Source::new(Datasets::parse(datasets).unwrap(), pool, url.to_owned(), Source::limit())
    }

    #[tokio::test]
    async fn a_name_that_nothing_stands_for_costs_no_look_up() {
        let source = source("[[dataset]]\nrelation = \"public.records\"");
        assert!(source.resolve("users", CACHE_MAX_AGE).await.unwrap().is_none());
        assert!(matches!(source.resolve("records", CACHE_MAX_AGE).await, Err(RouteError::Unavailable { .. })));
    }

    #[tokio::test]
    async fn names_that_clients_think_of_are_not_kept() {
        let source = source("[[dataset]]\nrelation = \"public.records\"\n[[dataset]]\nrelation = \"shop.*\"");
        assert!(source.resolve("a\0b", CACHE_MAX_AGE).await.unwrap().is_none());
        let asked = ["a", "b", "records"].map(|name| source.resolve(name, CACHE_MAX_AGE));
        assert!(futures_util::future::join_all(asked).await.iter().all(Result::is_err));
        let kept: Vec<String> = source.cache.lock().unwrap().keys().cloned().collect();
        assert_eq!(kept, ["records"]);
    }

    #[test]
    fn the_number_of_rows_is_read_from_the_plan() {
        let rows = |line| Estimate::of(line).rows;
        assert_eq!(rows("Seq Scan on records r  (cost=0.00..2.75 rows=25 width=0)"), Some(25));
        assert_eq!(
            rows("Seq Scan on \"a rows=7 b\" r  (cost=0.00..2.75 rows=8000000000 width=12)"),
            Some(8_000_000_000)
        );
        assert_eq!(rows("Seq Scan on records r"), None);
        assert_eq!(rows(""), None);
    }

    #[test]
    fn the_first_relation_that_exists_is_meant() {
        let relation = crate::resolved_dataset::tests::records(&["id"]).relation;
        let candidates = vec![Dataset::whole("a", "x"), Dataset::whole("b", "x"), Dataset::whole("c", "x")];
        let (dataset, _) =
            first_existing(candidates.clone(), vec![None, Some(relation.clone()), Some(relation)]).unwrap();
        assert_eq!(dataset, candidates[1]);
        assert!(first_existing(candidates, vec![None, None, None]).is_none());
    }
}
