//! The states of an export, and which of them are final. The ledger makes the transitions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `pending → planning → running → finishing → completed → expired`; `failed` and `cancelled` can follow any
/// of the first four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted; no worker has taken it, or the last one gave it back.
    Pending,
    /// A worker is cutting it into shards.
    Planning,
    /// Rows are being read and written.
    Running,
    /// Every row is written; the object is being switched to visible.
    Finishing,
    /// The file can be downloaded.
    Completed,
    /// The file was there and is gone: its time ran out, or it was deleted.
    Expired,
    /// There is no file, and the error says why.
    Failed,
    /// Stopped on request; there is no file.
    Cancelled,
}

impl Status {
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Planning,
        Self::Running,
        Self::Finishing,
        Self::Completed,
        Self::Expired,
        Self::Failed,
        Self::Cancelled,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Planning => "planning",
            Self::Running => "running",
            Self::Finishing => "finishing",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether work may still be done for the export.
    #[must_use]
    pub fn is_active(self) -> bool {
        match self {
            Self::Pending | Self::Planning | Self::Running | Self::Finishing => true,
            Self::Completed | Self::Expired | Self::Failed | Self::Cancelled => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
