//! The worker's counters: pieces of work and their outcomes, rows and bytes, and the time of each stage. Where metrics
//! are not served they cost nothing but three additions to a number for each batch.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use polyglot_formats::Format;
use polyglot_ledger::{Claim, JobKind};
use polyglot_runtime::telemetry::{
    LEASE_LOSSES, MESSAGES_PUBLISHED, PART_RETRIES, PARTS, ROWS, STORED_BYTES, SampleWriter, TENANT_ROWS,
    TENANT_STORED_BYTES, WORK, WORK_DURATION,
};

/// A stage on the way of a row from the source to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Time that the encoder waits for rows.
    Source,
    /// Time that the encoder encodes and compresses, without its waits for the output.
    Encode,
    /// Time of the requests that store bytes; requests at the same time count separately.
    Upload,
}

const STAGES: [(Stage, &str); 3] = [(Stage::Source, "source"), (Stage::Encode, "encode"), (Stage::Upload, "upload")];

/// Nanoseconds by stage and format. They are not in the registry, which would need a look-up for each batch and counts
/// in whole numbers only.
static TIME: [[AtomicU64; Format::COUNT]; STAGES.len()] =
    [const { [const { AtomicU64::new(0) }; Format::COUNT] }; STAGES.len()];

/// Adds to the time of a stage.
pub(crate) fn time(stage: Stage, format: Format, took: Duration) {
    let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    TIME[stage as usize][format.index()].fetch_add(nanoseconds, Ordering::Relaxed);
}

/// Writes the sums of [`time`].
pub(crate) fn write_times(page: &mut SampleWriter) {
    for (stage, name) in STAGES {
        for format in Format::all() {
            let spent = Duration::from_nanos(TIME[stage as usize][format.index()].load(Ordering::Relaxed));
            let labels = [("stage", name), ("format", format.name)];
            page.write("polyglot_stage_seconds_total", &labels, spent.as_secs_f64());
        }
    }
}

/// Returns the kind of a claim's work, as metrics and logs name it.
pub(crate) fn kind(claim: &Claim) -> &'static str {
    match claim.work {
        JobKind::Start { .. } => "start",
        JobKind::Shard(_) => "shard",
        JobKind::Finish(_) => "finish",
    }
}

/// The outcome of a piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Failed, and will be tried again.
    Again,
    /// Failed, and the export with it.
    Failed,
    Cancelled,
    /// Given back for another worker, because this one stops or has no connection left.
    GivenBack,
    /// The claim was lost, or the ledger did not confirm the end of the work.
    Lost,
    /// The shards came out too small, and are planned again.
    TooSmall,
    /// The export waits for a place for its snapshot.
    Waits,
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Done,
        Self::Again,
        Self::Failed,
        Self::Cancelled,
        Self::GivenBack,
        Self::Lost,
        Self::TooSmall,
        Self::Waits,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Again => "again",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::GivenBack => "given_back",
            Self::Lost => "lost",
            Self::TooSmall => "too_small",
            Self::Waits => "waits",
        }
    }

    /// Returns whether the outcome is a failure.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Again | Self::Failed | Self::Lost)
    }
}

/// Registers every counter with the value 0: a counter that appears with its first event shows no increase for it.
pub(crate) fn register_counters() {
    for outcome in Outcome::ALL {
        for kind in ["start", "shard", "finish"] {
            metrics::counter!(WORK, "kind" => kind, "outcome" => outcome.name()).increment(0);
        }
    }
    // A claim can find that the export has failed: its workers were lost, or its deadline has passed.
    metrics::counter!(WORK, "kind" => "claim", "outcome" => Outcome::Failed.name()).increment(0);
    for format in Format::all() {
        metrics::counter!(ROWS, "format" => format.name).increment(0);
        metrics::counter!(STORED_BYTES, "format" => format.name).increment(0);
    }
    polyglot_ledger::register_reload_counter();
    for name in [PARTS, PART_RETRIES, LEASE_LOSSES, MESSAGES_PUBLISHED] {
        metrics::counter!(name).increment(0);
    }
}

/// Counts a claim's work that has ended.
pub(crate) fn ended(claim: &Claim, outcome: Outcome, took: Duration) {
    let (kind, format) = (kind(claim), claim.request.format.to_string());
    metrics::counter!(WORK, "kind" => kind, "outcome" => outcome.name()).increment(1);
    metrics::histogram!(WORK_DURATION, "kind" => kind, "format" => format).record(took);
}

/// Counts the rows and bytes of a committed shard, or of a completed export that is one stream.
pub(crate) fn stored(claim: &Claim, rows: i64, bytes: i64) {
    let (rows, bytes) = (rows.try_into().unwrap_or(0), bytes.try_into().unwrap_or(0));
    let (format, tenant) = (claim.request.format.to_string(), tenant_label(&claim.tenant));
    metrics::counter!(ROWS, "format" => format.clone()).increment(rows);
    metrics::counter!(STORED_BYTES, "format" => format).increment(bytes);
    metrics::counter!(TENANT_ROWS, "tenant" => tenant.clone()).increment(rows);
    metrics::counter!(TENANT_STORED_BYTES, "tenant" => tenant).increment(bytes);
}

/// Tenants that have a label of their own in a process. A token may name any tenant, and each label is memory until the process ends.
const MAX_TENANTS: usize = 100;

/// The label of all further tenants. It cannot be the name of one.
const OTHER_TENANTS: &str = "(other)";

/// The tenant's own label, if it is one of the first that the process has worked for.
fn tenant_label(tenant: &str) -> String {
    static LABELLED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut labelled = LABELLED.lock().unwrap_or_else(PoisonError::into_inner);
    if labelled.len() < MAX_TENANTS && !labelled.contains(tenant) {
        labelled.insert(tenant.to_owned());
    }
    if labelled.contains(tenant) { tenant.to_owned() } else { OTHER_TENANTS.to_owned() }
}

/// Counts a stored part.
pub(crate) fn part_stored() {
    metrics::counter!(PARTS).increment(1);
}

/// Counts a lost lease.
pub(crate) fn lease_lost() {
    metrics::counter!(LEASE_LOSSES).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_of_tenants_are_bounded() {
        let labels: BTreeSet<String> = (0..500).map(|number| tenant_label(&format!("tenant-{number}"))).collect();
        assert_eq!(labels.len(), MAX_TENANTS + 1);
        assert!(labels.contains(OTHER_TENANTS) && labels.contains("tenant-0"));
        assert_eq!(tenant_label("tenant-0"), "tenant-0");
        assert!(!polyglot_core::tenant::is_valid(OTHER_TENANTS));
    }
}
