//! The worker's own settings. The addresses of the servers that it uses are in the configuration of the ledger.

use std::net::SocketAddr;
use std::time::Duration;

use polyglot_formats::Format;
use polyglot_ledger::{RetryPolicy, Terms, audit_ttl, ledger_ttl};
use polyglot_runtime::config::{ConfigError, Environment, none_if_zero};
use polyglot_source::mask::MaskKey;

/// Minimum memory of an export's parts, in MiB: two of the smallest parts of S3, with reserve.
const MIN_BUDGET_MB: usize = 16;

/// The worker's settings.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Number of pieces of work that this process performs at a time.
    pub slots: u16,
    /// Maximum number of connections to the source.
    pub source_connections: u16,
    /// Maximum bytes of file parts in memory, over all slots.
    pub memory_budget: usize,
    /// Maximum number of rows in a batch between the source and the encoder.
    pub max_batch_rows: usize,
    /// Maximum number of shards of one export that are worked on at a time.
    pub max_parallelism: u16,
    /// Maximum size of a row that is fetched, in bytes.
    pub max_row_bytes: u64,
    /// Number of exports that may keep a snapshot of the source open at a time, for all workers together.
    pub max_open_snapshots: u16,
    /// Maximum time from an export's first start to its end; `None`: no limit.
    pub timeout: Option<Duration>,
    /// Maximum age of an attempt's snapshot; `None`: no limit.
    pub snapshot_age: Option<Duration>,
    /// Length of the lease on a claim.
    pub lease: Duration,
    pub retry: RetryPolicy,
    /// `MASK_KEY`: the key of masks that hash. Without it exports with such a mask fail.
    pub mask_key: Option<MaskKey>,
    /// Time that a finished file is kept; `None`: for ever.
    pub keep: Option<Duration>,
    /// Time after its end for which the ledger remembers an export; `None`: for ever.
    pub ledger_ttl: Option<Duration>,
    /// `AUDIT_TTL_DAYS`: time for which the audit is kept; `None`: for ever.
    pub audit_ttl: Option<Duration>,
    /// Time that running work may take after SIGTERM before it is given back.
    pub grace: Duration,
    /// Where the metrics are served; `None`: nowhere.
    pub metrics_address: Option<SocketAddr>,
}

/// Returns the address that `LISTEN` and `METRICS_PORT` name; `None` if the port is not set.
pub(crate) fn metrics_address(env: &Environment) -> Result<Option<SocketAddr>, ConfigError> {
    let port = env.number("METRICS_PORT", 0, 1..=65_535, "TCP port")?;
    let address = env.listen_address()?;
    Ok((port > 0).then_some(SocketAddr::new(address, port)))
}

/// Returns `SOURCE_CONNECTIONS`. With fewer than the default a worker could be asked for a shard of an open export whose
/// snapshot it cannot hold beside the others, and would wait for one of them to end, which may wait for this worker.
fn source_connections(env: &Environment, slots: u16, max_open_snapshots: u16) -> Result<u16, ConfigError> {
    let needed = max_open_snapshots + slots + 1;
    let source_connections = env.number("SOURCE_CONNECTIONS", needed, 1..=10_000, "connections")?;
    if source_connections >= needed {
        return Ok(source_connections);
    }
    let problem = format!(
        "expected at least {needed}, but it is {source_connections}: a worker needs a connection for each export whose \
         snapshot may be open (MAX_OPEN_SNAPSHOTS: {max_open_snapshots}), one for each slot that reads (WORKER_SLOTS: \
         {slots}) and one for checks. Raise it, or lower one of the other two"
    );
    Err(ConfigError::Problem { name: "SOURCE_CONNECTIONS".to_owned(), problem })
}

impl Settings {
    pub(crate) fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let slots = env.number("WORKER_SLOTS", 2_u16, 1..=64, "exports at a time")?;
        let memory_budget_mb = env.number("MEMORY_BUDGET_MB", 64_usize, MIN_BUDGET_MB..=65_536, "MiB")?;
        if memory_budget_mb < MIN_BUDGET_MB * usize::from(slots) {
            return Err(ConfigError::Problem {
                name: "MEMORY_BUDGET_MB".to_owned(),
                problem: format!("{slots} slots (WORKER_SLOTS) need at least {MIN_BUDGET_MB} MiB each"),
            });
        }
        let max_open_snapshots = env.number("MAX_OPEN_SNAPSHOTS", 4_u16, 1..=1000, "sharded exports at a time")?;
        let source_connections = source_connections(env, slots, max_open_snapshots)?;
        let keep = env.number("EXPORT_TTL_SECONDS", 86_400_u64, 0..=3_153_600_000, "seconds")?;
        let snapshot_age = env.number("SNAPSHOT_MAX_AGE_SECONDS", 21_600_u64, 0..=2_592_000, "seconds")?;
        Ok(Self {
            slots,
            source_connections,
            memory_budget: memory_budget_mb << 20,
            max_batch_rows: env.number("MAX_BATCH_SIZE", 10_000, 1..=1_000_000, "rows")?,
            max_parallelism: env.max_parallelism()?,
            max_open_snapshots,
            max_row_bytes: env.number("MAX_ROW_MB", 8_u64, 1..=1024, "MiB")? << 20,
            timeout: none_if_zero(env.number("EXPORT_TIMEOUT_MS", 600_000, 0..=u64::from(u32::MAX), "milliseconds")?),
            snapshot_age: (snapshot_age > 0).then(|| Duration::from_secs(snapshot_age)),
            lease: Duration::from_secs(env.number("LEASE_SECONDS", 30, 5..=3600, "seconds")?),
            retry: RetryPolicy::new(env.number("MAX_ATTEMPTS", 5, 1..=100, "attempts")?),
            mask_key: MaskKey::from_environment(env)?,
            keep: (keep > 0).then(|| Duration::from_secs(keep)),
            ledger_ttl: ledger_ttl(env)?,
            audit_ttl: audit_ttl(env)?,
            grace: Duration::from_secs(env.number("SHUTDOWN_GRACE_SECONDS", 30, 0..=3600, "seconds")?),
            metrics_address: metrics_address(env)?,
        })
    }

    /// Returns the settings that the ledger needs with a claim.
    pub(crate) fn terms(&self) -> Terms {
        let Self { lease, timeout, snapshot_age, retry, max_open_snapshots, .. } = *self;
        Terms {
            lease,
            timeout,
            snapshot_age,
            retry,
            max_open_snapshots,
            check_request: |request| Format::of(request).map(drop).map_err(|unknown| unknown.to_string()),
        }
    }

    /// Returns the maximum bytes of parts in memory for one slot.
    pub(crate) fn part_budget(&self) -> usize {
        self.memory_budget / usize::from(self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_value_names_its_variable() {
        for name in [
            "WORKER_SLOTS",
            "MAX_OPEN_SNAPSHOTS",
            "SOURCE_CONNECTIONS",
            "MEMORY_BUDGET_MB",
            "EXPORT_TTL_SECONDS",
            "LEDGER_TTL_DAYS",
            "MAX_BATCH_SIZE",
            "MAX_ROW_MB",
            "SNAPSHOT_MAX_AGE_SECONDS",
            "MAX_PARALLELISM",
            "EXPORT_TIMEOUT_MS",
            "LEASE_SECONDS",
            "MAX_ATTEMPTS",
            "SHUTDOWN_GRACE_SECONDS",
            "METRICS_PORT",
            "LISTEN",
            "MASK_KEY",
        ] {
            for value in ["-1", "x", "999999999999999"] {
                let error = Settings::from_environment(&Environment::fixed(&[(name, value)])).unwrap_err().to_string();
                assert!(error.starts_with(&format!("{name}: ")), "{error}");
            }
        }
        let env = Environment::fixed(&[("WORKER_SLOTS", "8"), ("MEMORY_BUDGET_MB", "64")]);
        assert!(Settings::from_environment(&env).unwrap_err().to_string().starts_with("MEMORY_BUDGET_MB: "));
    }

    #[test]
    fn a_worker_has_a_connection_for_each_snapshot_each_slot_and_for_checks() {
        let connections = |variables: &[(&str, &str)]| {
            Settings::from_environment(&Environment::fixed(variables)).map(|settings| settings.source_connections)
        };
        assert_eq!(connections(&[]).unwrap(), 4 + 2 + 1);
        assert_eq!(connections(&[("MAX_OPEN_SNAPSHOTS", "1"), ("WORKER_SLOTS", "1")]).unwrap(), 3);
        assert_eq!(connections(&[("SOURCE_CONNECTIONS", "20")]).unwrap(), 20);
        let error = connections(&[("SOURCE_CONNECTIONS", "6")]).unwrap_err().to_string();
        assert!(error.starts_with("SOURCE_CONNECTIONS: expected at least 7, but it is 6"), "{error}");
    }

    #[test]
    fn zero_means_without_limit() {
        let env =
            Environment::fixed(&[("EXPORT_TIMEOUT_MS", "0"), ("EXPORT_TTL_SECONDS", "0"), ("LEDGER_TTL_DAYS", "0")]);
        let settings = Settings::from_environment(&env).unwrap();
        assert_eq!((settings.timeout, settings.keep, settings.ledger_ttl), (None, None, None));
    }
}
