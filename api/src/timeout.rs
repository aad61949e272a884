//! Timeouts of calls to the servers behind the api. A server that is down refuses a call at once; one that is frozen or cut
//! off does not answer, and clients must not hang with it.

use std::pin::Pin;
use std::time::Duration;

use polyglot_ledger::LedgerError;
use polyglot_storage::StorageError;

use crate::problem::{Dependency, RouteError};

const LEDGER_TIMEOUT: Duration = Duration::from_secs(4);
const SOURCE_TIMEOUT: Duration = Duration::from_secs(3);
/// Includes the client's own retries after a transient error.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a call to the ledger. One that times out may still take effect.
pub(crate) fn ledger<T>(
    call: impl Future<Output = Result<T, LedgerError>>,
) -> impl Future<Output = Result<T, RouteError>> {
    let answer = with_timeout(LEDGER_TIMEOUT, Dependency::Ledger, Box::pin(call));
    async { Ok(answer.await??) }
}

/// Runs a lookup in the source database.
pub(crate) fn source<T, E>(call: impl Future<Output = Result<T, E>>) -> impl Future<Output = Result<T, RouteError>>
where
    RouteError: From<E>,
{
    let answer = with_timeout(SOURCE_TIMEOUT, Dependency::Source, Box::pin(call));
    async { Ok(answer.await??) }
}

/// Runs a call to the object store, up to the head of its answer.
pub(crate) fn store<T>(
    call: impl Future<Output = Result<T, StorageError>>,
) -> impl Future<Output = Result<T, RouteError>> {
    let answer = store_result(call);
    async { Ok(answer.await??) }
}

/// Runs a call to the object store whose own errors the caller tells apart.
pub(crate) fn store_result<T>(call: impl Future<Output = T>) -> impl Future<Output = Result<T, RouteError>> {
    with_timeout(STORE_TIMEOUT, Dependency::Store, Box::pin(call))
}

/// The call is boxed before the first await: the drivers' futures are tens of kilobytes, and would be copied through every
/// caller.
async fn with_timeout<T, F>(limit: Duration, what: Dependency, call: Pin<Box<F>>) -> Result<T, RouteError>
where
    F: Future<Output = T>,
{
    tokio::time::timeout(limit, call)
        .await
        .map_err(|elapsed| RouteError::Unavailable { what, source: Box::new(elapsed) })
}
