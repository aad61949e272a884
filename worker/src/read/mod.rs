//! The first stage: rows are read from PostgreSQL, in a read-only transaction with a snapshot of its own or one that
//! another transaction has exported. `plan` decides which rows; nothing is encoded here.

mod batch;
mod connection_cache;
#[cfg(test)]
mod connection_cache_tests;
mod copy_out;
mod liveness;
mod source_failure;
mod transaction;

pub(crate) use batch::{Batch, FromSource};
pub(crate) use connection_cache::{AttemptKey, ConnectionCache};
pub(crate) use liveness::LivenessProbe;
pub(crate) use source_failure::{LOST, failed};
pub(crate) use transaction::{Connected, JoinError, Source, relation_missing};
