//! Calls to the object store that wait for it while it is away.

use std::time::Duration;

use polyglot_ledger::{Claim, Ledger, LedgerError, Renewal, deadline_failure, with_timeout};
use polyglot_storage::{Storage, StorageError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::UploadError;
use crate::outage::{Outage, Server, explain};

/// How long a store that answers may be without the bucket. One that forgets everything when it is restarted answers before the
/// bucket is there again.
const BUCKET_WAIT: Duration = Duration::from_secs(30);

/// What ends the wait of work that nothing else may interrupt.
pub(crate) struct Interruption<'a> {
    pub ledger: &'a Ledger,
    pub claim: &'a Claim,
    pub aborting: &'a CancellationToken,
}

impl Interruption<'_> {
    /// Fails if there is a reason to stop. The export is finishing: recording that again changes nothing, and shows whether the
    /// claim still holds and the export is still wanted.
    async fn check(&self) -> Result<(), UploadError> {
        if self.aborting.is_cancelled() {
            return Err(UploadError::ShuttingDown);
        }
        if self.claim.deadline.is_some_and(|deadline| deadline <= chrono::Utc::now()) {
            return Err(UploadError::Failed(explain(deadline_failure())));
        }
        match with_timeout(self.ledger.finishing(self.claim)).await {
            Ok(Renewal::CancelRequested) => Err(UploadError::Cancelled),
            // The deadline of the export says for how long both may be away.
            Ok(Renewal::Held) | Err(LedgerError::Unavailable(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes a call to the store, again and again while the store is away. Its parts stay in memory, within the budget, so nothing
/// more is read from the source meanwhile. A call that may have been carried out is repeated as well.
///
/// Work that is dropped when there is a reason to stop needs no `interruption`.
pub(super) async fn call<T, F>(
    storage: &Storage,
    interruption: Option<&Interruption<'_>>,
    request: impl Fn() -> F,
) -> Result<Result<T, StorageError>, UploadError>
where
    F: Future<Output = Result<T, StorageError>>,
{
    let mut outage = Outage::of(Server::Store);
    let mut bucket_until = None;
    loop {
        let error = match request().await {
            Err(error) if error.is_outage() => error,
            Err(error) if error.has_code("NoSuchBucket") => {
                if Instant::now() >= *bucket_until.get_or_insert_with(|| Instant::now() + BUCKET_WAIT) {
                    return Ok(Err(error));
                }
                if let Err(error) = storage.ensure_bucket().await {
                    tracing::debug!(%error, "the bucket cannot be created");
                }
                error
            }
            answered => {
                outage.end();
                return Ok(answered);
            }
        };
        match interruption {
            None => outage.pause(&error).await,
            Some(interruption) => {
                tokio::select! {
                    () = outage.pause(&error) => {}
                    () = interruption.aborting.cancelled() => {}
                }
                interruption.check().await?;
            }
        }
    }
}
