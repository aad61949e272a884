//! Whether the servers that exports need answer at the moment. The HTTP side is in `health`, the gauges in `metrics`.

use std::time::Duration;

use polyglot_core::failure::chain;
use polyglot_ledger::Ledger;
use polyglot_ledger::queue::{Broker, Depths};
use polyglot_source::SessionActivity;
use polyglot_storage::Storage;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::source_monitor::SourceMonitor;

/// Time limit of each probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Results of the probes of one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Readiness {
    pub(crate) ledger: bool,
    /// `None`: the service runs without a broker.
    pub(crate) broker: Option<bool>,
    pub(crate) bucket: bool,
    /// What the service's sessions do on the source; `None` if it could not be reached.
    pub(crate) source: Option<SessionActivity>,
    /// Whether exports are refused because the source's role may do more than read.
    pub(crate) source_refused: bool,
    /// Messages in the broker's queues, if it answered.
    pub(crate) depths: Option<Depths>,
}

/// Probes the servers. The last results are cached, because each probe of the broker opens a connection.
pub(crate) struct ReadinessProbe {
    ledger: Ledger,
    /// `None`: the service runs without a broker.
    broker: Option<Broker>,
    storage: Storage,
    source: SourceMonitor,
    /// The lock is held during the probes, so that concurrent callers share one result.
    last: Mutex<Option<(Instant, Readiness)>>,
}

impl ReadinessProbe {
    pub(crate) fn new(ledger: Ledger, broker: Option<Broker>, storage: Storage, source: SourceMonitor) -> Self {
        Self { ledger, broker, storage, source, last: Mutex::default() }
    }

    /// Returns results that are at most `max_age` old.
    pub(crate) async fn check(&self, max_age: Duration) -> Readiness {
        let mut last = self.last.lock().await;
        if let Some((at, readiness)) = *last
            && at.elapsed() < max_age
        {
            return readiness;
        }
        let broker = async {
            match &self.broker {
                Some(broker) => Some(probe("broker", broker.check()).await),
                None => None,
            }
        };
        let (ledger, broker, bucket, source, source_refused) = tokio::join!(
            probe("ledger", self.ledger.ping()),
            broker,
            probe("bucket", self.storage.check()),
            self.source.activity(),
            self.source.is_refused(),
        );
        let readiness = Readiness {
            ledger: ledger.is_some(),
            broker: broker.map(|depths| depths.is_some()),
            bucket: bucket.is_some(),
            source,
            source_refused,
            depths: broker.flatten(),
        };
        *last = Some((Instant::now(), readiness));
        readiness
    }
}

/// The answer of one server. A failure is logged and becomes `None`.
async fn probe<T, E>(server: &'static str, call: impl Future<Output = Result<T, E>>) -> Option<T>
where
    E: std::error::Error + 'static,
{
    match timeout(PROBE_TIMEOUT, call).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::warn!(what = server, error = chain(&error), "readiness probe failed");
            None
        }
        Err(_) => {
            tracing::warn!(what = server, "readiness probe timed out");
            None
        }
    }
}
