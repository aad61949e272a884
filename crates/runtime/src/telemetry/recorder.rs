//! The registry of what is counted as it happens, and a scrape's answer.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio_util::sync::CancellationToken;

use super::metric_definitions::{HTTP_DURATION, Kind, METRICS, WORK_DURATION};
use super::{Page, process};

/// Text format 0.0.4, which every Prometheus reads.
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An answer takes milliseconds, a submission tens of them; a download may wait for its export for minutes.
const HTTP_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// A shard takes a second or two, an export that is one stream as long as its rows take.
const WORK_BUCKETS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

/// How often histograms are brought together. Until then each sample is in memory by itself, scraped or not.
const UPKEEP: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("the metrics cannot be set up")]
    Build(#[from] BuildError),
    #[error("the process counts its metrics already")]
    Twice,
}

/// A handle on what this process counts; clones share it.
#[derive(Clone)]
pub struct Recorder(PrometheusHandle);

impl Recorder {
    /// Counts from now on. Without it the places that count do nothing. Call it once, before they do.
    ///
    /// # Errors
    /// When the process counts already.
    pub fn install() -> Result<Self, InstallError> {
        let recorder = build()?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| InstallError::Twice)?;
        describe();
        Ok(Self(handle))
    }

    /// A recorder of which nobody else in the process knows.
    ///
    /// # Errors
    /// Never, as long as the tables above are sound.
    pub fn for_test() -> Result<Self, InstallError> {
        Ok(Self(build()?.handle()))
    }

    /// Keeps what is counted small until `stopping`.
    pub async fn keep_small(self, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(UPKEEP) => self.0.run_upkeep(),
            }
        }
    }

    /// The answer to a scrape, of the type [`METRICS_CONTENT_TYPE`]: the samples on the page, those of the process, and what
    /// was counted.
    #[must_use]
    pub fn render(&self, mut page: Page) -> String {
        process::write(&mut page);
        page.into_text() + &self.0.render()
    }
}

fn build() -> Result<PrometheusRecorder, BuildError> {
    let buckets = |name: &str| Matcher::Full(name.to_owned());
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(buckets(HTTP_DURATION), HTTP_BUCKETS)?
        .set_buckets_for_metric(buckets(WORK_DURATION), WORK_BUCKETS)?
        .build_recorder())
}

fn describe() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}
