//! What a client of the service causes in the ledger: submitting, reading, cancelling and deleting exports.

mod benchmark_lock;
mod cancel;
mod idempotency;
mod read;
mod submit;

pub use benchmark_lock::BenchmarkLock;
pub use cancel::Deletion;
pub(crate) use idempotency::KEPT;
pub use idempotency::{Reservation, ReservedKey};
pub use read::{Export, ListFilter};
pub use submit::{Accepted, Submission};
