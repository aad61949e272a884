//! The state that all jobs of a worker share. It neither takes nor performs work.

use std::sync::atomic::{AtomicUsize, Ordering};

use polyglot_ledger::queue::Relay;
use polyglot_ledger::{Connections, Ledger, Turn};
use polyglot_source::{ConnectionLimit, RoleCheck};
use polyglot_storage::Storage;

use crate::config::Settings;
use crate::memory;
use crate::part::BufferPool;
use crate::read::ConnectionCache;
use crate::snapshot::SnapshotSessions;
use crate::upload::Target;

/// The state that all jobs of this process share: configuration, handles on the servers, and pools of memory and
/// connections.
pub(crate) struct WorkerContext {
    pub connections: Connections,
    pub settings: Settings,
    pub ledger: Ledger,
    pub storage: Storage,
    pub relay: Relay,
    /// Name of this process, which the ledger stores as the owner of leases.
    pub name: String,
    pub snapshots: SnapshotSessions,
    pub buffers: BufferPool,
    /// Limit of this process's connections to the source.
    pub connection_limit: ConnectionLimit,
    pub connection_cache: ConnectionCache,
    pub role_check: RoleCheck,
    active: AtomicUsize,
    /// Number of claims so far, which decides what the next one looks for first.
    claims: AtomicUsize,
}

impl WorkerContext {
    pub(crate) fn new(
        connections: Connections,
        settings: Settings,
        ledger: Ledger,
        storage: Storage,
        relay: Relay,
        name: String,
        connection_limit: ConnectionLimit,
    ) -> Self {
        let buffers = BufferPool::default();
        let role_check = RoleCheck::new(
            connections.source_database_url.clone(),
            connection_limit.clone(),
            connections.source_allow_privileged,
        );
        let connection_cache = ConnectionCache::new(connection_limit.clone(), settings.slots.into());
        let snapshots = SnapshotSessions::new(
            connections.source_database_url.clone(),
            ledger.clone(),
            name.clone(),
            settings.max_row_bytes,
            buffers.clone(),
            connection_limit.clone(),
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
            connection_limit,
            connection_cache,
            role_check,
            active: AtomicUsize::new(0),
            claims: AtomicUsize::new(0),
        }
    }

    /// Returns what an upload needs of this context.
    pub(crate) fn target(&self) -> Target<'_> {
        Target { storage: &self.storage, ledger: &self.ledger, ledger_timeout: self.settings.lease }
    }

    /// Returns the kind of work that the next claim looks for first, which alternates.
    pub(crate) fn next_turn(&self) -> Turn {
        Turn::nth(self.claims.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the number of slots that are at work.
    pub(crate) fn slots_in_use(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Counts a slot as at work until the guard is dropped. If no other slot is at work, the memory peak is reset, so
    /// that the peak reported with an export is its own.
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
