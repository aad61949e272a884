//! The source database: resolves datasets in its catalog. Statements on what a dataset stands for are in `source_statements`.
//! Resolved datasets are cached for seconds, so that a burst of submissions costs one lookup and a changed table
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
use polyglot_source::{ConnectionLimit, DatabaseUrl, RoleCheck, reading_role_problem, related_relations};
use sqlx::{PgConnection, PgPool};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::problem::RouteError;
use crate::resolved_dataset::ResolvedDataset;
use crate::timeout;

/// Age up to which a cached dataset is good enough for most requests.
pub(crate) const CACHE_MAX_AGE: Duration = Duration::from_secs(2);

/// Longest wait for a relation that is locked. Most locks are held for milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Pause between two looks whether it still is.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// Connections that previews may use at a time. Previews may take seconds, and submissions need connections too.
const MAX_PREVIEWS: usize = 2;

/// The configured datasets and the connections to the database that holds them.
pub(crate) struct Source {
    datasets: Datasets,
    pub(crate) pool: PgPool,
    pub(crate) url: DatabaseUrl,
    /// Limit of the connections beside the pool.
    pub(crate) limit: ConnectionLimit,
    pub(crate) preview_permits: Arc<Semaphore>,
    pub(crate) role_check: RoleCheck,
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

impl Source {
    /// `pool` is for short statements. What may run foreign code, or takes long, gets a connection of its own to `url`, within
    /// `limit`.
    pub(crate) fn new(
        datasets: Datasets,
        pool: PgPool,
        url: impl Into<DatabaseUrl>,
        limit: ConnectionLimit,
        role_check: RoleCheck,
    ) -> Self {
        let (preview_permits, list_permits) = (Arc::new(Semaphore::new(MAX_PREVIEWS)), Semaphore::new(1));
        Self {
            datasets,
            pool,
            url: url.into(),
            limit,
            preview_permits,
            role_check,
            list_permits,
            cache: Mutex::default(),
        }
    }

    /// The limit of the connections to the source that are not in the pool: three for counting rows and for statements on
    /// relations that run foreign code, and one for the checks and the cleanup, which take turns.
    pub(crate) fn limit() -> ConnectionLimit {
        ConnectionLimit::new(4, 3)
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
        self.datasets.named(name).is_some()
    }

    async fn look_up(&self, name: &str) -> Result<Option<Arc<ResolvedDataset>>, RouteError> {
        let mut candidates = self.datasets.candidates(name);
        let mut connection = self.pool.acquire().await?;
        let governed = related_relations(&mut connection, self.datasets.relations_with_policy()).await?;
        candidates.retain(|it| self.datasets.is_entry(it) || !governed.contains(&it.relation));
        let relations: Vec<_> = candidates.iter().map(|dataset| dataset.relation.clone()).collect();
        let found = describe_all(&mut connection, &relations).await?;
        match first_existing(candidates, found) {
            Some((dataset, relation)) => {
                check_reading_role(&mut connection, &dataset).await?;
                Ok(Some(Arc::new(ResolvedDataset::new(dataset, relation)?)))
            }
            None if self.is_configured(name) => {
                // Clients get the dataset's name; the relation's name is for the log.
                let missing = CatalogError::NoSuchRelation(relations[0].clone());
                Err(RouteError::DatasetUnavailable { dataset: name.to_owned(), source: missing.into() })
            }
            None => Ok(None),
        }
    }

    /// Refuses to have anything read with a role that may do more than read.
    ///
    /// # Errors
    /// [`RouteError::SourceRole`], with the rights in its cause, which is for the operator.
    pub(crate) async fn check_role(&self) -> Result<(), RouteError> {
        match self.role_check.refusal().await {
            None => Ok(()),
            Some(rights) => Err(RouteError::SourceRole { source: rights.to_string().into() }),
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
            let mut each = Vec::with_capacity(candidates.len());
            for (name, candidates) in candidates {
                let found = found.by_ref().take(candidates.len()).collect();
                let found = match first_existing(candidates, found) {
                    Some((dataset, relation)) => {
                        let checked = check_reading_role(&mut connection, &dataset).await;
                        Some(checked.and_then(|()| ResolvedDataset::new(dataset, relation)))
                    }
                    None => None,
                };
                each.push((name, found));
            }
            Ok::<_, sqlx::Error>(each)
        })
        .await?;
        let mut datasets = Vec::with_capacity(found.len());
        for (name, found) in found {
            let Some(resolved) = found else {
                tracing::warn!(dataset = name, "DATASETS names a relation that does not exist");
                continue;
            };
            match resolved {
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
                let names = catalog::relations_in(connection, schema).await?;
                for name in names.into_iter().filter(|name| !self.is_configured(name)) {
                    let dataset = Dataset::whole(schema, &name);
                    if !governed.contains(&dataset.relation) {
                        candidates.entry(name).or_default().push(dataset);
                    }
                }
            }
        }
        Ok(candidates)
    }
}

/// Refuses a dataset whose relation cannot be read as the role that the operator has named, or not under its row security.
async fn check_reading_role(connection: &mut PgConnection, dataset: &Dataset) -> Result<(), RouteError> {
    let Some(role) = dataset.policy.role() else { return Ok(()) };
    match reading_role_problem(connection, role, &dataset.relation).await? {
        None => Ok(()),
        Some(problem) => Err(RouteError::DatasetUnavailable {
            dataset: dataset.name.clone(),
            source: format!("role: {problem}").into(),
        }),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn source(datasets: &str) -> Source {
        let url = "postgres://nobody@127.0.0.1:1/none";
        let pool = session::pool(url).unwrap();
        let (limit, role) = (Source::limit(), RoleCheck::new(url.to_owned(), Source::limit(), true));
        Source::new(Datasets::parse(datasets).unwrap(), pool, url.to_owned(), limit, role)
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
    fn the_first_relation_that_exists_is_meant() {
        let relation = crate::resolved_dataset::tests::records(&["id"]).relation;
        let candidates = vec![Dataset::whole("a", "x"), Dataset::whole("b", "x"), Dataset::whole("c", "x")];
        let (dataset, _) =
            first_existing(candidates.clone(), vec![None, Some(relation.clone()), Some(relation)]).unwrap();
        assert_eq!(dataset, candidates[1]);
        assert!(first_existing(candidates, vec![None, None, None]).is_none());
    }
}
