//! What may be exported, asked live from the source database's catalog. Answers are kept for a moment, so that
//! a burst of submissions costs one look-up and a changed table is still seen soon.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polyglot_export::catalog::{self, CatalogError, Relation};
use polyglot_export::dataset::{Dataset, Datasets};
use sqlx::{PgPool, Row};
use tokio::time::Instant;

use crate::patience;
use crate::problem::RouteError;

/// The age up to which an answer is as good as a new one.
pub(crate) const RECENT: Duration = Duration::from_secs(2);

/// The datasets and the way to the database that holds them.
pub(crate) struct Source {
    pub(crate) datasets: Datasets,
    pool: PgPool,
    url: String,
    seen: Mutex<HashMap<String, Slot>>,
}

/// The last answer for one dataset. Whoever holds the lock asks; the others wait for what it hears.
type Slot = Arc<tokio::sync::Mutex<Option<Seen>>>;

struct Seen {
    asked: Instant,
    relation: Arc<Relation>,
}

impl Source {
    /// `pool` is for look-ups; `url` for the one long query, which gets a connection of its own.
    pub(crate) fn new(datasets: Datasets, pool: PgPool, url: String) -> Self {
        Self { datasets, pool, url, seen: Mutex::default() }
    }

    /// The relation behind `dataset`, as it was at most `age` ago.
    pub(crate) async fn describe(&self, dataset: &Dataset, age: Duration) -> Result<Arc<Relation>, RouteError> {
        let oldest = Instant::now().checked_sub(age);
        let slot = {
            // Nothing in here can panic halfway, so a poisoned map is still a whole one.
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.entry(dataset.name.clone()).or_default().clone()
        };
        // The limit is around the wait for the lock too: behind a silent database everybody gives up together.
        patience::source(async {
            let mut seen = slot.lock().await;
            if let Some(seen) = &*seen
                && oldest.is_none_or(|oldest| seen.asked >= oldest)
            {
                return Ok(Arc::clone(&seen.relation));
            }
            let asked = Instant::now();
            let mut connection = self.pool.acquire().await?;
            let relation = match catalog::describe(&mut connection, &dataset.relation).await {
                Ok(relation) => Arc::new(relation),
                // By the name that clients know.
                Err(missing @ CatalogError::NoSuchRelation(_)) => {
                    let (dataset, source) = (dataset.name.clone(), missing.into());
                    return Err(RouteError::DatasetUnavailable { dataset, source });
                }
                Err(CatalogError::Database(error)) => return Err(error.into()),
            };
            *seen = Some(Seen { asked, relation: Arc::clone(&relation) });
            Ok::<_, RouteError>(relation)
        })
        .await
    }

    /// Counts the rows, which takes as long as it takes. Dropping the future ends the query on the server.
    pub(crate) async fn count(&self, dataset: &Dataset) -> Result<u64, RouteError> {
        let mut connection = patience::source(catalog::connect_source(&self.url, "polyglot-api count")).await?;
        let statement = format!("SELECT count(*) AS rows FROM {}", catalog::quote_relation(&dataset.relation));
        // The name is the operator's, from the configuration, and quoted.
        let row = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_one(&mut connection).await?;
        Ok(row.try_get::<i64, _>("rows")?.unsigned_abs())
    }
}
