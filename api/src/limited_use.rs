//! The kinds of requests of which a client may have only so many at a time. How many is in `client_limits`.

/// What a client may have only so many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitedUse {
    EventStream,
    WaitingDownload,
    ProxiedDownload,
}

impl LimitedUse {
    /// The value of the metric's label.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::EventStream => "event_streams",
            Self::WaitingDownload => "waiting_downloads",
            Self::ProxiedDownload => "proxied_downloads",
        }
    }
}
