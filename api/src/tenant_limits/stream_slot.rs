//! The slot that an open event stream has of its tenant's.

use polyglot_core::failure::chain;
use polyglot_ledger::{Ledger, StreamSlot, with_timeout};
use tokio_util::task::TaskTracker;

use super::gate::TenantGate;
use super::refusal::refused_by_ledger;
use crate::problem::RouteError;
use crate::timeout;

/// A slot in the ledger, which is given back when this is dropped.
pub(crate) struct HeldStream {
    slot: StreamSlot,
    ledger: Ledger,
    tasks: TaskTracker,
}

impl TenantGate {
    /// Takes a slot for a stream of the tenant. `None`: its streams are not limited.
    pub(crate) async fn open_stream(
        &self,
        tenant: &str,
        ledger: &Ledger,
        tasks: &TaskTracker,
    ) -> Result<Option<HeldStream>, RouteError> {
        let Some(max) = self.of(tenant).streams else { return Ok(None) };
        let slot = timeout::ledger(ledger.open_stream(tenant, max)).await.map_err(refused_by_ledger)?;
        Ok(Some(HeldStream { slot, ledger: ledger.clone(), tasks: tasks.clone() }))
    }
}

impl HeldStream {
    pub(crate) fn slot(&self) -> StreamSlot {
        self.slot
    }
}

impl Drop for HeldStream {
    fn drop(&mut self) {
        let (slot, ledger) = (self.slot, self.ledger.clone());
        self.tasks.spawn(async move {
            if let Err(error) = with_timeout(ledger.close_stream(slot)).await {
                tracing::warn!(
                    error = chain(&error),
                    "the slot of an event stream is not free before a minute has passed"
                );
            }
        });
    }
}
