//! The ledger's calls for clients of the service: submitting, reading, cancelling and deleting exports.

mod accepted;
mod benchmark_lock;
mod cancel;
mod idempotency;
mod read;
mod redact;
mod submit;
mod tenant_view;

pub use accepted::Accepted;
pub use benchmark_lock::BenchmarkLock;
pub use cancel::Deletion;
pub(crate) use idempotency::KEY_RETENTION;
pub use idempotency::{Reservation, ReservedKey};
pub use read::{Export, ListFilter, WaitReason, Waiting};
pub use submit::Submission;
pub use tenant_view::TenantView;
