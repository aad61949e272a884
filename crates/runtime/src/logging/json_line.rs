//! Formatting an event as one line of JSON. It includes the fields of the enclosing spans at the top level, so that every line names
//! its request and its export, and `grep` and Loki find a field always in the same place.

use std::fmt::{self, Debug};

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// `timestamp`, `level`, the event's fields, those of its spans, `span` (the innermost one's name) and `target`. Of
/// several fields of one name the innermost is kept, the event's own before all.
pub(super) struct JsonLine;

/// Prefix of fields that are for the export of traces alone.
const TRACE_FIELD_PREFIX: &str = "otel.";

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true).into());
        line.insert("level".to_owned(), metadata.level().as_str().into());
        event.record(&mut Fields(&mut line));
        let mut innermost = None;
        // From the innermost one outwards.
        for span in context.event_scope().into_iter().flatten() {
            innermost = innermost.or(Some(span.name()));
            let extensions = span.extensions();
            let Some(fields) = extensions.get::<FormattedFields<N>>() else { continue };
            // Written by `JsonFields`; a span without fields has an empty text.
            let Ok(fields) = serde_json::from_str::<Map<String, Value>>(&fields.fields) else { continue };
            for (name, value) in fields {
                if !name.starts_with(TRACE_FIELD_PREFIX) {
                    line.entry(name).or_insert(value);
                }
            }
        }
        if let Some(span) = innermost {
            line.insert("span".to_owned(), span.into());
        }
        line.insert("target".to_owned(), metadata.target().into());
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name();
        self.0.insert(name.strip_prefix("r#").unwrap_or(name).to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::format::JsonFields;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_fields_of_all_spans_are_beside_the_event_s() {
        let log = Log::default();
        let writer = log.clone();
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(JsonLine)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!("outside");
            let work = tracing::error_span!(
                "work",
                export_id = "e",
                shard = 3,
                rows = 1,
                otel.name = tracing::field::Empty,
                request_id = None::<&str>
            );
            work.record("otel.name", "shard");
            let _work = work.enter();
            let _plain = tracing::info_span!("plan").entered();
            tracing::warn!(rows = 7, problem = %"none \"at all\"", "inside");
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["message"], "outside");
        assert_eq!(lines[0].get("span"), None);
        let inside = &lines[1];
        assert_eq!((&inside["message"], &inside["level"]), (&"inside".into(), &"WARN".into()));
        assert_eq!((&inside["export_id"], &inside["shard"], &inside["rows"]), (&"e".into(), &3.into(), &7.into()));
        assert_eq!((&inside["span"], &inside["problem"]), (&"plan".into(), &"none \"at all\"".into()));
        assert!(inside["timestamp"].as_str().unwrap().ends_with('Z') && !text.contains("otel."), "{text}");
        assert!(inside["target"].as_str().unwrap().starts_with("polyglot_runtime::"));
    }
}
