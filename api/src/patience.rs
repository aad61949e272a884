//! How long the api waits for the servers behind it. A server that is down refuses at once; one that is frozen
//! or cut off says nothing, and a client must not hang with it.

use std::pin::Pin;
use std::time::Duration;

use polyglot_ledger::LedgerError;
use polyglot_storage::StorageError;

use crate::problem::{Dependency, RouteError};

const LEDGER: Duration = Duration::from_secs(4);
const SOURCE: Duration = Duration::from_secs(3);
/// Covers the client's own tries again after a passing error.
const STORE: Duration = Duration::from_secs(10);

/// A call to the ledger. One that is given up may still take effect.
pub(crate) fn ledger<T>(
    work: impl Future<Output = Result<T, LedgerError>>,
) -> impl Future<Output = Result<T, RouteError>> {
    let answer = in_time(LEDGER, Dependency::Ledger, Box::pin(work));
    async { Ok(answer.await??) }
}

/// A look-up in the source database's catalog.
pub(crate) fn source<T, E>(work: impl Future<Output = Result<T, E>>) -> impl Future<Output = Result<T, RouteError>>
where
    RouteError: From<E>,
{
    let answer = in_time(SOURCE, Dependency::Source, Box::pin(work));
    async { Ok(answer.await??) }
}

/// A call to the object store, up to the head of its answer.
pub(crate) fn store<T>(
    work: impl Future<Output = Result<T, StorageError>>,
) -> impl Future<Output = Result<T, RouteError>> {
    let answer = store_answer(work);
    async { Ok(answer.await??) }
}

/// As `store`, for a caller that tells the errors apart itself.
pub(crate) fn store_answer<T>(work: impl Future<Output = T>) -> impl Future<Output = Result<T, RouteError>> {
    in_time(STORE, Dependency::Store, Box::pin(work))
}

/// The work is boxed before the first await: the drivers' futures are tens of kilobytes, and would be copied
/// through every caller.
async fn in_time<T, F>(limit: Duration, what: Dependency, work: Pin<Box<F>>) -> Result<T, RouteError>
where
    F: Future<Output = T>,
{
    tokio::time::timeout(limit, work)
        .await
        .map_err(|silence| RouteError::Unavailable { what, source: Box::new(silence) })
}
