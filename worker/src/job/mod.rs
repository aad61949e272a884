//! A claimed piece of work from beginning to end: the start of an attempt, one shard, or the finish. The ledger decides
//! which work there is.

mod finish;
mod lease;
mod outcome;
mod publish;
mod shard;
mod start;
mod stream;

use polyglot_formats::Format;
use polyglot_ledger::{Claim, JobKind};
use tokio_util::sync::CancellationToken;

pub use self::finish::{EndOfFile, end_of_file};
use crate::context::WorkerContext;
use crate::metrics::Outcome;
use crate::work_error::internal;

/// Performs the claimed work and records how it ended.
pub(crate) async fn perform(context: &WorkerContext, claim: &Claim, aborting: &CancellationToken) -> Outcome {
    // The terms of the claim have asked for a format that is known here.
    let format = match Format::of(&claim.request) {
        Ok(format) => format,
        Err(unknown) => return outcome::record_end(context, claim, internal(&unknown).into()).await,
    };
    match &claim.work {
        // Boxed, because these futures hold the state of the driver and the SDK, which would be copied with each move.
        JobKind::Start { shard_size_step } => {
            Box::pin(start::perform(context, claim, format, *shard_size_step, aborting)).await
        }
        JobKind::Shard(work) => Box::pin(shard::perform(context, claim, work, aborting)).await,
        JobKind::Finish(sharded) => Box::pin(finish::perform(context, claim, format, sharded, aborting)).await,
    }
}
