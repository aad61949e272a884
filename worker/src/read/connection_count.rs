//! How many connections to the source this process has, whatever they are for at the moment. Those that only look whether
//! another one lives are not counted.

use std::sync::atomic::{AtomicUsize, Ordering};

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Goes with a connection, and counts it until it is dropped.
pub(super) struct ConnectionCountGuard(());

impl ConnectionCountGuard {
    pub(super) fn new() -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for ConnectionCountGuard {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) fn open_connections() -> usize {
    OPEN.load(Ordering::Relaxed)
}
