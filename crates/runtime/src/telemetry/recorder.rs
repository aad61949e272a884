//! The registry of the metrics that are counted as events happen, and the answer to a scrape.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio_util::sync::CancellationToken;

use super::metric_definitions::{HTTP_DURATION, METRIC_DEFINITIONS, MetricKind, WORK_DURATION};
use super::process;
use super::sample_writer::SampleWriter;

/// Text format 0.0.4, which every Prometheus reads.
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Seconds. An answer takes milliseconds, a submission tens of them; a download may wait for its export for minutes.
const HTTP_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Seconds. A shard takes one or two; an export that is one stream takes as long as its rows.
const WORK_BUCKETS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

/// Interval between two merges of histogram samples. Until then each sample takes memory of its own.
const UPKEEP: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("the metrics cannot be set up")]
    Build(#[from] BuildError),
    #[error("the metrics of the process are set up already")]
    Twice,
}

/// A handle on the metrics registry of the process; clones share it.
#[derive(Clone)]
pub struct Recorder(PrometheusHandle);

impl Recorder {
    /// Makes the registry the global one. Until then counting has no effect. Call it once, at the start.
    ///
    /// # Errors
    /// When the process has a registry already.
    pub fn install() -> Result<Self, InstallError> {
        let recorder = build()?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| InstallError::Twice)?;
        describe();
        Ok(Self(handle))
    }

    /// A registry that is not the global one.
    ///
    /// # Errors
    /// Never, as long as the buckets above are valid.
    pub fn for_test() -> Result<Self, InstallError> {
        Ok(Self(build()?.handle()))
    }

    /// Merges histogram samples regularly until `stopping`.
    pub async fn run_upkeep(self, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(UPKEEP) => self.0.run_upkeep(),
            }
        }
    }

    /// The answer to a scrape, of the type [`METRICS_CONTENT_TYPE`]: the samples on the samples, those of the process, and what
    /// was counted.
    #[must_use]
    pub fn render(&self, mut samples: SampleWriter) -> String {
        process::write(&mut samples);
        samples.into_text() + &self.0.render()
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
    for metric in METRIC_DEFINITIONS {
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            MetricKind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}
