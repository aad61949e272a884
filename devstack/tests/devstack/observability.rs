//! The dashboard, the alerts and the table of metrics in the documents, compared with the metrics that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use polyglot_runtime::telemetry::{METRIC_DEFINITIONS, MetricKind};
use polyglot_test_servers::needs_program;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// Every metric that the text names, without the suffixes of a histogram's series.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let names = words.filter(|word| word.starts_with("polyglot_") || word.starts_with("process_"));
    let histograms: Vec<_> = METRIC_DEFINITIONS.iter().filter(|metric| metric.kind == MetricKind::Histogram).collect();
    let plain = |name: &str| {
        let series = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| name.strip_suffix(suffix));
        let base = series.filter(|base| histograms.iter().any(|metric| metric.name == *base));
        base.unwrap_or(name).to_owned()
    };
    names.map(plain).collect()
}

#[test]
fn dashboard_and_alerts_use_metrics_that_exist() {
    let known: BTreeSet<String> = METRIC_DEFINITIONS.iter().map(|metric| metric.name.to_owned()).collect();
    let dashboard = read("observability/grafana-dashboard.json");
    serde_json::from_str::<serde_json::Value>(&dashboard).unwrap();
    for (file, text) in [("dashboard", dashboard), ("alerts", read("observability/alerts.yml"))] {
        let unknown: Vec<String> = named(&text).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "the {file} names {unknown:?}");
    }
    let shown = named(&read("observability/grafana-dashboard.json"));
    let unseen: Vec<&String> = known.difference(&shown).collect();
    assert!(unseen.is_empty(), "the dashboard does not show {unseen:?}");
}

#[test]
fn every_metric_is_explained() {
    let document = read("docs/reference/metrics.md");
    for metric in METRIC_DEFINITIONS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{}` | {} | {} | ", metric.name, metric.kind.name(), labels.join(", "));
        assert!(document.contains(&row), "docs/reference/metrics.md has no row that begins with {row}");
    }
    let named: BTreeSet<String> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| name.starts_with("polyglot_") || name.starts_with("process_"))
        .map(str::to_owned)
        .collect();
    let known: BTreeSet<String> = METRIC_DEFINITIONS.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(named, known);
}

#[test]
fn prometheus_accepts_rules_and_configuration() {
    needs_program!("promtool");
    for (check, file) in [("rules", "alerts.yml"), ("config", "prometheus.yml")] {
        let path = root().join("observability").join(file);
        let output = Command::new("promtool").args(["check", check]).arg(path).output();
        let output = output.unwrap();
        let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{report}");
    }
}
