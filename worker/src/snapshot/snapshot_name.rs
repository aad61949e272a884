//! The name under which a snapshot was exported.

use std::fmt;

use polyglot_core::failure::Failure;

use crate::read::Source;

/// A snapshot's name and the start time of the server that gave it: after a restart, or on another server, the same
/// name may be another snapshot. As text, which the ledger stores, the two are separated by a blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SnapshotName {
    pub name: String,
    pub server_started: String,
}

impl SnapshotName {
    /// Exports the snapshot of a transaction.
    pub(super) async fn export(transaction: &mut Source) -> Result<Self, Failure> {
        Ok(Self {
            name: transaction.export_snapshot().await?,
            server_started: transaction.backend.server_started.clone(),
        })
    }

    /// Reads the text that the ledger stores.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, server_started) = text.split_once(' ')?;
        Some(Self { name: name.to_owned(), server_started: server_started.to_owned() })
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.server_started)
    }
}
