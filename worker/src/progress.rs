//! The progress of a piece of work.

use std::sync::atomic::AtomicI64;

/// Rows and bytes that a piece of work has written so far. The heartbeat reads them.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub rows: AtomicI64,
    pub bytes: AtomicI64,
}
