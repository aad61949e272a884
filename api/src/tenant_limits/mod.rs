//! What each tenant may have at most: the operator's `TENANT_LIMITS` file, and the limits that this process enforces with the
//! ledger, of requests and of event streams. Those of submissions and of begun exports are the ledger's alone.

mod config;
mod gate;
mod refusal;
mod request_block;
mod request_quota;
mod stream_slot;

pub(crate) use config::LimitsByTenant;
pub(crate) use gate::{TenantGate, store_running};
pub(crate) use refusal::{refused, refused_by_ledger};
pub(crate) use stream_slot::HeldStream;
