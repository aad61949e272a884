//! The first stage: rows are read from PostgreSQL, in a read-only transaction with a snapshot of its own or one that
//! another transaction has exported. `plan` decides which rows; nothing is encoded here.

mod batch;
mod connection_cache;
mod connection_count;
mod copy_out;
mod liveness;
mod source_failure;
mod transaction;

pub(crate) use batch::{Batch, FromSource};
pub(crate) use connection_cache::ConnectionCache;
pub(crate) use connection_count::open_connections;
pub(crate) use liveness::LivenessProbe;
pub(crate) use source_failure::{LOST, failed};
#[cfg(test)]
pub(crate) use transaction::Connected;
pub(crate) use transaction::{JoinError, Source, relation_missing};
