//! The limits of a server, what its connections share to keep them, and the count of those that were refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::activity::ConnectionTimeouts;
use crate::quota::{Quota, QuotaLimits};
use crate::telemetry::HTTP_REFUSED;

/// Connections over the limit that are answered at a time. More are closed without waiting for their request.
const MAX_REFUSALS: usize = 256;

/// What the clients of one listener may have, apart from bodies of requests, which the service limits as it reads them.
/// Every limit is answered: with 503 where all clients together are at it, with
/// 429 where one is, with 408 for what arrives too slowly and 431 for a head that is too large. Without a handshake there is no
/// answer: with TLS, connections over the limit and those whose handshake fails or takes too long are closed.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Open connections.
    pub connections: QuotaLimits,
    /// Bytes of answers in memory that are not sent yet.
    pub response_bytes: QuotaLimits,
    /// Time for the handshake of TLS, where there is one.
    pub handshake_timeout: Duration,
    /// Time for the head of a request, from its first byte; for the first one from the connection, or from
    /// the end of its handshake.
    pub head_timeout: Duration,
    /// Time after which a connection without requests is closed.
    pub idle_timeout: Duration,
    /// Time after which a connection is closed whose client takes not a single byte of what is sent to it.
    pub write_timeout: Duration,
}

impl Default for HttpLimits {
    /// Limits for a listener that is asked for metrics now and then.
    fn default() -> Self {
        Self {
            connections: QuotaLimits { total: 128, per_peer: 64 },
            response_bytes: QuotaLimits { total: 4 << 20, per_peer: 2 << 20 },
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            write_timeout: Duration::from_secs(30),
        }
    }
}

impl HttpLimits {
    pub(super) fn timeouts(&self) -> ConnectionTimeouts {
        ConnectionTimeouts { head: self.head_timeout, idle: self.idle_timeout, write: self.write_timeout }
    }
}

/// The limit that has refused a client or cut it off: the values of a metric's label.
#[derive(Debug, Clone, Copy)]
pub(super) enum RefusedBy {
    Connections,
    TlsHandshake,
    HeadTimeout,
    HeadSize,
    AnswerMemory,
    UnreadAnswer,
}

impl RefusedBy {
    const ALL: [Self; 6] = [
        Self::Connections,
        Self::TlsHandshake,
        Self::HeadTimeout,
        Self::HeadSize,
        Self::AnswerMemory,
        Self::UnreadAnswer,
    ];

    fn reason(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::TlsHandshake => "tls_handshake",
            Self::HeadTimeout => "head_timeout",
            Self::HeadSize => "head_size",
            Self::AnswerMemory => "answer_memory",
            Self::UnreadAnswer => "unread_answer",
        }
    }
}

/// Shows every reason from the start, with nothing counted.
pub(super) fn register_counters() {
    for by in RefusedBy::ALL {
        metrics::counter!(HTTP_REFUSED, "reason" => by.reason()).increment(0);
    }
}

pub(super) fn count_refused(by: RefusedBy) {
    metrics::counter!(HTTP_REFUSED, "reason" => by.reason()).increment(1);
}

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) limits: HttpLimits,
    pub(super) connections: Quota,
    pub(super) response_bytes: Quota,
    pub(super) refusals: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(limits: HttpLimits) -> Self {
        Self {
            limits,
            connections: Quota::new(limits.connections),
            response_bytes: Quota::new(limits.response_bytes),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
        }
    }
}
