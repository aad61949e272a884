//! A claimed piece of work from beginning to end: the start of an attempt, one shard, or the finish. The ledger decides
//! which work there is.

mod finish;
mod lease;
mod outcome;
mod publish;
mod shard;
mod start;
mod stream;

use polyglot_ledger::{Claim, Work};
use tokio_util::sync::CancellationToken;

pub use self::finish::{EndOfFile, end_of_file};
use crate::context::WorkerContext;
use crate::metrics::Outcome;

/// Performs the claimed work and records how it ended.
pub(crate) async fn perform(context: &WorkerContext, claim: &Claim, aborting: &CancellationToken) -> Outcome {
    match &claim.work {
        // Boxed, because these futures hold the state of the driver and the SDK, which would be copied with each move.
        Work::Start { coarser } => Box::pin(start::perform(context, claim, *coarser, aborting)).await,
        Work::Shard(work) => Box::pin(shard::perform(context, claim, work, aborting)).await,
        Work::Finish(cut) => Box::pin(finish::perform(context, claim, cut, aborting)).await,
    }
}
