//! Limits of a tenant, counted here so that all processes agree: what it may submit, how many of its exports may be begun, its
//! requests, and its event streams. What the limits are, the callers say; of begun exports a table does, for workers.

mod request_bucket;
mod running;
mod streams;
mod submission;
mod usage;

pub use request_bucket::RequestBlock;
pub use streams::StreamSlot;
pub use usage::TenantUsage;

pub(crate) use running::may_begin;
pub(crate) use submission::check_submission;
