//! Traces across processes: setting the parent of a `tracing` span, passing a context on, and spans that are made without
//! `tracing` because their trace is known only afterwards. All of it has an effect only while traces are exported.

use std::sync::OnceLock;
use std::time::SystemTime;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

use super::trace_context::{TRACE_PARENT, TRACE_STATE, TraceContext};

/// Set once, when traces are exported.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Sets the tracer. Returns whether it was the first call.
pub(super) fn start(tracer: SdkTracer) -> bool {
    TRACER.set(tracer).is_ok()
}

fn is_on() -> bool {
    TRACER.get().is_some()
}

impl Extractor for TraceContext {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACE_PARENT => self.trace_parent.as_deref(),
            TRACE_STATE => self.trace_state.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACE_PARENT, TRACE_STATE]
    }
}

impl Injector for TraceContext {
    fn set(&mut self, key: &str, value: String) {
        match key {
            TRACE_PARENT => self.trace_parent = Some(value),
            TRACE_STATE => self.trace_state = Some(value).filter(|state| !state.is_empty()),
            _ => {}
        }
    }
}

/// The OpenTelemetry context of a trace context, if it is in a trace.
fn context(origin: &TraceContext) -> Option<Context> {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), origin);
    context.span().span_context().is_valid().then_some(context)
}

/// The trace context with its place in the trace replaced by `context`.
fn at(origin: &TraceContext, context: &Context) -> TraceContext {
    let mut origin = TraceContext { trace_state: None, ..origin.clone() };
    TraceContextPropagator::new().inject_context(context, &mut origin);
    origin
}

/// Makes a span that is not entered yet a child of the span that the trace context names.
pub fn set_parent(span: &tracing::Span, origin: &TraceContext) {
    if is_on()
        && let Some(context) = context(origin)
    {
        // Fails for a disabled span, which has no parent to set.
        span.set_parent(context).ok();
    }
}

/// Sets the name of the span in its trace, and its `OpenTelemetry` kind. The span must be declared with the empty fields
/// `otel.name` and `otel.kind`.
pub fn rename(span: &tracing::Span, name: &str, kind: &str) {
    if is_on() {
        span.record("otel.name", name);
        span.record("otel.kind", kind);
    }
}

/// Marks the span as failed. It must be declared with the empty field `otel.status_code`.
pub fn failed(span: &tracing::Span) {
    if is_on() {
        span.record("otel.status_code", "ERROR");
    }
}

/// The trace context for work that follows from the span: the span's own while traces are exported, and otherwise the one that
/// the client sent, which another process may export.
#[must_use]
pub fn trace_context_of(span: &tracing::Span, stated: TraceContext) -> TraceContext {
    if is_on() { at(&stated, &span.context()) } else { stated }
}

/// The start of a claim, which becomes a span once its trace is known.
#[derive(Debug, Clone, Copy)]
pub struct ClaimTimer(Option<SystemTime>);

impl ClaimTimer {
    #[must_use]
    pub fn now() -> Self {
        Self(is_on().then(opentelemetry::time::now))
    }

    /// Records a span from then to now, if the export is in a trace.
    pub fn claimed(self, origin: &TraceContext, export_id: Uuid, shard: i32) {
        if let (Some(tracer), Some(began), Some(context)) = (TRACER.get(), self.0, context(origin)) {
            let attributes = [id(export_id), KeyValue::new("shard", i64::from(shard))];
            let builder = tracer.span_builder("claim").with_kind(SpanKind::Consumer).with_start_time(began);
            builder.with_attributes(attributes).start_with_context(tracer, &context).end();
        }
    }
}

fn id(export_id: Uuid) -> KeyValue {
    KeyValue::new("export_id", export_id.to_string())
}

/// The span of a message that is being published. It ends when this is dropped.
pub struct Publishing(Context);

impl Publishing {
    /// `None` when traces are not exported, or the export is in no trace.
    pub fn begin(origin: &TraceContext, export_id: Uuid) -> Option<Self> {
        let (tracer, context) = (TRACER.get()?, context(origin)?);
        let builder = tracer.span_builder("publish").with_kind(SpanKind::Producer).with_attributes([id(export_id)]);
        let span = builder.start_with_context(tracer, &context);
        Some(Self(context.with_span(span)))
    }

    /// The context that the message carries.
    #[must_use]
    pub fn trace_context(&self) -> TraceContext {
        at(&TraceContext::default(), &self.0)
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.0.span().end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_goes_there_and_back() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let origin =
            TraceContext { request_id: Some("r".into()), ..TraceContext::of_trace(Some(parent), Some("a=b,c=d")) };
        assert_eq!(at(&origin, &context(&origin).unwrap()), origin);
        let without = TraceContext::of_trace(Some(parent), None);
        assert_eq!(at(&without, &context(&without).unwrap()), without);
        assert!(context(&TraceContext::default()).is_none());
    }

    #[test]
    fn nothing_is_done_without_an_exporter() {
        let span = tracing::error_span!("request", otel.name = tracing::field::Empty);
        let stated = TraceContext { request_id: Some("r".into()), ..TraceContext::default() };
        set_parent(&span, &stated);
        rename(&span, "POST /exports", "server");
        assert_eq!(trace_context_of(&span, stated.clone()), stated);
        assert!(Publishing::begin(&stated, Uuid::nil()).is_none());
    }
}
