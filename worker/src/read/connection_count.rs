//! The number of this process's connections to the source, whatever they are used for. Those of liveness probes are not
//! counted.

use std::sync::atomic::{AtomicUsize, Ordering};

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// A guard that counts one connection until it is dropped.
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

/// Returns the number of open connections to the source.
pub(crate) fn open_connections() -> usize {
    OPEN.load(Ordering::Relaxed)
}
