//! What the worker counts as it happens: pieces of work and how they ended, rows and bytes, and where the time goes. Where
//! metrics are not served all of it does nothing, but for three additions to a number with each batch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use polyglot_core::format::FormatName;
use polyglot_formats::Format;
use polyglot_ledger::{Claim, JobKind};
use polyglot_runtime::telemetry::{
    LEASE_LOSSES, MESSAGES_PUBLISHED, PART_RETRIES, PARTS, ROWS, STORED_BYTES, SampleWriter, WORK, WORK_DURATION,
};

/// What takes time between a row and the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The encoder waits for rows.
    Source,
    /// The encoder makes bytes of them, compressed if they are to be. Not: waiting for room.
    Encode,
    /// A request that stores some; several at once count as several.
    Upload,
}

const STAGES: [(Stage, &str); 3] = [(Stage::Source, "source"), (Stage::Encode, "encode"), (Stage::Upload, "upload")];

/// Nanoseconds, by stage and format. Not in the registry: that would be a look-up with each batch, and has whole numbers only.
static TIME: [[AtomicU64; Format::COUNT]; STAGES.len()] =
    [const { [const { AtomicU64::new(0) }; Format::COUNT] }; STAGES.len()];

pub(crate) fn time(stage: Stage, format: Format, took: Duration) {
    let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    TIME[stage as usize][format.index()].fetch_add(nanoseconds, Ordering::Relaxed);
}

/// Writes what [`time`] has added up.
pub(crate) fn write_times(page: &mut SampleWriter) {
    for (stage, name) in STAGES {
        for format in Format::all() {
            let spent = Duration::from_nanos(TIME[stage as usize][format.index()].load(Ordering::Relaxed));
            let labels = [("stage", name), ("format", format.name)];
            page.write("polyglot_stage_seconds_total", &labels, spent.as_secs_f64());
        }
    }
}

/// What a claim is for, in a word.
pub(crate) fn kind(claim: &Claim) -> &'static str {
    match claim.work {
        JobKind::Start { .. } => "start",
        JobKind::Shard(_) => "shard",
        JobKind::Finish(_) => "finish",
    }
}

/// How a piece of work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Failed, and will be tried again.
    Again,
    /// Failed, and the export with it.
    Failed,
    Cancelled,
    /// To another worker, because this one stops.
    GivenBack,
    /// The claim did not hold any more, or the ledger did not say what became of it.
    Lost,
    /// The shards came out too small, and are cut anew.
    TooSmall,
}

impl Outcome {
    const ALL: [Self; 7] =
        [Self::Done, Self::Again, Self::Failed, Self::Cancelled, Self::GivenBack, Self::Lost, Self::TooSmall];

    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Again => "again",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::GivenBack => "given_back",
            Self::Lost => "lost",
            Self::TooSmall => "too_small",
        }
    }

    /// Whether there is something wrong.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Again | Self::Failed | Self::Lost)
    }
}

/// Lets everything that is counted begin at 0: what appears with its first event has no increase from none to one.
pub(crate) fn begin() {
    for outcome in Outcome::ALL {
        for kind in ["start", "shard", "finish"] {
            metrics::counter!(WORK, "kind" => kind, "outcome" => outcome.name()).increment(0);
        }
    }
    // Exports that are found to have failed by who would work on them: their workers were lost, or their time is up.
    metrics::counter!(WORK, "kind" => "claim", "outcome" => Outcome::Failed.name()).increment(0);
    for format in Format::all() {
        metrics::counter!(ROWS, "format" => format.name).increment(0);
        metrics::counter!(STORED_BYTES, "format" => format.name).increment(0);
    }
    for name in [PARTS, PART_RETRIES, LEASE_LOSSES, MESSAGES_PUBLISHED] {
        metrics::counter!(name).increment(0);
    }
}

/// A claim's work has ended.
pub(crate) fn ended(claim: &Claim, outcome: Outcome, took: Duration) {
    let (kind, format) = (kind(claim), claim.request.format.to_string());
    metrics::counter!(WORK, "kind" => kind, "outcome" => outcome.name()).increment(1);
    metrics::histogram!(WORK_DURATION, "kind" => kind, "format" => format).record(took);
}

/// A shard is committed, or an export that is one stream completed.
pub(crate) fn stored(format: &FormatName, rows: i64, bytes: i64) {
    metrics::counter!(ROWS, "format" => format.to_string()).increment(rows.try_into().unwrap_or(0));
    metrics::counter!(STORED_BYTES, "format" => format.to_string()).increment(bytes.try_into().unwrap_or(0));
}

pub(crate) fn part_stored() {
    metrics::counter!(PARTS).increment(1);
}

pub(crate) fn lease_lost() {
    metrics::counter!(LEASE_LOSSES).increment(1);
}
