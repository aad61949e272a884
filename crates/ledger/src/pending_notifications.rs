//! The exports of which this process has changed something, until a notification is sent.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

/// The ids of changed exports whose notification is not sent yet; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct PendingNotifications {
    exports: Arc<Mutex<BTreeSet<Uuid>>>,
    added: Arc<Notify>,
}

impl PendingNotifications {
    pub(crate) fn add(&self, id: Uuid) {
        // A panic while the lock is held leaves the set intact.
        self.exports.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        self.added.notify_one();
    }

    /// Waits until something was added.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    pub(crate) fn take(&self) -> Vec<Uuid> {
        std::mem::take(&mut *self.exports.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }
}
