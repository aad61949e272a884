//! The trace context of an export: the id of the request that asked for it, and the request's place in a trace. It is stored with
//! the export in the ledger, and sent with its messages.

use http::HeaderMap;

/// The headers of W3C Trace Context.
pub(super) const TRACE_PARENT: &str = "traceparent";
pub(super) const TRACE_STATE: &str = "tracestate";

/// Largest accepted lengths in bytes. A longer `tracestate` need not be passed on.
const LONGEST_ID: usize = 128;
const LONGEST_STATE: usize = 512;

/// The request and the trace that an export belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// The request's id, as in its log lines.
    pub request_id: Option<String>,
    /// The `traceparent` under which the export's spans are.
    pub trace_parent: Option<String>,
    pub trace_state: Option<String>,
}

impl TraceContext {
    /// The trace context of a client's request. Malformed headers are ignored: they are no reason to refuse an export.
    #[must_use]
    pub fn of_request(request_id: &str, headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        Self {
            request_id: (!request_id.is_empty() && request_id.len() <= LONGEST_ID).then(|| request_id.to_owned()),
            ..Self::of_trace(text(TRACE_PARENT), text(TRACE_STATE))
        }
    }

    /// A place in a trace, as somebody else has stated it.
    #[must_use]
    pub fn of_trace(parent: Option<&str>, state: Option<&str>) -> Self {
        let trace_parent = parent.filter(|parent| is_trace_parent(parent)).map(str::to_owned);
        // A state without its parent is nobody's.
        let state = state.filter(|state| trace_parent.is_some() && is_trace_state(state));
        Self { request_id: None, trace_state: state.map(str::to_owned), trace_parent }
    }
}

/// Version 00, which is all that there is: `00-<32 hex>-<16 hex>-<2 hex>`, in lower case and with ids that are not zero.
fn is_trace_parent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let is_set = |part: &str| part.bytes().any(|byte| byte != b'0');
    match parts[..] {
        ["00", trace, span, flags] => hex(trace, 32) && hex(span, 16) && hex(flags, 2) && is_set(trace) && is_set(span),
        _ => false,
    }
}

fn is_trace_state(text: &str) -> bool {
    (1..=LONGEST_STATE).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(parent: &str, state: &str) -> TraceContext {
        TraceContext::of_trace(Some(parent), Some(state))
    }

    #[test]
    fn what_is_malformed_is_left_out() {
        let origin = of(PARENT, "a=b");
        assert_eq!((origin.trace_parent.as_deref(), origin.trace_state.as_deref()), (Some(PARENT), Some("a=b")));
        assert_eq!(of(PARENT, &"x".repeat(513)).trace_state, None);
        assert_eq!(of(PARENT, "ü=1").trace_state, None);
        for bad in [
            "",
            "x",
            &PARENT.to_uppercase(),
            &PARENT.replace("00-4", "01-4"),
            &format!("{PARENT}-00"),
            &PARENT[..54],
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(of(bad, "a=b"), TraceContext::default(), "{bad}");
        }
    }

    #[test]
    fn headers_are_read() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACE_PARENT, PARENT.parse().unwrap());
        let origin = TraceContext::of_request("r-1", &headers);
        assert_eq!((origin.request_id.as_deref(), origin.trace_parent.as_deref()), (Some("r-1"), Some(PARENT)));
        assert_eq!(TraceContext::of_request(&"x".repeat(129), &headers).request_id, None);
    }
}
