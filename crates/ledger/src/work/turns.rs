//! Whose turn it is: the export that the next claim is for. A message in the queue says that there is work, not whose, so the
//! order of the queue has no say.

use sqlx::PgConnection;
use uuid::Uuid;

use super::claim::{Claimed, Locking};
use super::lease::Claim;
use super::policy::Terms;
use crate::database::{Ledger, LedgerError, Result};
use polyglot_core::failure::chain;

/// The kinds of exports that a claim looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Exports that have been begun: shards to read, files to finish, work that was lost with its worker. First comes the one
    /// that the fewest workers read.
    Begun,
    /// Exports that wait and are expected to be small, of tenants that may begin one more. First comes the tenant with the fewest
    /// begun exports, and of each tenant the oldest.
    Small,
    /// All exports that wait, in the same order. One that needs a place for its snapshot is passed by others while there is
    /// none.
    Waiting,
}

/// The statement that finds exports that wait. The first piece adds kinds of exports, the second one limits them.
macro_rules! waiting {
    ($kinds:literal, $which:literal) => {
        // The tenants are found by one step through the index each, not by a scan of all that wait.
        concat!(
            "WITH RECURSIVE tenants (tenant) AS (
                 (SELECT tenant FROM exports WHERE state = 'pending' ORDER BY tenant LIMIT 1)
                 UNION ALL
                 SELECT (SELECT e.tenant FROM exports e
                         WHERE e.state = 'pending' AND e.tenant > t.tenant ORDER BY e.tenant LIMIT 1)
                 FROM tenants t WHERE t.tenant IS NOT NULL),
             turns AS MATERIALIZED (
                 SELECT * FROM (
                     SELECT t.tenant, (SELECT count(*) FROM exports e
                                       WHERE e.tenant = t.tenant AND e.state IN ('planning', 'running', 'finishing')) AS begun
                     FROM tenants t WHERE t.tenant IS NOT NULL) AS counted
                 WHERE begun < coalesce((SELECT l.running FROM running_limits l WHERE l.tenant = counted.tenant),
                                        (SELECT l.running FROM running_limits l WHERE l.tenant = '*'), 2147483647)),
             kinds (needs_place) AS (SELECT false",
            $kinds,
            ")
             SELECT oldest.id
             FROM turns t CROSS JOIN kinds k
             CROSS JOIN LATERAL (
                 SELECT e.id, e.created_at FROM exports e
                 WHERE e.state = 'pending' AND e.tenant = t.tenant AND e.needs_place = k.needs_place
                   AND e.ready_at <= ledger_now()",
            $which,
            "
                 ORDER BY e.created_at, e.id LIMIT $1) AS oldest
             ORDER BY t.begun, oldest.created_at, oldest.id
             LIMIT $1"
        )
    };
}

impl Turn {
    /// The order in which a claim looks for work if it is the turn of this kind.
    fn search_order(self) -> &'static [Self] {
        match self {
            Self::Begun => &[Self::Begun, Self::Waiting],
            Self::Small => &[Self::Small, Self::Begun, Self::Waiting],
            Self::Waiting => &[Self::Waiting, Self::Begun],
        }
    }

    /// The turn after so many others. The kinds alternate; where nothing small waits, begun work comes twice as often as the rest.
    #[must_use]
    pub fn nth(count: usize) -> Self {
        [Self::Begun, Self::Small, Self::Waiting][count % 3]
    }

    /// The statement that finds candidates, in the order of their turns. `$1` is their number and, for [`Self::Waiting`], `$2`
    /// the number of places.
    fn statement(self) -> &'static str {
        match self {
            Self::Begun => {
                "SELECT e.id FROM exports e
                 WHERE e.state IN ('planning', 'running', 'finishing') AND e.ready_at <= ledger_now()
                   AND coalesce(e.paused_until <= ledger_now(), true)
                 ORDER BY (SELECT count(*) FROM shards s WHERE s.export_id = e.id AND s.state = 'leased'), e.created_at, e.id
                 LIMIT $1"
            }
            Self::Small => waiting!("", " AND e.is_small"),
            Self::Waiting => waiting!(
                " UNION ALL
                  SELECT true WHERE (SELECT count(*) FROM exports
                                     WHERE has_place AND state IN ('planning', 'running')) < $2",
                ""
            ),
        }
    }
}

/// Number of exports that one look considers, because other workers claim the same ones at the same time.
const CANDIDATES: i64 = 8;
/// Looks after which a claim gives up, when other workers were faster each time.
const LOOKS: usize = 3;

async fn candidates(connection: &mut PgConnection, turn: Turn, terms: &Terms) -> Result<Vec<Uuid>> {
    let query = sqlx::query_scalar(turn.statement()).bind(CANDIDATES);
    let query = match turn {
        Turn::Begun | Turn::Small => query,
        Turn::Waiting => query.bind(i64::from(terms.max_open_snapshots)),
    };
    Ok(query.fetch_all(connection).await?)
}

impl Ledger {
    /// Takes the next piece of work, of the kind `first` if there is any, else of another kind. `None`: there is nothing to do
    /// now.
    ///
    /// A worker alternates between the kinds. Begun work alone would let a small export wait for the end of a large one, waiting
    /// exports alone would leave large ones unfinished, and in the order of their arrival a small one would wait for the
    /// planning of all before it.
    pub async fn claim_next(&self, owner: &str, terms: &Terms, first: Turn) -> Result<Option<Box<Claim>>> {
        for _ in 0..LOOKS {
            let mut considered = false;
            for &turn in first.search_order() {
                let found = candidates(&mut *self.pool.acquire().await?, turn, terms).await?;
                considered |= !found.is_empty();
                if let Some(claim) = self.claim_first(&found, owner, terms, turn).await? {
                    return Ok(Some(claim));
                }
            }
            if !considered {
                break;
            }
        }
        Ok(None)
    }

    /// Claims work of the first of these exports that has any.
    async fn claim_first(
        &self,
        candidates: &[Uuid],
        owner: &str,
        terms: &Terms,
        turn: Turn,
    ) -> Result<Option<Box<Claim>>> {
        // A row of a begun export is locked for a moment by each commit of a shard, and is worth the wait. One that waits is
        // locked by a worker that claims it.
        let locking = match turn {
            Turn::Begun => Locking::Wait,
            Turn::Small | Turn::Waiting => Locking::SkipLocked,
        };
        for &id in candidates {
            match self.claim_export(id, owner, terms, locking).await {
                Ok(Claimed::Work(claim)) => return Ok(Some(claim)),
                // Another worker was faster.
                Ok(Claimed::Nothing) => {}
                // The export is deferred, and must not keep this worker from the others.
                Err(error @ LedgerError::Unreadable { .. }) => {
                    tracing::error!(export_id = %id, error = chain(&error), "the export cannot be read by this version");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}
