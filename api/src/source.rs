//! What may be exported, asked live from the source database's catalog. Answers are kept for a moment, so that
//! a burst of submissions costs one look-up and a changed table is still seen soon.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::dataset_config::{Dataset, Datasets, Exposed};
use polyglot_core::failure::chain;
use polyglot_core::relation::Relation;
use polyglot_runtime::telemetry::PoolUse;
use polyglot_source::catalog::{self, CatalogError};
use polyglot_source::session;
use polyglot_source::sql::quote_relation;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::problem::{Dependency, RouteError};
use crate::resolved_dataset::ResolvedDataset;
use crate::timeout;

/// The age up to which an answer is as good as a new one.
pub(crate) const RECENT: Duration = Duration::from_secs(2);

/// How long the server may look for the first rows of a preview.
const PREVIEW: Duration = Duration::from_secs(3);

/// Of the pool's connections, those that previews may have at a time.
const PREVIEWS: usize = 2;

/// The datasets and the way to the database that holds them.
pub(crate) struct Source {
    datasets: Datasets,
    pool: PgPool,
    url: String,
    /// Previews may take seconds, and submissions need connections too.
    previews: Arc<Semaphore>,
    seen: Mutex<HashMap<String, Slot>>,
}

/// The last answer for one dataset. Whoever holds the lock asks; the others wait for what it hears.
type Slot = Arc<tokio::sync::Mutex<Option<Seen>>>;

struct Seen {
    asked: Instant,
    resolved: Arc<ResolvedDataset>,
}

/// A statement that the server did not take, for a reason that may be the client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) sql_state: String,
}

impl Source {
    /// `pool` is for look-ups; `url` for the one long query, which gets a connection of its own.
    pub(crate) fn new(datasets: Datasets, pool: PgPool, url: String) -> Self {
        Self { datasets, pool, url, previews: Arc::new(Semaphore::new(PREVIEWS)), seen: Mutex::default() }
    }

    /// Connections to the source database at the moment, but for the one of a long query.
    pub(crate) fn connections(&self) -> PoolUse {
        session::pool_use(&self.pool)
    }

    /// The dataset of that name and the relation behind it, as it was at most `age` ago; `None` if nothing has the name.
    pub(crate) async fn resolve(&self, name: &str, age: Duration) -> Result<Option<Arc<ResolvedDataset>>, RouteError> {
        // No relation's name has U+0000, and the server does not let us ask.
        if name.contains('\0') || self.datasets.candidates(name).is_empty() {
            return Ok(None);
        }
        let oldest = Instant::now().checked_sub(age);
        // The limit is around the wait for the lock too: behind a silent database everybody gives up together.
        timeout::source(async {
            let Some(slot) = self.slot(name) else {
                let asked = Instant::now();
                let Some(resolved) = self.look_up(name).await? else { return Ok(None) };
                self.keep(name, Seen { asked, resolved: Arc::clone(&resolved) });
                return Ok(Some(resolved));
            };
            let mut seen = slot.lock().await;
            if let Some(seen) = &*seen
                && oldest.is_none_or(|oldest| seen.asked >= oldest)
            {
                return Ok(Some(Arc::clone(&seen.resolved)));
            }
            let asked = Instant::now();
            let resolved = self.look_up(name).await?;
            *seen = resolved.clone().map(|resolved| Seen { asked, resolved });
            Ok::<_, RouteError>(resolved)
        })
        .await
    }

    /// Where the answers for `name` are kept. A name of the configuration always has a place. One that only a
    /// schema's relations can have gets it when it is found (`keep`): clients can think of any number of others.
    fn slot(&self, name: &str) -> Option<Slot> {
        // Nothing in here can panic halfway, so a poisoned map is still a whole one.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = seen.get(name) {
            return Some(Arc::clone(slot));
        }
        self.is_configured(name).then(|| Arc::clone(seen.entry(name.to_owned()).or_default()))
    }

    fn keep(&self, name: &str, found: Seen) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(name.to_owned()).or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Some(found))));
    }

    fn is_configured(&self, name: &str) -> bool {
        self.datasets.entries().iter().any(|entry| matches!(entry, Exposed::One(dataset) if dataset.name == name))
    }

    async fn look_up(&self, name: &str) -> Result<Option<Arc<ResolvedDataset>>, RouteError> {
        let candidates = self.datasets.candidates(name);
        let relations: Vec<_> = candidates.iter().map(|dataset| dataset.relation.clone()).collect();
        let mut connection = self.pool.acquire().await?;
        let found = catalog::describe_all(&mut connection, &relations).await?;
        match first(candidates, found) {
            Some((dataset, relation)) => ResolvedDataset::new(dataset, relation).map(|it| Some(Arc::new(it))),
            None if self.is_configured(name) => {
                // By the name that clients know; the log has the relation's.
                let missing = CatalogError::NoSuchRelation(relations[0].clone());
                Err(RouteError::DatasetUnavailable { dataset: name.to_owned(), source: missing.into() })
            }
            None => Ok(None),
        }
    }

    /// Every dataset that can be exported at the moment, by name.
    pub(crate) async fn list(&self) -> Result<Vec<ResolvedDataset>, RouteError> {
        let resolved = timeout::source(async {
            let mut connection = self.pool.acquire().await?;
            let candidates = self.all_candidates(&mut connection).await?;
            let relations: Vec<_> = candidates.values().flatten().map(|dataset| dataset.relation.clone()).collect();
            let mut found = catalog::describe_all(&mut connection, &relations).await?.into_iter();
            let each = candidates.into_iter().map(|(name, candidates)| {
                let found = found.by_ref().take(candidates.len()).collect();
                (name, first(candidates, found))
            });
            Ok::<_, sqlx::Error>(each.collect::<Vec<_>>())
        })
        .await?;
        let mut listed = Vec::with_capacity(resolved.len());
        for (name, found) in resolved {
            let Some((dataset, relation)) = found else {
                tracing::warn!(dataset = name, "DATASETS names a relation that is not there");
                continue;
            };
            match ResolvedDataset::new(dataset, relation) {
                Ok(resolved) => listed.push(resolved),
                // One that cannot be used does not hide the others.
                Err(error) => tracing::warn!(error = chain(&error), "a dataset is left out of the list"),
            }
        }
        Ok(listed)
    }

    /// What each name of a dataset may stand for, as `Datasets::candidates`, for all the names that there are.
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
        for entry in self.datasets.entries() {
            if let Exposed::Schema(schema) = entry {
                for name in catalog::relations_in(connection, schema).await? {
                    let dataset = Dataset::whole(schema, &name);
                    candidates.entry(name).or_default().push(dataset);
                }
            }
        }
        Ok(candidates)
    }

    /// Has the server plan `statements` (separated by semicolons) in a read-only transaction of their own, all in one
    /// round trip, and says whether it took them. A failure that no client can have caused is an error.
    pub(crate) async fn plan(&self, dataset: &str, statements: &str) -> Result<Result<(), Refused>, RouteError> {
        // Several statements in one message are a transaction: it ends with the message, even if nobody waits for
        // the answer any more. The limit is for a lock that somebody holds on the relation.
        let statement = format!("SET TRANSACTION READ ONLY; SET LOCAL statement_timeout TO '2s'; {statements}");
        let mut connection = self.pool.acquire().await?;
        // Names in it are quoted identifiers, values are quoted literals; `selection` makes them.
        match sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await {
            Ok(_) => Ok(Ok(())),
            Err(error) => blame(dataset, error).map(Err),
        }
    }

    /// The rows of `statement`, which answers text only and not much of it. A client that goes away leaves it to end at its
    /// time limit; until then it has its place among the previews.
    ///
    /// # Errors
    /// [`RouteError::PreviewTooSlow`], also when others ask for so much already; [`RouteError::PreviewFailed`] when a value of
    /// a row cannot be had.
    pub(crate) async fn first_rows(
        &self,
        dataset: &str,
        statement: &str,
    ) -> Result<Vec<Vec<Option<String>>>, RouteError> {
        let look = async {
            let place = Arc::clone(&self.previews).acquire_owned().await.map_err(|_| RouteError::Stopping)?;
            let mut connection = self.pool.acquire().await?;
            // It ends with a rollback, which takes back what a function of a view may have set for the session; the server
            // warns that nobody has begun the transaction that these statements are.
            let statement = format!(
                "SET TRANSACTION READ ONLY; SET LOCAL client_min_messages TO error;
                 SET LOCAL statement_timeout TO '{}ms'; {statement}; ROLLBACK",
                PREVIEW.as_millis()
            );
            // A task of its own: dropped in the middle, the connection would not be free before the server is done with it.
            let rows = tokio::spawn(async move {
                // Names in it are quoted identifiers, values are quoted literals; `selection` makes them.
                let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(&mut *connection).await;
                drop((connection, place));
                rows
            });
            match rows.await.map_err(|_| RouteError::Panicked)? {
                Ok(rows) => rows.iter().map(texts).collect(),
                Err(error) => Err(unreadable(dataset, error)),
            }
        };
        // The server's limit comes first, unless there was a wait for a connection.
        timeout(PREVIEW + PREVIEW / 2, Box::pin(look)).await.unwrap_or(Err(RouteError::PreviewTooSlow))
    }

    /// Counts the rows, which takes as long as it takes. Dropping the future ends the query on the server.
    pub(crate) async fn count(&self, dataset: &Dataset) -> Result<u64, RouteError> {
        let mut connection = timeout::source(session::connect(&self.url, "polyglot-api count")).await?;
        let statement = format!("SELECT count(*) AS rows FROM {}", quote_relation(&dataset.relation));
        // The name is the operator's, from the configuration, and quoted.
        let row = sqlx::query(AssertSqlSafe(statement)).fetch_one(&mut connection).await?;
        Ok(row.try_get::<i64, _>("rows")?.unsigned_abs())
    }
}

/// The first candidate whose relation was found.
fn first(candidates: Vec<Dataset>, found: Vec<Option<Relation>>) -> Option<(Dataset, Relation)> {
    candidates.into_iter().zip(found).find_map(|(dataset, relation)| Some((dataset, relation?)))
}

fn texts(row: &PgRow) -> Result<Vec<Option<String>>, RouteError> {
    Ok((0..row.len()).map(|at| row.try_get(at)).collect::<Result<_, _>>()?)
}

/// Why the first rows cannot be shown. Reading rows runs whatever is in a view, which may fail in any way.
fn unreadable(dataset: &str, error: sqlx::Error) -> RouteError {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(String::from);
    match (code, blame(dataset, error)) {
        (Some(code), _) if code == "57014" => RouteError::PreviewTooSlow,
        (_, Ok(Refused { sql_state })) | (Some(sql_state), Err(RouteError::Internal(_))) => {
            RouteError::PreviewFailed { sql_state }
        }
        (_, Err(error)) => error,
    }
}

/// Whose fault it is that the server did not plan a statement.
fn blame(dataset: &str, error: sqlx::Error) -> Result<Refused, RouteError> {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(String::from);
    match code.as_deref() {
        // A statement that was cut at its time limit.
        Some("57014") => Err(RouteError::Unavailable { what: Dependency::Source, source: Box::new(error) }),
        // No permission; or the relation, its schema or a column has gone since it was looked up.
        Some("42501" | "42P01" | "3F000" | "42703") => {
            Err(RouteError::DatasetUnavailable { dataset: dataset.to_owned(), source: Box::new(error) })
        }
        // Bad data, a violated domain, no such operator or type, an operation that a type does not have.
        Some(code) if ["22", "23", "42", "0A"].iter().any(|class| code.starts_with(class)) => {
            tracing::debug!(dataset, error = chain(&error), "a condition or an order was refused");
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
        Source::new(Datasets::parse(datasets).unwrap(), session::pool(url).unwrap(), url.to_owned())
    }

    #[tokio::test]
    async fn a_name_that_nothing_stands_for_costs_no_look_up() {
        let source = source("[[dataset]]\nrelation = \"public.records\"");
        assert!(source.resolve("users", RECENT).await.unwrap().is_none());
        assert!(matches!(source.resolve("records", RECENT).await, Err(RouteError::Unavailable { .. })));
    }

    #[tokio::test]
    async fn names_that_clients_think_of_are_not_kept() {
        let source = source("[[dataset]]\nrelation = \"public.records\"\n[[dataset]]\nrelation = \"shop.*\"");
        assert!(source.resolve("a\0b", RECENT).await.unwrap().is_none());
        let asked = ["a", "b", "records"].map(|name| source.resolve(name, RECENT));
        assert!(futures_util::future::join_all(asked).await.iter().all(Result::is_err));
        let kept: Vec<String> = source.seen.lock().unwrap().keys().cloned().collect();
        assert_eq!(kept, ["records"]);
    }

    #[test]
    fn the_first_relation_that_exists_is_meant() {
        let relation = crate::resolved_dataset::tests::records(&["id"]).relation;
        let candidates = vec![Dataset::whole("a", "x"), Dataset::whole("b", "x"), Dataset::whole("c", "x")];
        let (dataset, _) = first(candidates.clone(), vec![None, Some(relation.clone()), Some(relation)]).unwrap();
        assert_eq!(dataset, candidates[1]);
        assert!(first(candidates, vec![None, None, None]).is_none());
    }
}
