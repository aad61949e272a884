//! The definition of every metric: name, type, unit, labels and help. Tests compare scrapes, the documented table and the
//! dashboard with it.

use metrics::Unit;

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; it is 0 when the process starts.
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric as Prometheus and the documentation show it.
#[derive(Debug, Clone, Copy)]
pub struct MetricDefinition {
    pub name: &'static str,
    pub kind: MetricKind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const fn counter(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> MetricDefinition {
    MetricDefinition { name, kind: MetricKind::Counter, unit, labels, help }
}

const fn gauge(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> MetricDefinition {
    MetricDefinition { name, kind: MetricKind::Gauge, unit, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> MetricDefinition {
    MetricDefinition { name, kind: MetricKind::Histogram, unit: Unit::Seconds, labels, help }
}

// The metrics that are counted as events happen; the others are read at the time of a scrape.
pub const HTTP_REQUESTS: &str = "polyglot_http_requests_total";
pub const HTTP_DURATION: &str = "polyglot_http_request_duration_seconds";
pub const HTTP_CONNECTIONS: &str = "polyglot_http_connections";
pub const HTTP_REFUSED: &str = "polyglot_http_refused_total";
pub const ROWS: &str = "polyglot_rows_total";
pub const STORED_BYTES: &str = "polyglot_stored_bytes_total";
pub const TENANT_ROWS: &str = "polyglot_tenant_rows_total";
pub const TENANT_STORED_BYTES: &str = "polyglot_tenant_stored_bytes_total";
pub const WORK: &str = "polyglot_work_total";
pub const WORK_DURATION: &str = "polyglot_work_seconds";
pub const PARTS: &str = "polyglot_parts_total";
pub const PART_RETRIES: &str = "polyglot_part_retries_total";
pub const LEASE_LOSSES: &str = "polyglot_lease_losses_total";
pub const SECRET_RELOADS: &str = "polyglot_secret_reloads_total";
pub const SWEPT: &str = "polyglot_swept_total";
pub const MESSAGES_PUBLISHED: &str = "polyglot_messages_published_total";

/// All metrics.
pub static METRIC_DEFINITIONS: &[MetricDefinition] = &[
    counter(
        HTTP_REQUESTS,
        Unit::Count,
        &["route", "method", "status"],
        "Answered requests; status 499: the client went away before its answer.",
    ),
    histogram(HTTP_DURATION, &["route", "method"], "Time from a request to the head of its answer."),
    gauge(HTTP_CONNECTIONS, Unit::Count, &[], "Open connections of HTTP clients."),
    counter(
        HTTP_REFUSED,
        Unit::Count,
        &["reason"],
        "Connections and requests that a limit for clients has refused or cut off.",
    ),
    gauge(
        "polyglot_exports",
        Unit::Count,
        &["state"],
        "Exports in the ledger; those that have ended as of a while ago.",
    ),
    gauge("polyglot_outbox_messages", Unit::Count, &[], "Messages in the ledger that wait for the broker."),
    gauge(
        "polyglot_tenant_exports",
        Unit::Count,
        &["tenant", "state"],
        "Exports of a tenant that have not begun (pending), and that have begun (running).",
    ),
    gauge("polyglot_ready_exports", Unit::Count, &[], "Exports that have work which a worker may take, and none has."),
    gauge(
        "polyglot_ready_oldest_seconds",
        Unit::Seconds,
        &[],
        "How long the one of them that waits longest has waited; 0 if none does.",
    ),
    gauge(
        "polyglot_open_snapshots",
        Unit::Count,
        &[],
        "Exports that have a place for their snapshot, of at most MAX_OPEN_SNAPSHOTS.",
    ),
    gauge("polyglot_waiting_for_place_exports", Unit::Count, &[], "Exports that wait for a place for their snapshot."),
    gauge(
        "polyglot_queue_messages",
        Unit::Count,
        &["queue"],
        "Messages that wait in the broker's queues: tokens, dead.",
    ),
    gauge("polyglot_up", Unit::Count, &["dependency"], "1 if the server was there at the last look, else 0."),
    gauge(
        "polyglot_database_connections",
        Unit::Count,
        &["pool", "state"],
        "Open connections to the ledger and to the source database.",
    ),
    gauge(
        "polyglot_source_connection_limit",
        Unit::Count,
        &[],
        "Connections to the source database that the process may have at most.",
    ),
    gauge(
        "polyglot_source_sessions",
        Unit::Count,
        &[],
        "Sessions of the service in the source database, of all its processes.",
    ),
    gauge(
        "polyglot_source_oldest_snapshot_seconds",
        Unit::Seconds,
        &[],
        "Age of the oldest transaction among them that holds a snapshot; 0 if none does.",
    ),
    gauge(
        "polyglot_source_oldest_xmin_age",
        Unit::Count,
        &[],
        "Transactions since the oldest one whose changes vacuum has to keep for these sessions; 0 if there is none.",
    ),
    gauge(
        "polyglot_source_longest_statement_seconds",
        Unit::Seconds,
        &[],
        "How long the statement of these sessions that runs longest has run; 0 if none runs.",
    ),
    counter(
        ROWS,
        Unit::Count,
        &["format"],
        "Rows in committed shards, and of exports that are one stream in completed ones.",
    ),
    counter(
        STORED_BYTES,
        Unit::Bytes,
        &["format"],
        "Bytes in the object store of the same shards and exports, after compression.",
    ),
    counter(TENANT_ROWS, Unit::Count, &["tenant"], "Rows as in polyglot_rows_total, by tenant."),
    counter(TENANT_STORED_BYTES, Unit::Bytes, &["tenant"], "Bytes as in polyglot_stored_bytes_total, by tenant."),
    counter(WORK, Unit::Count, &["kind", "outcome"], "Pieces of work that ended, and how."),
    histogram(WORK_DURATION, &["kind", "format"], "Time from a claim to the end of its work."),
    counter(
        "polyglot_stage_seconds_total",
        Unit::Seconds,
        &["stage", "format"],
        "Waiting for rows (source), making the file's bytes (encode), and requests that store them (upload).",
    ),
    counter(PARTS, Unit::Count, &[], "Parts and objects that the object store has taken."),
    counter(PART_RETRIES, Unit::Count, &[], "Times that a part or an object had to be sent again."),
    counter(LEASE_LOSSES, Unit::Count, &[], "Pieces of work that were dropped because their lease was lost."),
    gauge("polyglot_slots", Unit::Count, &["state"], "Slots of the worker."),
    gauge("polyglot_memory_budget_bytes", Unit::Bytes, &[], "Memory that parts of files may take, over all slots."),
    gauge("polyglot_snapshots_kept", Unit::Count, &[], "Snapshots of the source that the worker keeps open."),
    counter(
        SECRET_RELOADS,
        Unit::Count,
        &["outcome"],
        "Times that the secrets in files were read again on SIGHUP, and whether all could be used.",
    ),
    counter(SWEPT, Unit::Count, &["kind"], "What the process has tidied up."),
    counter(MESSAGES_PUBLISHED, Unit::Count, &[], "Messages that the broker has confirmed to this process."),
    gauge("polyglot_build_info", Unit::Count, &["version"], "Always 1; the label is the version of the program."),
    gauge("process_resident_memory_bytes", Unit::Bytes, &[], "Resident memory of the process."),
    gauge("process_start_time_seconds", Unit::Seconds, &[], "When the process started, since 1970 in UTC."),
    counter("process_cpu_seconds_total", Unit::Seconds, &[], "Processor time of the process, user and system."),
    gauge("process_open_fds", Unit::Count, &[], "Open file descriptors of the process."),
];

pub(super) fn find(name: &str) -> Option<&'static MetricDefinition> {
    METRIC_DEFINITIONS.iter().find(|metric| metric.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for metric in METRIC_DEFINITIONS {
            assert!(metric.name.starts_with("polyglot_") || metric.name.starts_with("process_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == MetricKind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            let same = METRIC_DEFINITIONS.iter().filter(|other| other.name == metric.name).count();
            assert_eq!(same, 1, "{}", metric.name);
            for (unit, word) in [(Unit::Seconds, "_seconds"), (Unit::Bytes, "_bytes")] {
                assert_eq!(metric.unit == unit, metric.name.contains(word), "{}", metric.name);
            }
        }
    }
}
