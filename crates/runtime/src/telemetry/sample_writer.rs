//! Writing samples in Prometheus' text format, for values that are read at the time of a scrape. Unlike gauges in a registry, a
//! value that cannot be read is left out, and counters may be fractions.

use super::metric_definitions::find;
use super::pool_use::PoolUse;

/// The lines of a scrape. All samples of a metric must be written one after the other.
#[derive(Debug, Default)]
pub struct SampleWriter {
    text: String,
    last: &'static str,
}

impl SampleWriter {
    /// Writes a sample.
    pub fn write(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        if self.last != name {
            let definition = find(name);
            debug_assert!(definition.is_some(), "{name} is not in the table");
            if let Some(metric) = definition {
                let kind = metric.kind.name();
                self.text.push_str(&format!("# HELP {name} {}\n# TYPE {name} {kind}\n", metric.help));
            }
            self.last = name;
        }
        self.text.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.text.push_str(&format!("{before}{label}=\"{value}\""));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.text.push_str(&format!(" {value}\n"));
    }

    /// Writes a sample that is a count.
    pub fn count(&mut self, name: &'static str, labels: &[(&'static str, &str)], count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, of which there are no things or bytes here")]
        self.write(name, labels, count as f64);
    }

    /// Writes the connections of each pool, by state.
    pub fn pools(&mut self, pools: &[(&str, PoolUse)]) {
        for (pool, connections) in pools {
            for (state, count) in [("idle", connections.idle), ("used", connections.used)] {
                self.count("polyglot_database_connections", &[("pool", pool), ("state", state)], count);
            }
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_described_once_and_labels_are_escaped() {
        let mut samples = SampleWriter::default();
        samples.count("polyglot_slots", &[("state", "used")], 2);
        samples.count("polyglot_slots", &[("state", "a\"\\\n")], 0);
        samples.write("process_start_time_seconds", &[], 1_700_000_000.25);
        assert_eq!(
            samples.into_text(),
            "# HELP polyglot_slots Slots of the worker.\n# TYPE polyglot_slots gauge\n\
             polyglot_slots{state=\"used\"} 2\npolyglot_slots{state=\"a\\\"\\\\\\n\"} 0\n\
             # HELP process_start_time_seconds When the process started, since 1970 in UTC.\n\
             # TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1700000000.25\n"
        );
    }
}
