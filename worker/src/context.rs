//! The state that all jobs of a worker share. It takes no work and does none.

use std::sync::atomic::{AtomicUsize, Ordering};

use polyglot_ledger::queue::Relay;
use polyglot_ledger::{Connections, Ledger};
use polyglot_storage::Storage;

use crate::config::Settings;
use crate::memory;
use crate::part::Buffers;
use crate::read::ConnectionCache;
use crate::snapshot::SnapshotSessions;
use crate::upload::Target;

/// What every job of this process shares: configuration, handles on the servers, and the memory and connections that are
/// used again.
pub(crate) struct WorkerContext {
    pub connections: Connections,
    pub settings: Settings,
    pub ledger: Ledger,
    pub storage: Storage,
    pub relay: Relay,
    /// Shown in the ledger as the owner of leases.
    pub name: String,
    pub snapshots: SnapshotSessions,
    pub buffers: Buffers,
    pub connection_cache: ConnectionCache,
    active: AtomicUsize,
}

impl WorkerContext {
    pub(crate) fn new(
        connections: Connections,
        settings: Settings,
        ledger: Ledger,
        storage: Storage,
        relay: Relay,
        name: String,
    ) -> Self {
        let buffers = Buffers::default();
        let connection_cache = ConnectionCache::new(settings.slots.into());
        let snapshots = SnapshotSessions::new(
            connections.source_database_url.clone(),
            ledger.clone(),
            name.clone(),
            settings.max_row_bytes,
            buffers.clone(),
            connection_cache.clone(),
        );
        Self {
            connections,
            settings,
            ledger,
            storage,
            relay,
            name,
            snapshots,
            buffers,
            connection_cache,
            active: AtomicUsize::new(0),
        }
    }

    pub(crate) fn target(&self) -> Target<'_> {
        Target { storage: &self.storage, ledger: &self.ledger, ledger_timeout: self.settings.lease }
    }

    /// Slots that are at work.
    pub(crate) fn slots_in_use(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Counts a slot as at work until the guard is dropped. The first one beside no other begins a new memory peak, so that
    /// the peak that is reported with an export is its own.
    pub(crate) fn occupy_slot(&self) -> OccupiedSlot<'_> {
        if self.active.fetch_add(1, Ordering::Relaxed) == 0 {
            memory::reset_peak();
        }
        OccupiedSlot(&self.active)
    }
}

/// A slot that is at work.
pub(crate) struct OccupiedSlot<'a>(&'a AtomicUsize);

impl Drop for OccupiedSlot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
