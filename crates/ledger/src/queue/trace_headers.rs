//! The trace context of a message: the headers of W3C Trace Context, under their HTTP names.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use polyglot_runtime::telemetry::TraceContext;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// Adds the trace context to the properties, if there is one.
pub(super) fn write(properties: BasicProperties, origin: &TraceContext) -> BasicProperties {
    if origin.trace_parent.is_none() {
        return properties;
    }
    let mut headers = properties.headers().clone().unwrap_or_default();
    for (name, value) in [(PARENT, &origin.trace_parent), (STATE, &origin.trace_state)] {
        if let Some(value) = value {
            headers.insert(name.into(), AMQPValue::LongString(value.as_str().into()));
        }
    }
    properties.with_headers(headers)
}

/// The trace context of a message; empty if it is malformed.
pub(super) fn read(properties: &BasicProperties) -> TraceContext {
    let text = |headers: &FieldTable, name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => Some(text.to_string()),
        Some(AMQPValue::ShortString(text)) => Some(text.to_string()),
        _ => None,
    };
    let Some(headers) = properties.headers() else { return TraceContext::default() };
    TraceContext::of_trace(text(headers, PARENT).as_deref(), text(headers, STATE).as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for origin in [
            TraceContext::of_trace(Some(parent), Some("a=b")),
            TraceContext::of_trace(Some(parent), None),
            TraceContext::default(),
        ] {
            assert_eq!(read(&write(BasicProperties::default(), &origin)), origin);
        }
    }
}
